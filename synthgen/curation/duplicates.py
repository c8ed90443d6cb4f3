"""The sweep for exact duplicates: rows with the same prompt and completion. Tool calls and reasoning are compared too.
Any run of white space counts as one space, and characters without width are ignored.

If several rows are equal, the first of them in the corpus is kept.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.order import Order, keep_first
from synthgen.curation.plain import plain
from synthgen.executor import Services
from synthgen.tables.curation_settings import Duplicates
from synthgen.tables.section import Section

_BYTES = 16  # size of a row's hash; the probability of any collision among a billion rows is about 1 in 10**21


def signature(batch: pa.RecordBatch, section: Duplicates, services: Services) -> pa.Table:
    """Return a table with a hash of prompt and completion (`key`) for each row (`row`)."""
    texts = pc.binary_join_element_wise(batch["prompt.whole"], batch["completion.whole"], "\3")
    texts = plain(texts) if section.ignore_case else texts
    keys = b"".join(hashlib.blake2b(text, digest_size=_BYTES).digest() for text in texts.cast("binary").to_pylist())
    kind = pa.binary(_BYTES)
    return pa.table({"key": pa.Array.from_buffers(kind, len(batch), [None, pa.py_buffer(keys)]), "row": batch["row"]})


def candidates(signatures: pa.Table, section: Section, services: Services) -> pa.Table:
    """Pair each row with the first row that has the same hash. The texts of a pair are not compared."""
    keys, rows = _halves(signatures["key"].combine_chunks()), numbers(signatures["row"].combine_chunks())
    order = np.lexsort((rows, keys[:, 1], keys[:, 0]))
    keys, rows = keys[order], rows[order]
    same = np.zeros(len(rows), bool)
    same[1:] = (keys[1:] == keys[:-1]).all(axis=1)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))
    return pa.table({"row": pa.array(rows[same]), "twin": pa.array(rows[first[same]])})


def _halves(keys: pa.Array) -> npt.NDArray[np.uint64]:
    data = np.frombuffer(keys.buffers()[1], np.uint64, offset=0)
    return data.reshape(-1, 2)[keys.offset : keys.offset + len(keys)]


def resolve(pairs: pa.Table, order: Order, section: Section, services: Services) -> pa.Table:
    """Reject each row if an earlier row with the same hash is kept."""
    return keep_first(pairs, order)
