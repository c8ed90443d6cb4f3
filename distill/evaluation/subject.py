"""What is evaluated: a trained student, its recipe, and the held-out rows of its corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.held_out import HeldOut, first_rows
from synthgen.recipe import Recipe
from synthgen.results.training import Training
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.teachers.transformers import LocalModel


@dataclass(frozen=True)
class Subject:
    """What an `evaluate` function of a kind of student gets.

    `folder` holds the student and `source` its curated corpus. `teacher` is the recipe's local teacher where it is open
    already.
    """

    recipe: Recipe
    training: Training
    source: Path
    folder: Path
    teacher: LocalModel | None
    ui: UI

    def held_out(self, most: int | None = None) -> list[HeldOut]:
        """The first `most` rows of the test split, or all of them, ordered by shard and id."""
        return first_rows(self.source, "test", most)
