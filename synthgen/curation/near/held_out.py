"""The sweep for rows of the split `train` that are nearly the same as a row that is held out for an evaluation.

Every such pair is found: rows are compared by the exact search of `kernels`, and not by sketches. Rows of `train` are
not compared with each other, and neither are rows that are held out. A row that is held out is never rejected.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.held_out import is_held_out
from synthgen.curation.lists import Rows, numbers
from synthgen.curation.near import check_made_with, listed, made_with, shingled
from synthgen.curation.near.limits import check_count
from synthgen.curation.order import Order
from synthgen.executor import Executor, Services
from synthgen.executor.exchange import read_table
from synthgen.tables.curation_settings import SplitTwins


def signature(batch: pa.RecordBatch, section: SplitTwins, services: Services) -> pa.Table:
    """Return the shingles (`shingles`, a list of uint64) of each row, and whether the row is held out (`held_out`)."""
    shingles = listed(*shingled(batch, section.of, section.words))
    columns = {"row": batch["row"], "held_out": is_held_out(batch["split"]), "shingles": shingles}
    return pa.table(columns).replace_schema_metadata(made_with(section.words))


def decide(paths: Sequence[Path], lost: Rows, order: Order, section: SplitTwins, executor: Executor) -> pa.Table:
    """Return the rows of `train` to reject (`row`), each with the row that it resembles (`twin`), their Jaccard
    similarity (`score`) and the `threshold`.
    """
    from synthgen.curation.near import kernels

    check_made_with(paths, made_with(section.words))
    signatures = [read_table(path) for path in paths]
    check_count(sum(table.num_rows for table in signatures))
    rows = np.concatenate([numbers(table["row"]) for table in signatures]).astype(np.int64)
    in_train = ~np.concatenate([numbers(table["held_out"]) for table in signatures]).astype(bool)
    lists, sizes = _joined(signatures)
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


def _joined(signatures: Sequence[pa.Table]) -> tuple[npt.NDArray[np.uint64], Rows]:
    """Return (shingles of all rows one after the other, their number for each row). Both arrays are copies, because the
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
