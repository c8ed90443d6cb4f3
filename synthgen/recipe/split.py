"""Section `split`: which seeds are held out."""

from __future__ import annotations

from collections.abc import Iterator

from synthgen.tables.section import Rule, Section, Share


class Split(Section):
    """Shares of the seed groups that are held out. A group is never on two sides; the rest is the training split."""

    validation: Share = 0.0
    """Share of the groups in the validation split: the loss on them is measured while a student is trained."""
    test: Share = 0.2
    """Share of the groups in the test split: students are evaluated on them."""
    seed: int = 0
    """Seed of the choice. It is a function of group and seed, so later seeds do not move earlier ones."""

    def rules(self) -> Iterator[Rule]:
        if self.validation + self.test > 1:
            yield "test", f"validation {self.validation} and test {self.test} are more than the whole"
