"""Opens the untrained student of a finished training, for audits that compare the student with it."""

from __future__ import annotations

from pathlib import Path

from distill.job import Job
from synthgen.errors import UserError
from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe
from synthgen.tables.reference import resolve
from synthgen.tables.students import KINDS
from synthgen.ui import UI


def open_untrained(recipe: Recipe, source: Path, folder: Path) -> LanguageModel:
    """The student in `folder` as it was before its first training step. The section `train` of `recipe` must be that of
    the student's training. `source` is the corpus from which the student learned.

    Raises UserError when students of this kind cannot be built again. Errors of building a student are not caught.
    """
    section = recipe.train
    untrained = KINDS[section.student.kind].untrained if section else None
    if section is None or untrained is None:
        raise UserError("students of this kind are not built again", "name a model in audit.privacy.untrained")
    built: LanguageModel = resolve(untrained)(Job(recipe, section, source, folder, UI(quiet=True)))
    return built
