"""The sweep for rows of the split `train` that are nearly the same as a row that is held out for an evaluation.

Every such pair is found: rows are compared by the exact search of `kernels`, and not by sketches. Rows of `train` are
not compared with each other, and neither are rows that are held out. A row that is held out is never rejected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from synthgen.curation.held_out import is_held_out
from synthgen.curation.lists import Rows, numbers
from synthgen.curation.near import joined, listed, made_with, shingled
from synthgen.curation.order import Order
from synthgen.errors import CorpusError
from synthgen.executor import Services
from synthgen.tables.curation import SplitTwins


def signature(batch: pa.RecordBatch, section: SplitTwins, services: Services) -> pa.Table:
    """Return the shingles (`shingles`, a list of uint64) of each row, and whether the row is held out (`held_out`)."""
    shingles = listed(*shingled(batch, section.of, section.words))
    columns = {"row": batch["row"], "held_out": is_held_out(batch["split"]), "shingles": shingles}
    return pa.table(columns).replace_schema_metadata(made_with(section.words))


def decide(
    signatures: Sequence[pa.Table], lost: Rows, order: Order, section: SplitTwins, services: Services
) -> pa.Table:
    """Return the rows of `train` to reject (`row`), each with the row that it resembles (`twin`), their Jaccard
    similarity (`score`) and the `threshold`.
    """
    from synthgen.curation.near import kernels

    if any(table.schema.metadata != made_with(section.words) for table in signatures):
        raise CorpusError("the signatures were made by another version of synthgen", "repeat the command with --fresh")
    rows = np.concatenate([numbers(table["row"]) for table in signatures]).astype(np.int64)
    in_train = ~np.concatenate([numbers(table["held_out"]) for table in signatures]).astype(bool)
    lists, sizes = joined(signatures)
    starts = np.cumsum(sizes) - sizes
    sizes[np.isin(rows, lost)] = 0
    turn = np.lexsort((rows, in_train))
    twin, score = np.full(len(rows), -1), np.full(len(rows), -1.0)
    # All rows that are held out are one unit, and all rows of `train` another. Rows of a unit are not compared.
    units = in_train[turn].astype(np.int64)
    kernels.exact_twins((lists, starts[turn], sizes[turn]), units, section.threshold, (twin, score))
    near = np.flatnonzero(twin >= 0)
    return pa.table(
        {
            "row": rows[turn][near],
            "twin": rows[turn][twin[near]],
            "score": score[near],
            "threshold": np.full(len(near), section.threshold),
        }
    )
