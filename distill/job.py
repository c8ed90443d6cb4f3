"""The arguments of a training: the recipe, the corpus, and the student's folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.recipe import Recipe, TrainSection, local_teacher
from synthgen.ui import UI


@dataclass(frozen=True)
class Job:
    """One training.

    `section` is the recipe's `train`, `source` the curated corpus, and `folder` the student's folder. `labels` are the
    corpus's labels in the order of its label probabilities, or empty when the corpus has no labels. `open_teacher` is
    the teacher, if the caller has already opened it.
    """

    recipe: Recipe
    section: TrainSection
    source: Path
    folder: Path
    ui: UI
    labels: tuple[str, ...] = ()
    open_teacher: LanguageModel | None = None

    @cached_property
    def teacher(self) -> LanguageModel:
        """The recipe's teacher as a language model. Its weights are loaded when they are first needed.

        Give a function only the part of the teacher that it needs: `teacher.tokens`, `teacher.weights`, or the whole
        teacher to generate text. Raises the TeacherError of `LanguageModel.open`, and RecipeError when the teacher is
        not local.
        """
        return self.open_teacher or LanguageModel.open(local_teacher(self.recipe), lazy=True)

    @cached_property
    def tokens(self) -> Tokens:
        """The student's tokenizer, chat template and end tokens."""
        return self.teacher.tokens
