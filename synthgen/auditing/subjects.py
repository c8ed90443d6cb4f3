"""Finds out what an audit judges when it gets a path: a corpus, a student with the corpus of its training, or any
model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthgen import corpus
from synthgen.results.training import FILE
from synthgen.tally import Outcome, tally


@dataclass(frozen=True)
class Place:
    """The subject of an audit: the corpus, the student or model, and the folder of the report. `corpus` is None for a
    model whose corpus is not known, and `student` is None for a corpus that no student was trained on.
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
        known = next((one for one in (inside, beside) if (one / "manifest.json").is_file()), None)
        return Place(known, path, path / "audit")
    if path.suffix == ".gguf":
        return Place(None, path, path.parent / "audit")
    if (path / "config.json").is_file():
        return Place(None, path, path / "audit")
    source = corpus.resolve(path)
    student = source.parent / "student"
    return Place(source, student if (student / FILE).is_file() else None, source.parent / "audit")
