"""The sweep for near duplicates: rows whose sets of word sequences are almost the same.

`signature` reads the text of each row once and stores its shingles, their sketch, and a key for each band of the
sketch. `decide` compares each row with earlier kept rows that have a band in common with it. Whether a row is dropped
is decided by the exact Jaccard similarity of the shingles. See `search` for how the memory stays small.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unicodedata import unidata_version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows
from synthgen.curation.near.shingles import KINDS, LOWER
from synthgen.curation.near.sketch import SEED, SLOTS, bands
from synthgen.curation.order import Order
from synthgen.errors import CorpusError
from synthgen.executor import Executor, Services
from synthgen.executor.exchange import read_table
from synthgen.tables.curation import NearDuplicates

_PARTS = {"row": ("prompt.said", "completion.said"), "prompt": ("prompt.said",), "completion": ("completion.said",)}


def _made_with(section: NearDuplicates) -> dict[bytes, bytes]:
    """What the signatures depend on. It is stored with them, so that others are never compared with them."""
    shingles = f"words of {section.words}, version 2, Unicode {unidata_version}"
    count, size = bands(section.threshold)
    sketch = f"fss {SLOTS}, seed {SEED}, {count} bands of {size}"
    return {b"shingles": shingles.encode(), b"sketch": sketch.encode()}


def signature(batch: pa.RecordBatch, section: NearDuplicates, services: Services) -> pa.Table:
    """Return for each row: its shingles (`shingles`, a list of uint64), their number (`size`), the lowest 8 bits of
    each slot of their sketch (`slots`), and the key of each band (`band-00`, …).
    """
    from synthgen.curation.near import kernels

    parts = [batch[name] for name in _PARTS[section.of]]
    texts = pc.binary_join_element_wise(*parts, "\n").cast(pa.large_string())
    _, ends, data = texts.buffers()
    offsets = np.frombuffer(ends, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lists = np.empty((offsets[-1] - offsets[0]) // 2 + len(texts), np.uint64)
    sizes, sketches = np.empty(len(texts), np.int64), np.zeros((len(texts), SLOTS), np.uint32)
    characters = np.frombuffer(data or b"", np.uint8)
    total = kernels.shingle_lists(characters, offsets, section.words, (KINDS, LOWER), lists, sizes)
    kernels.sketches(lists, sizes, sketches)
    keys = np.empty((bands(section.threshold)[0], len(texts)), np.uint64)
    kernels.band_keys(sketches, keys)
    bounds = pa.array(np.concatenate([[0], np.cumsum(sizes)]))
    slots = pa.py_buffer(sketches.astype(np.uint8))
    columns = {
        "row": batch["row"],
        "size": pa.array(sizes),
        **{f"band-{number:02d}": pa.array(key) for number, key in enumerate(keys)},
        "slots": pa.Array.from_buffers(pa.binary(SLOTS), len(texts), [None, slots]),
        "shingles": pa.LargeListArray.from_arrays(bounds, pa.array(lists[:total])),
    }
    return pa.table(columns).replace_schema_metadata(_made_with(section))


def decide(paths: Sequence[Path], lost: Rows, order: Order, section: NearDuplicates, executor: Executor) -> pa.Table:
    """Return the rows to reject (`row`), each with the kept row that it resembles (`twin`), their Jaccard similarity
    (`score`) and the `threshold`.
    """
    from synthgen.curation.near import search

    if any(read_table(path).schema.metadata != _made_with(section) for path in paths):
        raise CorpusError("the signatures were made by another version of synthgen", "repeat the command with --fresh")
    return search.near_rows(paths, lost, order, section, executor)
