"""report.json: an audit of a corpus for an intended use. `synthgen audit` writes it. Training and the page read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import StrictBool

from synthgen.results import stored


@dataclass(frozen=True)
class Intent:
    """The intended use that was judged."""

    use: str
    actions: list[str]
    competes: str | dict[str, str]
    student: list[dict[str, object]] = field(default_factory=list)
    """The sources that the student has besides those of its rows."""

    def competes_text(self) -> str:
        """For people: whether the student competes with the providers of teachers."""
        if isinstance(self.competes, str):
            return self.competes
        return ", ".join(f"{provider}: {answer}" for provider, answer in self.competes.items())

    def text(self) -> str:
        """For people: the use and the actions."""
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
    waived: str = ""


@dataclass(frozen=True)
class StoredAudit:
    """What others need to know of an audit: whether it passed, its status, the intended use, the findings, and the hash
    of the corpus that was judged. The hash is "" in a report of an older version, which belongs to no corpus. `waivers`
    says which findings were accepted, by whom and why, and `date` is the day of the audit.
    """

    status: str
    passed: StrictBool
    intent: Intent
    findings: list[Finding]
    corpus_sha256: str = ""
    waivers: list[str] = field(default_factory=list)
    date: str = ""


def read_audit(path: Path) -> StoredAudit:
    """Read report.json. Raises CorpusError when the file is damaged or of another version."""
    return stored.read(path, StoredAudit, "audit again: `synthgen audit RUN`")
