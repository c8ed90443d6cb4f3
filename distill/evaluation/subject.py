"""The arguments of an evaluation: a trained student, its recipe, and the held-out rows of its corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.held_out import HeldOut, first_rows
from distill.job import Job
from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe
from synthgen.results.training import Training
from synthgen.ui import UI


@dataclass(frozen=True)
class Subject:
    """The argument of the `evaluate` function of a kind of student.

    `folder` holds the student, and `source` is the curated corpus that it was trained on. `teacher` is the recipe's
    local teacher, if the caller has already opened it.
    """

    recipe: Recipe
    training: Training
    source: Path
    folder: Path
    teacher: LanguageModel | None
    ui: UI

    def job(self, labels: Sequence[str] = ()) -> Job:
        """The training job of the student. An evaluation uses the job to build the untrained student."""
        train = self.recipe.train
        assert train is not None
        return Job(
            self.recipe, train, self.source, self.folder, self.ui, labels=tuple(labels), open_teacher=self.teacher
        )

    def held_out(self, most: int | None = None) -> list[HeldOut]:
        """The first `most` rows of the test split, ordered by shard and id. None means all rows."""
        return first_rows(self.source, "test", most)
