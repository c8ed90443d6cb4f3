"""Section `train.canaries`: made-up secrets that the student learns beside its rows."""

from __future__ import annotations

from collections.abc import Iterator

from synthgen.tables.section import Count, Rule, Section


class Canaries(Section):
    """Made-up secrets that the student learns beside its rows, so that `synthgen audit` can measure how much the
    student remembers. They are never rows of the corpus. Train such a student for the measurement only, and do not
    release it.
    """

    count: Count = 32
    """Number of secrets."""
    repeats: tuple[Count, ...] = (1, 4, 16)
    """How often the student sees a secret in each epoch. The secrets take turns: with three numbers, each number is
    used for a third of the secrets.
    """
    seed: int = 0
    """Seed that draws the names and secrets."""

    def rules(self) -> Iterator[Rule]:
        if not 0 < len(self.repeats) <= self.count:
            yield "repeats", f"give between 1 and {self.count} numbers of repeats, because 'count' is {self.count}"
