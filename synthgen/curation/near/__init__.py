"""The sweep for near duplicates: rows whose sets of word sequences are almost the same.

`signature` reads the text of each row once and stores its shingles, their sketch, and a key for each band of the
sketch. `decide` compares each row with earlier kept rows that have a band in common with it. Rows that are held out
(`validation` and `test`) come first, so none of them is dropped because of a row of `train`. The exact Jaccard
similarity of the shingles decides. See `search` for how the memory stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unicodedata import unidata_version

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.held_out import is_held_out
from synthgen.curation.lists import Rows
from synthgen.curation.near.shingles import KINDS, LOWER
from synthgen.curation.near.sketch import SEED, SLOTS, bands
from synthgen.curation.order import Order
from synthgen.errors import CorpusError
from synthgen.executor import Executor, Services
from synthgen.executor.exchange import read_table
from synthgen.tables.curation_settings import NearDuplicates

_PARTS = {"row": ("prompt.said", "completion.said"), "prompt": ("prompt.said",), "completion": ("completion.said",)}


def made_with(words: int) -> dict[bytes, bytes]:
    """Everything on which shingles of `words` words depend. These facts are stored with the shingles, so that shingles
    of two kinds are never compared.
    """
    return {b"shingles": f"words of {words}, version 2, Unicode {unidata_version}".encode()}


def _made_with(section: NearDuplicates) -> dict[bytes, bytes]:
    count, size = bands(section.threshold)
    return {**made_with(section.words), b"sketch": f"fss {SLOTS}, seed {SEED}, {count} bands of {size}".encode()}


def signature(batch: pa.RecordBatch, section: NearDuplicates, services: Services) -> pa.Table:
    """Return for each row: its shingles (`shingles`, a list of uint64), their number (`size`), the lowest 8 bits of
    each slot of their sketch (`slots`), the key of each band (`band-00`, …), and whether the row is held out
    (`held_out`).
    """
    from synthgen.curation.near import kernels

    lists, sizes = shingled(batch, section.of, section.words)
    sketches = np.zeros((len(sizes), SLOTS), np.uint32)
    kernels.sketches(lists, sizes, sketches)
    keys = np.empty((bands(section.threshold)[0], len(sizes)), np.uint64)
    kernels.band_keys(sketches, keys)
    slots = pa.py_buffer(sketches.astype(np.uint8))
    columns = {
        "row": batch["row"],
        "size": pa.array(sizes),
        "held_out": is_held_out(batch["split"]),
        **{f"band-{number:02d}": pa.array(key) for number, key in enumerate(keys)},
        "slots": pa.Array.from_buffers(pa.binary(SLOTS), len(sizes), [None, slots]),
        "shingles": listed(lists, sizes),
    }
    return pa.table(columns).replace_schema_metadata(_made_with(section))


def shingled(batch: pa.RecordBatch, of: str, words: int) -> tuple[npt.NDArray[np.uint64], Rows]:
    """Return (shingles of all rows of a batch, one row after the other, and their number for each row). `of` is
    "row", "prompt" or "completion".
    """
    from synthgen.curation.near import kernels

    texts = pc.binary_join_element_wise(*(batch[name] for name in _PARTS[of]), "\n").cast(pa.large_string())
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lists = np.empty((offsets[-1] - offsets[0]) // 2 + len(texts), np.uint64)
    sizes = np.empty(len(texts), np.int64)
    characters = np.frombuffer(data or b"", np.uint8)
    total = kernels.shingle_lists(characters, offsets, words, (KINDS, LOWER), lists, sizes)
    return lists[:total], sizes


def listed(lists: npt.NDArray[np.uint64], sizes: Rows) -> pa.Array:
    """The result of `shingled` as an array of lists."""
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)])), pa.array(lists))


def decide(paths: Sequence[Path], lost: Rows, order: Order, section: NearDuplicates, executor: Executor) -> pa.Table:
    """Return the rows to reject (`row`), each with the kept row that it resembles (`twin`), their Jaccard similarity
    (`score`) and the `threshold`.
    """
    from synthgen.curation.near import search

    check_made_with(paths, _made_with(section))
    return search.near_rows(paths, lost, order, section, executor)


def check_made_with(paths: Sequence[Path], expected: dict[bytes, bytes]) -> None:
    """Raise CorpusError unless all signatures were made as expected."""
    if any(read_table(path).schema.metadata != expected for path in paths):
        raise CorpusError("the signatures were made by another version of synthgen", "repeat the command with --fresh")
