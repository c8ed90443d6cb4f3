"""The tests for privacy of a corpus and its student: the entry `privacy` of AUDITS. docs/privacy.md explains each test.

The tests of a student are in `synthgen.auditing.privacy`. This package is above the package `synthgen.auditing`,
because it reads texts with functions of curation. Results hold kinds, counts and ids of rows. They never hold a value
or a text that was found.
"""

from __future__ import annotations

from synthgen.auditing.privacy.models import audit_student
from synthgen.auditing.result import AuditResult, Subject, worst
from synthgen.privacy.copies import copies
from synthgen.privacy.measures import findings, of_data, of_texts
from synthgen.privacy.origins import origins
from synthgen.privacy.passing import audit_passing
from synthgen.privacy.seeds import known_seeds
from synthgen.recipe.privacy import PrivacySection


def audit_privacy(subject: Subject, section: PrivacySection) -> AuditResult:
    """Test a corpus and its student. If the corpus is not known, only the student is tested."""
    parts = [audit_corpus(subject, section)] if subject.known else []
    if subject.ask_models:
        parts += [audit_passing(subject, section), audit_student(subject, section)]
    return AuditResult(
        status=worst(one.status for one in parts),
        findings=tuple(finding for one in parts for finding in one.findings),
        figures={name: values for one in parts for name, values in one.figures.items()},
        measurements=tuple(test for one in parts for test in one.measurements),
        notes=tuple(note for one in parts for note in one.notes),
    )


def audit_corpus(subject: Subject, section: PrivacySection) -> AuditResult:
    """Search the completions of the kept rows for personal data and for private texts. Raises RecipeError when a file
    of `audit.privacy.private` cannot be read.
    """
    known = known_seeds(subject)
    found = origins(subject.corpus, known, section)
    copied = copies(subject.corpus, known, section)
    leaks = tuple(findings(subject, found, copied, known, section))
    values = {f"{entity}, {origin}": float(one.values) for (entity, origin), one in sorted(found.groups.items())}
    return AuditResult(
        status=worst(one.status for one in leaks),
        findings=leaks,
        figures={"privacy": {"rows": float(found.rows), "seeds": float(found.units)}, "personal data": values},
        measurements=(*of_data(found, section), *of_texts(found, copied, known, section)),
    )
