"""Chooses units of one stratum, and says why the other units are rejected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.curation.lists import Rows
from synthgen.tables.curation_settings import Select

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Units:
    """The units of all rows that are left, in the order of the corpus. For each unit: the number of its rows of
    `train`, its key in the random order (`key`), its score (NaN if it has none), its value in the column of the strata,
    and the vector of its words (see `spread`).
    """

    size: Rows
    key: npt.NDArray[np.uint64]
    score: Floats
    stratum: Sequence[str | None]
    words: npt.NDArray[np.int8]


@dataclass(frozen=True)
class Choice:
    """The choice among `members`, the indexes of one stratum's units. For each member, `taken` says whether the member
    is kept, and `place` is the member's place in the order (from 1; 0 if there is no order). `score` is the member's
    score or distance (NaN if there is none), and `twin` is the kept unit that the member resembles most (or -1).
    `threshold` is the score or distance at which the last unit was taken (NaN if there is none).
    """

    members: Rows
    taken: Mask
    place: Rows
    score: Floats
    twin: Rows
    threshold: float

    def reasons(self, lost: Rows, section: Select, value: str | None) -> list[str]:
        """The reason for each rejected unit; `lost` holds the indexes of these units in `members`. `value` is the value
        of the stratum.
        """
        among = ""
        if section.column:
            among = f" without {section.column}" if value is None else f" with {section.column} '{value:.40}'"
            among = f" among rows{among}"
        kept, count = f"{int(self.taken.sum()):,} are kept", len(self.members)
        if section.by == "spread":
            return [f"distance {self.score[n]:.2f} to the nearest kept row{among}; {kept}" for n in lost.tolist()]
        by = f"by {section.score}" if section.by == "score" else "in a random order"
        found = []
        for n in lost.tolist():
            here = f"place {self.place[n]:,} of {count:,} {by}"
            if section.by == "score" and np.isnan(self.score[n]):
                here = f"it has no score {section.score}, so it comes last"
            found.append(f"{here}{among}; {kept}")
        return found


def by_order(units: Units, members: Rows, number: int, section: Select) -> Choice:
    """Take units by score, or in random order, as long as they fit into `number` rows."""
    score, key = units.score[members], units.key[members]
    best = np.where(np.isnan(score), np.inf, score if section.lowest else -score)
    order = np.lexsort((members, key, best))
    taken = np.zeros(len(members), bool)
    for n, size in zip(order.tolist(), units.size[members][order].tolist(), strict=True):
        if size <= number:
            taken[n] = True
            number -= size
    place = np.empty(len(members), np.int64)
    place[order] = np.arange(1, len(members) + 1)
    last = [n for n in order[taken[order]].tolist() if not np.isnan(score[n])][-1:]
    return Choice(members, taken, place, score, np.full(len(members), -1), score[last[0]] if last else np.nan)


def by_spread(units: Units, members: Rows, number: int, section: Select) -> Choice:
    """Repeatedly take the unit that is farthest from all taken units, as long as units fit into `number` rows."""
    from synthgen.curation.selection import spread

    taken, distance, nearest, radius = spread.farthest(
        units.words[members], units.size[members], units.key[members], number
    )
    twin = np.where(nearest >= 0, members[nearest], -1)
    return Choice(members, taken, np.zeros(len(members), np.int64), distance, twin, radius)
