"""Section `split`: which seeds are held out."""

from __future__ import annotations

from collections.abc import Iterator

from synthgen.tables.section import Rule, Section, Share


class Split(Section):
    """Shares of the seed groups that are held out. All other groups are in the training split. A group is never in two
    splits.
    """

    validation: Share = 0.0
    """Share of the groups in the validation split, on which the loss is measured during training."""
    test: Share = 0.2
    """Share of the groups in the test split, on which students are evaluated."""
    seed: int = 0
    """Random seed. The split of a group depends only on the group and this number, so seeds that are added later do not
    change the split of earlier seeds.
    """

    def rules(self) -> Iterator[Rule]:
        if self.validation + self.test > 1:
            yield "test", f"validation {self.validation} and test {self.test} are together more than 1"
