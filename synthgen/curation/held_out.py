"""The sweep for rows of the split `train` that are copies of a held-out row: a row of `validation` or `test`.

The row of `train` is rejected, whatever the order of the rows. A row that is held out is never rejected here. Copies
within `train`, and copies among rows that are held out, are left to the sweep `duplicates`.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.order import Order
from synthgen.errors import CorpusError
from synthgen.executor import Services
from synthgen.tables.curation_settings import SplitCopies
from synthgen.tables.section import Section

HELD_OUT = ("validation", "test")
_BYTES = 16  # size of a text's hash; the probability of any collision among a billion texts is about 1 in 10**21
_PARTS = {
    "row": ("prompt.whole", "completion.whole"),
    "prompt": ("prompt.whole",),
    "completion": ("completion.whole",),
}


def is_held_out(splits: pa.Array) -> pa.Array:
    """Whether each row is held out, by its split. Every command that writes a corpus assigns the splits, and training
    does not change them. Raises CorpusError for a row without a split, because it could be held out.
    """
    if splits.null_count:
        raise CorpusError("a row of this corpus has no split", "make the corpus again; every command writes the splits")
    return pc.is_in(splits, pa.array(HELD_OUT, splits.type))


def signature(batch: pa.RecordBatch, section: SplitCopies, services: Services) -> pa.Table:
    """Return a table with a hash of the compared text (`key`) for each row (`row`), and whether the row is held out
    (`held_out`). A row without this text, such as plain text without a prompt, is left out.
    """
    texts = pc.binary_join_element_wise(*(batch[name] for name in _PARTS[section.of]), "\3")
    columns = pa.table({"text": texts, "row": batch["row"], "held_out": is_held_out(batch["split"])})
    columns = columns.filter(pc.not_equal(columns["text"], ""))
    hashed = [hashlib.blake2b(text.encode(), digest_size=_BYTES).digest() for text in columns["text"].to_pylist()]
    keys = pa.array(hashed, pa.binary(_BYTES))
    return pa.table({"key": keys, "row": columns["row"], "held_out": columns["held_out"]})


def candidates(signatures: pa.Table, section: Section, services: Services) -> pa.Table:
    """Pair each row of `train` with the first row that is held out and has the same hash."""
    held_out = numbers(signatures["held_out"]).astype(bool)
    rows, keys = numbers(signatures["row"]).astype(np.int64), signatures["key"].combine_chunks()
    apart = np.lexsort((rows, ~held_out))[: np.count_nonzero(held_out)]  # the rows that are held out, in corpus order
    first = dict(zip(reversed(keys.take(pa.array(apart)).to_pylist()), reversed(rows[apart].tolist()), strict=True))
    learned = np.flatnonzero(~held_out)
    twins = [first.get(key, -1) for key in keys.take(pa.array(learned)).to_pylist()] if first else [-1] * len(learned)
    pairs = pa.table({"row": pa.array(rows[learned], pa.int64()), "twin": pa.array(twins, pa.int64())})
    return pairs.filter(pc.greater_equal(pairs["twin"], 0))


def resolve(pairs: pa.Table, order: Order, section: Section, services: Services) -> pa.Table:
    """Reject every row of `train` that has a held-out copy."""
    return pairs.select(["row", "twin"])
