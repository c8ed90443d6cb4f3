"""The arguments of a training: the recipe, the corpus, and the student's folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from distill.tokenizer import learns_text, same_vocabulary, tokens_of, written_with
from synthgen.lm.load import pick_device
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.recipe import Recipe, TrainSection, has_local_teacher, local_teacher
from synthgen.tables.engines import TeacherSection
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
        """The recipe's teacher as a language model. The teacher's weights are loaded when they are first needed.

        Give a function only the part of the teacher that it needs: `teacher.tokens`, `teacher.weights`, or the whole
        teacher to generate text. A student that learns text needs no part of the teacher; see `tokens`. Raises the
        TeacherError of `LanguageModel.open`, and RecipeError when the recipe has no local teacher.
        """
        return self.open_teacher or LanguageModel.open(local_teacher(self.recipe), lazy=True)

    def unload_teacher(self) -> None:
        """Release the teacher's weights if the teacher was opened. The weights are loaded again when they are next
        needed.
        """
        opened = self.open_teacher or self.__dict__.get("teacher")
        if opened is not None:
            opened.weights.unload()

    @cached_property
    def tokens(self) -> Tokens:
        """The student's own tokenizer, chat template and end tokens. Raises RecipeError and TeacherError."""
        return tokens_of(self.recipe, self.section, lambda: self.teacher.tokens)

    @cached_property
    def own_teachers(self) -> frozenset[str]:
        """The names of the corpus's teachers that have the student's token ids, because their tokenizer and chat
        template are those of the student. For a student that learns from distributions, the same vocabulary is enough.
        """
        names = written_with(self.source, self.tokens)
        if learns_text(self.section) or self.section.across:
            return names
        return names | same_vocabulary(self.recipe, self.source, self.tokens)

    @cached_property
    def device(self) -> torch.device:
        """The device on which the student is trained: the device of the recipe's local teacher, otherwise the first
        GPU, or the CPU if the machine has no GPU.
        """
        return device_of(self.recipe)

    @cached_property
    def runs(self) -> TeacherSection:
        """A section with the device and the batch size for the student, taken from the recipe's local teacher or the
        defaults.
        """
        return _runs(self.recipe)


def device_of(recipe: Recipe) -> torch.device:
    """The device on which a student of this recipe is trained; see `Job.device`."""
    return pick_device(_runs(recipe).device)


def _runs(recipe: Recipe) -> TeacherSection:
    return local_teacher(recipe) if has_local_teacher(recipe) else TeacherSection(model="")
