"""Near duplicates with synthgen: python near_synthgen.py IN.parquet OUT.parquet [exact] [ray]. The program runs the
sweep alone: the functions `signature` and `decide` that `synthgen curate` runs for `curate.near_duplicates`. With
`ray`, both run on a Ray cluster of this machine with two workers.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthgen.curation.near import decide, signature
from synthgen.curation.order import Order
from synthgen.executor import LocalExecutor, Services, open_executor
from synthgen.executor.exchange import write_table
from synthgen.tables.curation_settings import NearDuplicates

_ROWS = 8192  # number of rows in one file of signatures
_NONE = np.array([], np.int64)


def on_ray(section: NearDuplicates) -> pa.Table:
    """The rows that the sweep drops, found by two workers of a Ray cluster."""
    from signing import sign, signings

    with tempfile.TemporaryDirectory() as scratch, open_executor("ray", 2, 2) as executor:
        paths = list(executor.map(sign, signings(Path(sys.argv[1]), section, Path(scratch))))
        return decide(paths, _NONE, Order(_NONE, _NONE), section, executor)


def here(section: NearDuplicates) -> pa.Table:
    """The rows that the sweep drops, found by two threads."""
    splits = pa.repeat("train", _ROWS)
    with tempfile.TemporaryDirectory() as scratch:

        def signed(part: tuple[int, pa.RecordBatch]) -> Path:
            number, batch = part
            path = Path(scratch) / f"{number:05d}.arrow"
            text = batch["text"].cast(pa.string())
            row = pa.array(np.arange(number * _ROWS, number * _ROWS + len(batch)))
            rows = pa.record_batch({"completion.said": text, "split": splits[: len(text)], "row": row})
            write_table(path, signature(rows, section, Services()))
            return path

        with (
            pq.ParquetFile(sys.argv[1], pre_buffer=False) as file,
            ThreadPoolExecutor(2) as pool,
            LocalExecutor(1) as executor,
        ):
            batches = enumerate(file.iter_batches(_ROWS, columns=["text"]))
            paths: list[Path] = []
            waiting = []
            for part in batches:
                waiting.append(pool.submit(signed, part))
                if len(waiting) > 4:  # at most five parts are in memory
                    paths.append(waiting.pop(0).result())
            paths += [future.result() for future in waiting]
            return decide(paths, _NONE, Order(_NONE, _NONE), section, executor)


def main() -> None:
    section = NearDuplicates(of="completion", exact="exact" in sys.argv[3:])
    drops = on_ray(section) if "ray" in sys.argv[3:] else here(section)
    ids = pq.read_table(sys.argv[1], columns=["id"])["id"]
    dropped = pc.is_in(pa.array(np.arange(len(ids))), drops["row"].combine_chunks())
    pq.write_table(pa.table({"id": ids.filter(pc.invert(dropped))}), sys.argv[2])


if __name__ == "__main__":
    main()
