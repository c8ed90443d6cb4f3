"""The sources of a student that are not sources of its rows: models whose weights the student starts with, a live
teacher that the student learns from, the student's chat template, and, for a student that learns across tokenizers, the
sources of the run with the other teacher.
"""

from __future__ import annotations

from pathlib import Path

from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.manifest import Manifest, SourceTerms
from synthgen.recipe import Recipe, TrainSection
from synthgen.sources import distinct
from synthgen.tables.students import KINDS

BASE = "student_base"
"""The role of a model whose weights initialize a student."""


def student_sources(recipe: Recipe) -> list[SourceTerms]:
    """The sources of a recipe's student that are not sources of its rows. Empty when no student is trained.

    If the recipe states no license for a checkpoint, or if a run cannot be read, the license is "unknown".
    """
    if recipe.train is None:
        return []
    student, teacher = recipe.train.student, recipe.teacher
    found: list[SourceTerms] = []
    if teacher and KINDS[student.kind].copies_teacher(student):
        found.append(_base(teacher.model, teacher.license))
    if (model := getattr(student, "model", None)) is not None:
        same = teacher.license if teacher and model == teacher.model else "unknown"
        found.append(_base(model, getattr(student, "license", None) or same))
    if teacher and asks_live_teacher(recipe.train):
        found.append({"role": "logits", "source": teacher.model, "license": teacher.license})
    if teacher and recipe.train.online and recipe.train.online.mode == "mutual":
        found.append(_base(teacher.model, teacher.license))  # the trained teacher is saved in the student's folder
    if (template := getattr(student, "chat_template_path", None)) is not None:
        found.append({"role": "template", "source": template, "license": _license_of(template, recipe)})
    if recipe.train.across and recipe.train.across.run:
        found += _of_run(Path(recipe.train.across.run))
    return distinct(found)


def begins_with(recipe: Recipe) -> tuple[str, ...] | None:
    """The models with whose weights the recipe's student begins. () means random weights, and None means that the
    recipe has no student.
    """
    if recipe.train is None:
        return None
    student, teacher = recipe.train.student, recipe.teacher
    copied = [teacher.model] if teacher and KINDS[student.kind].copies_teacher(student) else []
    model = getattr(student, "model", None)
    return tuple(dict.fromkeys([*copied, *([model] if model is not None else [])]))


def asks_live_teacher(section: TrainSection) -> bool:
    """Whether a student with these settings learns from the live teacher in addition to the rows of its corpus."""
    return any((section.online, section.hidden, section.relations))


def sources_of(recipe: Recipe, manifest: Manifest) -> list[SourceTerms]:
    """All sources of a recipe's student: the sources in the manifest of its corpus, and `student_sources`."""
    return distinct([*manifest["sources"], *student_sources(recipe)])


def _license_of(template: str, recipe: Recipe) -> str:
    """The license of a chat template. A template that is named after a model has the model's license, and a file or
    folder of the user has the recipe's license.
    """
    student = recipe.train.student if recipe.train else None
    models = [(one.model, one.license) for one in (recipe.teacher, *recipe.teachers.values()) if one]
    models.append((getattr(student, "model", None) or "", getattr(student, "license", None) or "unknown"))
    known = dict(reversed(models))
    own = recipe.license if template.startswith("/") else None
    return known.get(template) or own or "unknown"


def _base(model: str, license: str) -> SourceTerms:
    return {"role": BASE, "source": model, "license": license}


def _of_run(run: Path) -> list[SourceTerms]:
    try:
        return corpus.manifest(corpus.resolve(run, prefer=("generated", "curated")))["sources"]
    except CorpusError:
        return [{"role": "logits", "source": str(run), "license": "unknown"}]
