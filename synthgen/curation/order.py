"""Which of several equal rows stays in a sweep. This depends on the order of rows and on the rows that must stay or go
together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synthgen.curation.lists import Rows, numbers


@dataclass(frozen=True)
class Order:
    """The order of rows by number, and the units: rows of one unit stay or go together.

    The number of a unit is that of its first row. `rows` (ascending) are the rows of groups, and `units` gives the unit
    of each. Any other row is a unit of its own.
    """

    rows: Rows
    units: Rows

    def units_of(self, rows: Rows) -> Rows:
        """The unit of each row."""
        if not len(self.rows):
            return rows
        place = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return np.where(self.rows[place] == rows, self.units[place], rows)


def keep_first(pairs: pa.Table, order: Order) -> pa.Table:
    """Decide which of equal rows stay: the first one does. In `pairs`, `twin` is the first row that equals `row`.

    Units are decided in order. A unit stays if none of its rows equals a row of a unit that stays. So no row is dropped
    for the sake of a row that is itself dropped. Equal rows within one unit both stay. Returns the columns `row`
    (dropped) and `twin` (an equal row that stays).
    """
    if not len(order.rows):
        return pairs.select(["row", "twin"])
    later, first = (numbers(pairs[name].combine_chunks()).astype(np.int64) for name in ("row", "twin"))
    rows, place = np.unique(np.concatenate([later, first]), return_index=True)
    kinds = np.concatenate([first, first])[place]  # equal rows have the same first row
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
