"""The sources of a student that are not sources of its rows: models whose weights it starts with, and what the other
run of a cross-tokenizer student was made from.
"""

from __future__ import annotations

from pathlib import Path

from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.manifest import Manifest, SourceTerms
from synthgen.recipe import Recipe
from synthgen.tables.students import KINDS

BASE = "student_base"
"""The role of a model whose weights initialize a student."""


def student_sources(recipe: Recipe) -> list[SourceTerms]:
    """The sources that the student of a recipe has besides those of its rows. Empty when no student is trained.

    A checkpoint whose license the recipe does not state has the license "unknown", and so has a run that cannot be
    read.
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
    if recipe.train.across and recipe.train.across.run:
        found += _of_run(Path(recipe.train.across.run))
    return found


def sources_of(recipe: Recipe, manifest: Manifest) -> list[SourceTerms]:
    """All sources of a recipe's student: those of its corpus, which has this manifest, and `student_sources`."""
    distinct = {(s["role"], s["source"], s["license"]): s for s in [*manifest["sources"], *student_sources(recipe)]}
    return list(distinct.values())


def _base(model: str, license: str) -> SourceTerms:
    return {"role": BASE, "source": model, "license": license}


def _of_run(run: Path) -> list[SourceTerms]:
    try:
        return corpus.manifest(corpus.resolve(run, prefer=("generated", "curated")))["sources"]
    except CorpusError:
        return [{"role": "logits", "source": str(run), "license": "unknown"}]
