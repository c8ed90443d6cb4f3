"""What one kind of student is asked to do: train on this corpus, by this recipe, into this folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe, TrainSection, local_teacher
from synthgen.ui import UI


@dataclass(frozen=True)
class Job:
    """One training. `section` is the recipe's `train`, `source` the curated corpus, `labels` its labels in the order of
    its label probabilities (none where it has no labels). `open_teacher` is a teacher that the caller has open."""

    recipe: Recipe
    section: TrainSection
    source: Path
    folder: Path
    ui: UI
    labels: tuple[str, ...] = ()
    open_teacher: LanguageModel | None = None

    @cached_property
    def teacher(self) -> LanguageModel:
        """The recipe's teacher as a language model: its tokens now, its weights when they are first wanted.

        Pass on the part that is needed: `teacher.tokens`, `teacher.weights`, or the whole where it is to be asked.
        Raises TeacherError, and RecipeError for a teacher that is not in this process.
        """
        return self.open_teacher or LanguageModel.open(local_teacher(self.recipe), lazy=True)
