"""The sweep for near duplicates: rows whose sets of word sequences are almost the same.

`signature` reads the text of each row once and stores its shingles and their sketch. `decide` goes through all rows in
order and compares each with kept rows only. Rows that are held out (`validation` and `test`) come first, so none of
them is dropped because of a row of `train`. The sketches select the rows that are compared. Whether a row is dropped is
decided by the exact Jaccard similarity of the shingles.
"""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import unidata_version

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.held_out import is_held_out
from synthgen.curation.lists import Rows, numbers
from synthgen.curation.near.shingles import KINDS
from synthgen.curation.near.sketch import SEED, SLOTS, bands, least_agreement
from synthgen.curation.order import Order
from synthgen.curation.plain import plain
from synthgen.errors import CorpusError
from synthgen.executor import Services
from synthgen.tables.curation import NearDuplicates

_PARTS = {"row": ("prompt.said", "completion.said"), "prompt": ("prompt.said",), "completion": ("completion.said",)}


def made_with(words: int) -> dict[bytes, bytes]:
    """What shingles of `words` words depend on. It is stored with them, so that others are never compared with them."""
    return {b"shingles": f"words of {words}, version 1, Unicode {unidata_version}".encode()}


def _made_with(section: NearDuplicates) -> dict[bytes, bytes]:
    return {**made_with(section.words), b"sketch": b"fss %d, seed %d" % (SLOTS, SEED)}


def signature(batch: pa.RecordBatch, section: NearDuplicates, services: Services) -> pa.Table:
    """Return the shingles (`shingles`, a list of uint64) and the sketch (`sketch`, 4 × `SLOTS` bytes) of each row, and
    whether the row is held out (`held_out`).
    """
    from synthgen.curation.near import kernels

    lists, sizes = shingled(batch, section.of, section.words)
    sketches = np.zeros((len(sizes), SLOTS), np.uint32)
    kernels.sketches(lists, sizes, sketches)
    columns = {
        "row": batch["row"],
        "held_out": is_held_out(batch["split"]),
        "shingles": listed(lists, sizes),
        "sketch": pa.Array.from_buffers(pa.binary(4 * SLOTS), len(sizes), [None, pa.py_buffer(sketches)]),
    }
    return pa.table(columns).replace_schema_metadata(_made_with(section))


def shingled(batch: pa.RecordBatch, of: str, words: int) -> tuple[npt.NDArray[np.uint64], Rows]:
    """Return (shingles of all rows of a batch, one row after the other, and their number for each row). `of` is
    "row", "prompt" or "completion".
    """
    from synthgen.curation.near import kernels

    texts = plain(pc.binary_join_element_wise(*(batch[name] for name in _PARTS[of]), "\n")).cast(pa.large_string())
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lists = np.empty(offsets[-1] - offsets[0], np.uint64)  # a text has at most as many shingles as bytes
    sizes = np.empty(len(texts), np.int64)
    total = kernels.shingle_lists(np.frombuffer(data or b"", np.uint8), offsets, words, KINDS, lists, sizes)
    return lists[:total], sizes


def listed(lists: npt.NDArray[np.uint64], sizes: Rows) -> pa.Array:
    """The result of `shingled` as an array of lists."""
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)])), pa.array(lists))


def decide(
    signatures: Sequence[pa.Table], lost: Rows, order: Order, section: NearDuplicates, services: Services
) -> pa.Table:
    """Return the rows to reject (`row`), each with the kept row that it resembles (`twin`), their Jaccard similarity
    (`score`) and the `threshold`.
    """
    from synthgen.curation.near import kernels

    if any(table.schema.metadata != _made_with(section) for table in signatures):
        raise CorpusError("the signatures were made by another version of synthgen", "repeat the command with --fresh")
    rows = np.concatenate([numbers(table["row"]) for table in signatures]).astype(np.int64)
    (lists, sizes), sketches = joined(signatures), _sketches(signatures)
    starts = np.cumsum(sizes) - sizes
    sizes[np.isin(rows, lost)] = 0
    units = order.units_of(rows)
    held_out = np.concatenate([numbers(table["held_out"]) for table in signatures]).astype(bool)
    turn = np.lexsort((rows, units, ~np.isin(units, units[held_out])))
    twin, score = np.full(len(rows), -1), np.full(len(rows), -1.0)
    sets, found = (lists, starts[turn], sizes[turn]), (twin, score)
    if section.exact:
        kernels.exact_twins(sets, units[turn], section.threshold, found)
    else:
        how = (*bands(section.threshold), least_agreement(section.threshold))
        kernels.twins(sets, sketches[turn], units[turn], section.threshold, how, found)
    near = np.flatnonzero(twin >= 0)
    return pa.table(
        {
            "row": rows[turn][near],
            "twin": rows[turn][twin[near]],
            "score": score[near],
            "threshold": np.full(len(near), section.threshold),
        }
    )


def joined(signatures: Sequence[pa.Table]) -> tuple[npt.NDArray[np.uint64], Rows]:
    """Return (shingles of all rows one after the other, their number for each row). They are copies, because the
    shingles are sorted in place.
    """
    counts = [numbers(pc.list_value_length(table["shingles"])) for table in signatures]
    sizes = np.concatenate(counts).astype(np.int64)
    lists, at = np.empty(sizes.sum(), np.uint64), 0
    for table in signatures:
        for chunk in table["shingles"].chunks:
            values = numbers(chunk.flatten())
            lists[at : at + len(values)] = values
            at += len(values)
    return lists, sizes


def _sketches(signatures: Sequence[pa.Table]) -> npt.NDArray[np.uint32]:
    """The sketches of all rows as a matrix."""
    sketches, row = np.empty((sum(map(len, signatures)), SLOTS), np.uint32), 0
    for table in signatures:
        for chunk in table["sketch"].chunks:
            stored = np.frombuffer(chunk.buffers()[1], np.uint32).reshape(-1, SLOTS)
            sketches[row : row + len(chunk)] = stored[chunk.offset : chunk.offset + len(chunk)]
            row += len(chunk)
    return sketches
