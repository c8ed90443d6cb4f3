"""The audit of rows: a corpus without kept rows does not pass, because nothing in it can be judged or used."""

from __future__ import annotations

from synthgen.auditing.result import AuditResult, Finding, Subject
from synthgen.recipe import AuditSection
from synthgen.tally import tally


def audit_rows(subject: Subject, section: AuditSection) -> AuditResult:
    """UNKNOWN, with the most frequent reasons, when no row was kept. Otherwise ALLOW without findings."""
    outcome = tally(subject.corpus)
    if outcome.kept:
        return AuditResult("ALLOW")
    return AuditResult("UNKNOWN", (Finding(subject.corpus.name, "corpus", "no rows", "UNKNOWN", (outcome.reason,)),))
