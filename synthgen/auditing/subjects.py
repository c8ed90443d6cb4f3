"""Finds out what an audit judges when it gets a path: a corpus, a student with the corpus of its training, or any
model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from synthgen import corpus, durable
from synthgen.errors import CorpusError
from synthgen.recipe import Recipe, TrainSection
from synthgen.results.training import FILE, read_training
from synthgen.tally import Outcome, tally


@dataclass(frozen=True)
class Place:
    """What is audited: the corpus, the student or model, and the folder of the report. `corpus` is None for a model
    whose corpus is not known or was changed after the training. `student` is None for a corpus that no student was
    trained on.
    """

    corpus: Path | None
    student: Path | None
    folder: Path

    def outcome(self) -> Outcome | None:
        """How many rows of the corpus were kept and rejected. None when the corpus is not known."""
        return tally(self.corpus) if self.corpus else None


def find(path: Path) -> Place:
    """The subject of an audit of `path`. Raises CorpusError when there is neither a corpus nor a model."""
    if (path / FILE).is_file():
        inside, beside = path / "corpus", path.absolute().parent / "curated"
        known = next((one for one in (inside, beside) if _learned(path, one)), None)
        return Place(known, path, path / "audit")
    if path.suffix == ".gguf":
        return Place(None, path, path.parent / "audit")
    if (path / "config.json").is_file():
        return Place(None, path, path / "audit")
    source = corpus.resolve(path)
    student = source.parent / "student"
    return Place(source, student if _learned(student, source) else None, source.parent / "audit")


def _learned(student: Path, source: Path) -> bool:
    """Whether the student in this folder was trained on exactly the rows that the corpus `source` has now."""
    if not ((student / FILE).is_file() and (source / "manifest.json").is_file()):
        return False
    return read_training(student / FILE).curated_sha256 == durable.digest(corpus.manifest(source)["files"])


def as_trained(recipe: Recipe, student: Path) -> Recipe:
    """The recipe with the section `train` that the student in this folder was trained with, so that its own checkpoint
    is judged. If the recipe names the same checkpoint, the license that the recipe states for it is kept.

    Raises CorpusError when this version does not know a setting of the training.
    """
    settings = read_training(student / FILE).train
    if not settings:
        return recipe
    stated, trained = recipe.train.student if recipe.train else None, settings.get("student") or {}
    license = getattr(stated, "license", None) if getattr(stated, "model", None) == trained.get("model") else None
    values = {**settings, "student": {**trained, **({"license": license} if license else {})}}
    try:
        return recipe.model_copy(update={"train": TrainSection.model_validate(values)})
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise CorpusError(
            f"{student / FILE} has settings that this version does not know: 'train.{key}'",
            "train again: `distill train RUN --fresh`",
        ) from None
