"""Section `train.canaries`: made-up secrets that the student learns beside its rows."""

from __future__ import annotations

from collections.abc import Iterator

from synthgen.tables.section import Count, Rule, Section


class Canaries(Section):
    """Made-up secrets that the student learns beside its rows, so that `synthgen audit` can measure how much the
    student remembers. The secrets are never rows of the corpus. Use a student that learned canaries only for this
    measurement, and do not release it.
    """

    count: Count = 32
    """Number of secrets."""
    repeats: tuple[Count, ...] = (1, 4, 16)
    """How often the student sees a secret in each epoch. If the list has three numbers, each number is used for a third
    of the secrets.
    """
    seed: int = 0
    """Random seed that draws the names and the secrets."""

    def rules(self) -> Iterator[Rule]:
        if not 0 < len(self.repeats) <= self.count:
            yield "repeats", f"give between 1 and {self.count} numbers of repeats, because 'count' is {self.count}"
