"""The sweep for near duplicates: rows whose sets of word sequences are almost the same.

`signature` reads the text of each row once and stores its shingles and their sketch. `decide` goes through all rows in
order and compares each with kept rows only. The sketches select the rows that are compared. Whether a row is dropped is
decided by the exact Jaccard similarity of the shingles.
"""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import unidata_version

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, numbers
from synthgen.curation.near.shingles import KINDS
from synthgen.curation.near.sketch import SEED, SLOTS, bands, least_agreement
from synthgen.curation.order import Order
from synthgen.curation.plain import plain
from synthgen.errors import CorpusError
from synthgen.executor import Services
from synthgen.tables.curation import NearDuplicates

_PARTS = {"row": ("prompt.said", "completion.said"), "prompt": ("prompt.said",), "completion": ("completion.said",)}


def _made_with(section: NearDuplicates) -> dict[bytes, bytes]:
    """What the signatures depend on. It is stored with them, so that others are never compared with them."""
    shingles = f"words of {section.words}, version 1, Unicode {unidata_version}"
    return {b"shingles": shingles.encode(), b"sketch": b"fss %d, seed %d" % (SLOTS, SEED)}


def signature(batch: pa.RecordBatch, section: NearDuplicates, services: Services) -> pa.Table:
    """Return the shingles (`shingles`, a list of uint64) and the sketch (`sketch`, 4 × `SLOTS` bytes) of each row."""
    from synthgen.curation.near import kernels

    parts = [batch[name] for name in _PARTS[section.of]]
    texts = plain(pc.binary_join_element_wise(*parts, "\n")).cast(pa.large_string())
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lists = np.empty(offsets[-1] - offsets[0], np.uint64)  # a text has at most as many shingles as bytes
    sizes, sketches = np.empty(len(texts), np.int64), np.zeros((len(texts), SLOTS), np.uint32)
    characters = np.frombuffer(data or b"", np.uint8)
    total = kernels.shingle_lists(characters, offsets, section.words, KINDS, lists, sizes)
    kernels.sketches(lists, sizes, sketches)
    bounds = pa.array(np.concatenate([[0], np.cumsum(sizes)]))
    columns = {
        "row": batch["row"],
        "shingles": pa.LargeListArray.from_arrays(bounds, pa.array(lists[:total])),
        "sketch": pa.Array.from_buffers(pa.binary(4 * SLOTS), len(texts), [None, pa.py_buffer(sketches)]),
    }
    return pa.table(columns).replace_schema_metadata(_made_with(section))


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
    lists, sizes, sketches = _joined(signatures)
    starts = np.cumsum(sizes) - sizes
    sizes[np.isin(rows, lost)] = 0
    units = order.units_of(rows)
    turn = np.lexsort((rows, units))
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


def _sizes(signatures: Sequence[pa.Table]) -> Rows:
    """The number of stored shingles of each row."""
    counts = [numbers(pc.list_value_length(table["shingles"])) for table in signatures]
    return np.concatenate(counts).astype(np.int64)


def _joined(signatures: Sequence[pa.Table]) -> tuple[npt.NDArray[np.uint64], Rows, npt.NDArray[np.uint32]]:
    """Return (shingles of all rows one after the other, their number for each row, the sketches as a matrix). They are
    copies, because the shingles are sorted in place.
    """
    sizes = _sizes(signatures)
    lists, sketches = np.empty(sizes.sum(), np.uint64), np.empty((len(sizes), SLOTS), np.uint32)
    at = row = 0
    for table in signatures:
        for batch in table.to_batches():
            values = numbers(batch["shingles"].flatten())
            lists[at : at + len(values)] = values
            stored = np.frombuffer(batch["sketch"].buffers()[1], np.uint32).reshape(-1, SLOTS)
            start = batch["sketch"].offset
            sketches[row : row + len(batch)] = stored[start : start + len(batch)]
            at, row = at + len(values), row + len(batch)
    return lists, sizes, sketches
