"""Chooses the rows to leave out when the licenses of a corpus contradict each other: as few rows as possible.

A conflict is a set of obligations that cannot be met together. The conflict ends when all rows with one of these
obligations are left out. So a choice names, for every conflict, at least one obligation whose rows are left out.
`choose` tries all choices, and finds the choice that leaves out the fewest rows. The search skips a choice that already
leaves out as many rows as the best choice so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from synthgen.auditing.algebra import Duties

Weight = tuple[int, int]
"""A number of kept rows, and a number of rejected rows. The numbers of kept rows are compared first."""
_MOST = 20_000  # maximum number of choices that are tried


@dataclass(frozen=True)
class Choice:
    """The obligations whose rows are left out. `proven` is true if no other choice leaves out fewer rows, and false if
    there are too many choices to try them all.
    """

    left_out: Duties
    proven: bool


def choose(conflicts: Sequence[Duties], rows: Mapping[Duties, Weight], fixed: Duties) -> Choice | None:
    """The choice that leaves out the fewest rows. None when no choice of rows ends all conflicts.

    `rows` has the number of rows with each set of obligations; obligations that are in no conflict are not needed.
    `fixed` obligations come from the student's own sources, such as a checkpoint, so they cannot be left out. If two
    choices leave out equally many rows, the first in alphabetical order is taken.
    """
    search = _Search(conflicts, rows)
    search.extend(frozenset(), fixed)
    return None if search.best is None else Choice(search.best, search.tried <= _MOST)


class _Search:
    """A depth-first search with a bound: a choice that already leaves out as many rows as the best choice is not
    extended.
    """

    def __init__(self, conflicts: Sequence[Duties], rows: Mapping[Duties, Weight]) -> None:
        self.best: Duties | None = None
        self.tried = 0
        self._least: Weight | None = None
        self._conflicts = sorted(conflicts, key=lambda one: (len(one), sorted(one)))
        self._rows = rows

    def extend(self, chosen: Duties, stay: Duties) -> None:
        """Try all choices that have every obligation of `chosen` and no obligation of `stay`."""
        self.tried += 1
        cost = total(count for duties, count in self._rows.items() if duties & chosen)
        if self._least is not None and (cost >= self._least or self.tried > _MOST):
            return
        left = next((one for one in self._conflicts if not one & chosen), None)
        if left is None:
            self.best, self._least = chosen, cost
            return
        for one in sorted(left - stay):
            self.extend(chosen | {one}, stay)
            stay |= {one}


def total(weights: Iterable[Weight]) -> Weight:
    """The sum of several numbers of rows."""
    kept = rejected = 0
    for one, other in weights:
        kept, rejected = kept + one, rejected + other
    return kept, rejected
