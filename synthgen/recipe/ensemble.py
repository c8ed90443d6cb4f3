"""Section `train.ensemble`: merge the distributions of several teachers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.section import Name, Rule, Section


class Ensemble(Section):
    """The distributions of several teachers on the same tokens (`logits.score_by`), merged into one."""

    teachers: dict[Name, Annotated[float, Field(gt=0)]] | tuple[Name, ...] = ()
    """Names of teachers, or a mapping of name → weight. When left out, the distributions of all teachers are merged."""
    merge: Literal["mean", "pool"] = "mean"
    """Formula of the merged distribution. mean: Σ w p. pool: Π p^w, normalized; this is the same as averaging the
    logits."""
    by: Literal["uniform", "validation", "agreement"] | None = None
    """Source of the weights, if `teachers` gives none. uniform (the default): all are equal. validation: the weights
    that maximize the likelihood of the validation rows. agreement: for each row, how much a teacher agrees with the
    others.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the teachers."""
        return tuple(self.teachers)

    @property
    def weights(self) -> tuple[float, ...] | None:
        """The weights in the recipe; None when the recipe states no weights."""
        return tuple(self.teachers.values()) if isinstance(self.teachers, dict) else None

    def rules(self) -> Iterator[Rule]:
        if self.weights is not None and self.by is not None:
            yield "by", f"the teachers have weights; leave out by: {self.by}, or list the teachers without weights"
        if len(set(self.names)) < len(self.names):
            yield "teachers", "a teacher is named twice"
