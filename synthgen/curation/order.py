"""Decides which of several equal rows a sweep keeps. The decision depends on the order of the rows, and on which rows
must be kept or rejected together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synthgen.curation.lists import Rows, numbers


@dataclass(frozen=True)
class Order:
    """The order of the rows in a corpus, and their division into units. Rows are ordered by their numbers. The rows of
    a unit are kept or rejected together.

    A group is a unit, and each row without a group is a unit of its own. The number of a unit is the number of its
    first row. `rows` (ascending) are the numbers of the rows that have a group, and `units` has the number of the unit
    of each of these rows.
    """

    rows: Rows
    units: Rows

    def units_of(self, rows: Rows) -> Rows:
        """The number of the unit of each of `rows`."""
        if not len(self.rows):
            return rows
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[place] == rows, self.units[place], rows)


def keep_first(pairs: pa.Table, order: Order) -> pa.Table:
    """Keep the first of several equal rows. In `pairs`, `twin` is the first row that equals `row`.

    Units are decided one after the other, in their order. A unit is kept unless one of its rows equals a row of an
    earlier unit that was kept. Therefore no row is rejected because of a row that is itself rejected. Two equal rows of
    the same unit do not reject each other. Returns a table with the columns `row` (a rejected row) and `twin` (an equal
    row that is kept).
    """
    if not len(order.rows):
        return pairs.select(["row", "twin"])
    later, first = (numbers(pairs[name].combine_chunks()).astype(np.int64) for name in ("row", "twin"))
    rows, place = np.unique(np.concatenate([later, first]), return_index=True)
    kinds = np.concatenate([first, first])[place]  # for each of `rows`: the number of the first row that equals it
    units = order.units_of(rows)
    members: dict[int, list[tuple[int, int]]] = {}
    for unit, row, kind in sorted(zip(units.tolist(), rows.tolist(), kinds.tolist(), strict=True)):
        members.setdefault(unit, []).append((row, kind))
    staying: dict[int, int] = {}
    dropped: list[tuple[int, int]] = []
    for unit in members.values():
        copies = [(row, staying[kind]) for row, kind in unit if kind in staying]
        dropped += copies
        if not copies:
            for row, kind in unit:
                staying.setdefault(kind, row)
    return pa.table(
        {
            "row": pa.array([row for row, _ in dropped], pa.int64()),
            "twin": pa.array([t for _, t in dropped], pa.int64()),
        }
    )
