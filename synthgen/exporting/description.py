"""`export` to a format of DESCRIPTIONS: it writes one document about a run and its student, and no rows.

described = describe(Path("runs/first"), "spdx", Path("exports/bill"))
described.file                   # exports/bill/spdx.json
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synthgen import corpus, durable, outputs
from synthgen.datasets import is_dataset
from synthgen.errors import RunChanged, UserError, one_line
from synthgen.exporting.card import About
from synthgen.results.audit import audit_of
from synthgen.results.evaluation import Evaluation, read_evaluation
from synthgen.results.training import FILE, Training, read_training
from synthgen.tables.formats import DESCRIPTIONS
from synthgen.tables.reference import resolve


@dataclass(frozen=True)
class Student:
    """A student that is described. `sources` are the student's own sources, which the audit states; the sources of the
    training rows are not among them. `sources` is None if no audit is about this student.
    """

    folder: Path
    training: Training
    evaluation: Evaluation | None
    sources: list[dict[str, object]] | None


@dataclass(frozen=True)
class Subject:
    """What is described: the corpus in `folder`, and a student if there is one. `about` has the corpus's manifest and
    audit.
    """

    about: About
    folder: Path
    student: Student | None

    @property
    def of_student(self) -> list[Path]:
        """The student's folder, if there is a student."""
        return [self.student.folder] if self.student else []


@dataclass(frozen=True)
class Described:
    """The result of an export that writes no rows. `audited` says whether there is an audit of the corpus."""

    out: Path
    to: str
    file: Path
    student: bool
    audited: bool

    def to_dict(self) -> dict[str, object]:
        """For `--json`."""
        return {**vars(self), "out": str(self.out), "file": str(self.file)}

    def text(self) -> str:
        """For people."""
        what = "the corpus and its student" if self.student else "the corpus; there is no student"
        audit = "" if self.audited else "\nno audit of this corpus was made, and the document says so"
        return f"{self.file}: {self.to}, {what}{audit}"


def describe(path: Path, to: str, out: Path, *, license: str | None = None, fresh: bool = False) -> Described:
    """Write the document of the format `to` about the run, corpus or student `path` into the folder `out`. `license` is
    the license that the publisher states for the rows.

    Raises UserError when `path` is neither a run, a corpus nor a student, or when `out` is not free, and CorpusError
    when the corpus is damaged.
    """
    entry = DESCRIPTIONS[to]
    subject = _subject(path, license)
    if out.suffix in (".json", ".jsonl"):
        raise UserError(f"{out} is the name of a file, and {to} is a folder", "give a folder with -o")
    outputs.not_around(out, path)
    outputs.not_inside(out, [subject.folder, *outputs.stages(subject.folder, ""), *subject.of_student])
    signs = ((entry.file, entry.sign),) if entry.sign else ()
    output = outputs.Output("synthgen export", signs, (re.escape(entry.file),))
    if output.begun(out) and not fresh:
        raise RunChanged(
            one_line(f"{out} holds an earlier export"), "give another folder with -o, or replace it with --fresh"
        )
    outputs.check(out, output, fresh)
    durable.make_folder(out)
    durable.write_json(out / entry.file, resolve(entry.describe)(subject))
    return Described(out, to, out / entry.file, subject.student is not None, subject.about.audit is not None)


def _subject(path: Path, license: str | None) -> Subject:
    """The corpus and the student of a run. For the folder of a student, the corpus is in its folder `corpus` if the
    student was trained on a data set. Otherwise the corpus is that of the run that contains the student's folder.
    """
    if not path.exists():
        raise UserError(f"'{path}' does not exist", "give a run or a student")
    student = path if (path / FILE).exists() else path / "student"
    where = path
    if student == path:
        where = path / "corpus" if (path / "corpus" / "manifest.json").exists() else path.absolute().parent
    elif is_dataset(path):
        raise UserError(
            f"'{path}' is neither a run nor a student", "make a run of it: `synthgen curate DATASET -o RUN`"
        )
    folder = corpus.resolve(where)
    manifest = corpus.verify(folder)
    about = About(where.resolve().name, "", True, license, tuple(manifest["sources"]), manifest=manifest)
    about.audit = audit_of(folder, about.corpus_sha256)
    return Subject(about, folder, _student(student, about) if (student / FILE).exists() else None)


def _student(folder: Path, about: About) -> Student:
    training, measured = read_training(folder / FILE), folder / "evaluation.json"
    evaluation = read_evaluation(measured) if measured.exists() else None
    return Student(folder, training, evaluation, _sources(training, about))


def _sources(training: Training, about: About) -> list[dict[str, object]] | None:
    """The student's own sources, as the audit states them. None unless the audit judged the student's corpus, with the
    use, the actions and the checkpoint of the student's training.
    """
    audit, passage = about.audit, training.audit
    if audit is None or passage is None or training.curated_sha256 != about.corpus_sha256:
        return None
    if (audit.intent.use, audit.intent.actions) != (passage.use, passage.actions):
        return None
    settings = training.train.get("student")
    model = settings.get("model") if isinstance(settings, Mapping) else None
    named = [one.get("source") for one in audit.intent.student]
    return audit.intent.student if model is None or model in named else None
