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
    """The student in `folder` as it was before its first training step. `recipe` has the section `train` of its
    training, and `source` is the corpus that it learned.

    Raises UserError when students of this kind cannot be built again, and the errors of building a student.
    """
    section = recipe.train
    untrained = KINDS[section.student.kind].untrained if section else None
    if section is None or untrained is None:
        raise UserError("students of this kind are not built again", "name a model in audit.privacy.untrained")
    built: LanguageModel = resolve(untrained)(Job(recipe, section, source, folder, UI(quiet=True)))
    return built
