"""report.json: an audit of a corpus for an intended use. `synthgen audit` writes report.json. Training, the page, the
cards and the exports read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import StrictBool

from synthgen.results import stored
from synthgen.tables.audits import AUDITS, Topic


@dataclass(frozen=True)
class Intent:
    """The intended use that was judged."""

    use: str
    actions: list[str]
    competes: str | dict[str, str]
    student: list[dict[str, object]] = field(default_factory=list)
    """The sources of the student that are not sources of the rows it learned from."""

    def competes_text(self) -> str:
        """Text for people: whether the student competes with the providers of teachers."""
        if isinstance(self.competes, str):
            return self.competes
        return ", ".join(f"{provider}: {answer}" for provider, answer in self.competes.items())

    def text(self) -> str:
        """Text for people: the use and the actions."""
        return f"{self.use} use ({', '.join(self.actions)})"


@dataclass(frozen=True)
class Finding:
    """The judgment of one source; see `synthgen.auditing.result`."""

    source: str
    role: str
    terms: str
    status: str
    reasons: list[str] = field(default_factory=list)
    obligations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    duties: list[str] = field(default_factory=list)
    waived: str = ""


@dataclass(frozen=True)
class Measurement:
    """One test of bias or privacy; see `synthgen.auditing.result`. Numbers that do not exist are None."""

    name: str
    subject: str
    about: str
    unit: str
    outcome: str
    n: int = 0
    clusters: int = 0
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    null: float | None = None
    p: float | None = None
    corrected_p: float | None = None
    family: str = ""
    detectable: float | None = None
    margin: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Repair:
    """A change after which more of the corpus passes: what to do, the number of rows that it concerns, and the command
    for it ("" if there is none).
    """

    text: str
    rows: int = 0
    command: str = ""


@dataclass(frozen=True)
class Audited:
    """The result of one audit of the table AUDITS: its status, its tests of bias or privacy, and its notes."""

    status: str = ""
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StoredAudit:
    """The facts about an audit that other modules need: whether it passed, its status, the intended use, the findings,
    the hash of the corpus that was judged, and the number of rows with each status. A report of an older version has
    the hash "", so it is not used as the audit of any corpus. `student_sha256` is the hash of the training.json of the
    student that was tested; "" when none was, and in older reports. `audits` maps the name of each audit to its result.
    `waivers` says which findings were accepted, by whom and why, and `date` is the day of the audit.
    """

    status: str
    passed: StrictBool
    intent: Intent
    findings: list[Finding]
    corpus_sha256: str = ""
    waivers: list[str] = field(default_factory=list)
    rows: dict[str, float] = field(default_factory=dict)
    date: str = ""
    audits: dict[str, Audited] = field(default_factory=dict)
    repairs: list[Repair] = field(default_factory=list)
    student_sha256: str = ""

    @property
    def measurements(self) -> list[Measurement]:
        """The tests of all audits."""
        return [one for audited in self.audits.values() for one in audited.measurements]

    def about(self, topic: Topic) -> list[Measurement]:
        """The tests of the audits with this topic. If an audit is not in the table AUDITS, its tests are about bias."""
        topics = {name: audit.topic for name, audit in AUDITS.items()}
        named = [one for name, one in self.audits.items() if topics.get(name, "bias") == topic]
        return [one for audited in named for one in audited.measurements]


def read_audit(path: Path) -> StoredAudit:
    """Read report.json. Raises CorpusError when the file is damaged or of another version."""
    return stored.read(path, StoredAudit, "audit again: `synthgen audit RUN`")


def audit_of(corpus: Path, sha256: str) -> StoredAudit | None:
    """The latest audit of exactly the corpus in the folder `corpus`, whose list of files has the hash `sha256`. None
    when no audit judged this corpus, for example because the corpus was made again after the audit.

    Raises CorpusError when a report is damaged.
    """
    about_it = [one for one in _reports(corpus.parent / "audit") if one.corpus_sha256 == sha256]
    return max(about_it, key=lambda one: one.date, default=None)


def audit_of_student(folder: Path) -> StoredAudit | None:
    """The audit of the student in `folder`. None when the student was not audited after its training. Raises
    CorpusError when the report is damaged.
    """
    return _audit_of_student(folder / "audit" / "report.json", folder)


def audits_of_student(folder: Path) -> list[StoredAudit]:
    """The audits that were made of the student in `folder` after its training, newest first: the audit of the student,
    and the audit of the run that contains it. Raises CorpusError when a report is damaged.
    """
    places = [folder / "audit", *([folder.parent / "audit"] if folder.name == "student" else [])]
    reports = [path for place in places if (path := place / "report.json").is_file()]
    newest = sorted(reports, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    return [audit for path in newest if (audit := _audit_of_student(path, folder))]


def _audit_of_student(report: Path, folder: Path) -> StoredAudit | None:
    """The audit in the file `report`, if it is about the student in `folder` as it was trained last. A report that
    names no student must be newer than the training. While a student is trained again, it has no training.json, and
    every report is about the student before it.
    """
    training = folder / "training.json"
    if not (report.is_file() and training.is_file()):
        return None
    audit = read_audit(report)
    if audit.student_sha256:
        return audit if audit.student_sha256 == training_hash(folder) else None
    return audit if report.stat().st_mtime_ns >= training.stat().st_mtime_ns else None


def training_hash(folder: Path) -> str:
    """The hash of the training.json of the student in `folder`. "" when there is no such file."""
    training = folder / "training.json"
    return hashlib.sha256(training.read_bytes()).hexdigest() if training.is_file() else ""


def _reports(folder: Path) -> Iterator[StoredAudit]:
    """The latest report in a folder audit/, and then the latest report for each intended use."""
    for path in (folder / "report.json", *sorted(folder.glob("*/report.json"))):
        if path.is_file():
            yield read_audit(path)
