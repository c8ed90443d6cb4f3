"""Reads chosen columns of a curated corpus.

    for shard, batch in columns(folder, "data", "train", [SOURCES]):      # Arrow record batches, in file order
    for row, kept in teaching_rows(folder, "test", [PROMPT, TOKENS]):     # rows in training order

The learnable rows are all kept rows, and the rejected rows without a reason that says `teaches: nothing`. A rejected
row is used like a kept row ("counts as kept") if all of its reasons say `teaches: all`. Of a preference pair, the row
with the role `rejected` is not learnable. The training order is by shard name and, within a shard, by record id. At
most one shard's columns are in memory at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus

ID, SEED_ID, VERDICTS, SOURCES = "id", "seed_id", "verdicts", "sources"
PROMPT, TEACHER_PROMPT, ANSWER, REFERENCE = "prompt", "teacher_prompt", "answer", "reference"
COMPLETION, TOOLS, TEACHES, TEACHER = "completion", "tools", "teaches", "teacher"
TOKENS, PROMPT_TOKENS, LABEL_PROBS = "token_ids", "prompt_token_ids", "label_probs"
RATIONALE, PAIR_ROLE, FINISH_REASON = "rationale", "pair_role", "finish_reason"
REJECTED_SIDE = "rejected"  # `pair_role` of the row whose completion is not learned
_TEACHES = f"{VERDICTS}.list.element.teaches"  # the field of a verdict that says what may be learned from the row

PARTS = ("data", "rejected")


def shards(folder: Path, split: str, parts: Sequence[str] = PARTS) -> list[str]:
    """The names of the shards of a split, in training order."""
    names = {p.stem for part in parts for p in (folder / part).glob(f"{split}-*.parquet") if not p.name.startswith(".")}
    return sorted(names)


def columns(
    folder: Path, part: str, split: str, names: Sequence[str], batch_size: int = 1024
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield (shard name, batch) of one part ("data" or "rejected") of a split, with only the columns `names`. Raises
    CorpusError.

    A name may also be a field inside a column, in Parquet's notation, such as `verdicts.list.element.check`.
    """
    for shard in shards(folder, split, [part]):
        for batch in corpus.scan(folder / part / f"{shard}.parquet", names, batch_size):
            yield shard, batch


@dataclass(frozen=True)
class Teaching:
    """The learnable rows of one shard, ordered by id.

    `table` has the column `id` and the requested columns. `kept` says which rows count as kept. `places` has the hash
    of each row's seed as uint64; see `in_share`. `degenerate` counts the rejected rows from which nothing may be
    learned. `rejected_side` counts the rows that would be learnable if they were not the rejected side of a pair.
    """

    shard: str
    table: pa.Table
    kept: npt.NDArray[np.bool_]
    places: npt.NDArray[np.uint64]
    degenerate: int
    rejected_side: int

    def __len__(self) -> int:
        return self.table.num_rows


def teaching(folder: Path, shard: str, names: Sequence[str] = ()) -> Teaching:
    """Read the learnable rows of `shard` with the columns `names`. Raises CorpusError when a file is damaged."""
    beside = (ID, SEED_ID, PAIR_ROLE)
    wanted = [*beside, _TEACHES, *(name for name in names if name not in beside)]
    tables, kept, degenerate, rejected_side = [], [], 0, 0
    for part in PARTS:
        path = folder / part / f"{shard}.parquet"
        if not path.exists():
            continue
        found = list(corpus.scan(path, wanted))
        if not found:
            continue
        table = pa.Table.from_batches(found)
        nothing, everything = _teaches(table[VERDICTS])
        degenerate += int(nothing.sum()) if part == "rejected" else 0
        unchosen = np.array([role == REJECTED_SIDE for role in table[PAIR_ROLE].to_pylist()], bool)
        rejected_side += int((unchosen & ~nothing).sum())
        nothing |= unchosen
        tables.append(table.drop_columns([VERDICTS]).take(_arrow(np.flatnonzero(~nothing))))
        kept.append(np.ones(tables[-1].num_rows, bool) if part == "data" else everything[~nothing])
    if not tables:
        no_rows = pa.schema([(ID, pa.string())]).empty_table()
        return Teaching(shard, no_rows, np.zeros(0, bool), np.zeros(0, np.uint64), degenerate, rejected_side)
    whole = pa.concat_tables(tables)
    ids = whole[ID].to_pylist()
    # The sort is stable. If a row of data/ and a row of rejected/ have the same id, the row of data/ comes first.
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    whole = whole.take(_arrow(order))
    places = _places(whole[SEED_ID].to_pylist())
    whole = whole.drop_columns([name for name in (SEED_ID, PAIR_ROLE) if name not in names])
    return Teaching(shard, whole.combine_chunks(), np.concatenate(kept)[order], places, degenerate, rejected_side)


def teaching_rows(
    folder: Path, split: str, names: Sequence[str], share: float = 1.0
) -> Iterator[tuple[dict[str, object], bool]]:
    """For each learnable row of a split, in training order, yield (its columns `names`, whether it counts as kept).

    For the split "train", only the rows of a `share` of the seeds are read; see `in_share`.
    """
    for shard in shards(folder, split):
        rows = teaching(folder, shard, names)
        inside = in_share(rows.places, share) if split == "train" else np.ones(len(rows), bool)
        start = 0
        for batch in rows.table.to_batches(1024):
            for row, kept, taken in zip(
                batch.to_pylist(), rows.kept[start:].tolist(), inside[start:].tolist(), strict=False
            ):
                if taken:
                    yield row, kept
            start += batch.num_rows


def token_counts(folder: Path, split: str, size: int) -> npt.NDArray[np.int64]:
    """Count how often each token id below `size` occurs in the completions of the learnable rows of a split."""
    counts = np.zeros(size, np.int64)
    for shard in shards(folder, split):
        rows = teaching(folder, shard, [TOKENS])
        if len(rows):
            counts += np.bincount(lists(rows.table[TOKENS])[0], minlength=size)
    return counts


def in_share(places: npt.NDArray[np.uint64], share: float) -> npt.NDArray[np.bool_]:
    """Return a mask that is True for each row whose seed has a hash below `share` · 2⁶⁴. The seeds of a
    smaller share are a subset of those of a larger share.
    """
    return np.asarray(places.astype(np.float64) / 2.0**64 < share)


def lists(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.generic], npt.NDArray[np.int64]]:
    """Convert a column of lists of numbers to (values of all rows, offsets (N + 1,)). Null becomes an empty list."""
    array = column.combine_chunks()
    lengths = np.bincount(_numpy(pc.list_parent_indices(array)), minlength=len(array))
    return _numpy(array.flatten()), np.concatenate([[0], np.cumsum(lengths)])


def _teaches(verdicts: pa.ChunkedArray) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return two masks over the rows: whether nothing may be learned from a row, and whether the row counts as kept."""
    reasons = [{reason["teaches"] for reason in row or ()} for row in verdicts.to_pylist()]
    nothing = np.array(["nothing" in each for each in reasons], bool)
    return nothing, np.array([each <= {"all"} for each in reasons], bool)


# The next two functions replace `pa.array` and `to_numpy`, which would import pandas (a second and 40 MB).


def _numpy(array: pa.Array) -> npt.NDArray[np.generic]:
    return np.from_dlpack(array)


def _arrow(numbers: npt.NDArray[np.int64]) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(numbers, np.int64))
    return pa.Array.from_buffers(pa.int64(), len(numbers), [None, data])


def _places(seed_ids: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Hash each seed id to a number that is uniform in [0, 2**64)."""
    known: dict[str, int] = {}
    for seed_id in seed_ids:
        if seed_id not in known:
            known[seed_id] = int.from_bytes(hashlib.blake2b(seed_id.encode(), digest_size=8).digest())
    return np.array([known[seed_id] for seed_id in seed_ids], np.uint64)
