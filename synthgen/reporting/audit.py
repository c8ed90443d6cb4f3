"""The part of the page about the audit, in plain words: the verdict, the next steps, obligations, and tests of bias
and privacy.
"""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.cards import tests_about
from synthgen.results import audit_text
from synthgen.results.audit import Measurement, StoredAudit
from synthgen.tables.audits import TOPICS

_MOST_TESTS = 20  # the page shows at most this many tests of bias with the same outcome


def audit_view(
    audit: StoredAudit | None, corpus_sha256: str, of_student: StoredAudit | None = None
) -> dict[str, object]:
    """The variables of the page's template that are about the audit. `corpus_sha256` is the hash of the list of the
    corpus's files; an audit with another hash is about other rows. `of_student` is the audit of the student.
    """
    bias, privacy = (tests_about(topic, audit, of_student) for topic in TOPICS)
    if audit is None:
        return {
            "audit": None,
            "audit_text": audit_text,
            "bias_plots": [],
            "bias": [],
            "privacy": [],
            "privacy_summary": "",
        }
    return {
        "audit": audit,
        "audit_text": audit_text,
        "is_current": audit.corpus_sha256 == corpus_sha256,
        "steps": audit_text.next_steps(audit),
        "shares": _shares(audit),
        "obligations": audit_text.obligations(audit),
        "bias": _bias(bias),
        "bias_plots": _plots(bias),
        "privacy": audit_text.privacy_lines(privacy),
        "privacy_summary": audit_text.privacy_summary(privacy),
    }


def _shares(audit: StoredAudit) -> list[tuple[str, str, int, float]]:
    """(status, its meaning, number of rows, share of the rows) for each status that rows have, from worst to best."""
    total = sum(audit.rows.values())
    counts = {status: int(audit.rows.get(status, 0)) for status in audit_text.STATUSES}
    return [(one, audit_text.MEANINGS[one], count, count / total) for one, count in counts.items() if count]


def _bias(measurements: Sequence[Measurement]) -> list[tuple[str, list[tuple[str, str, str]], int]]:
    """(heading, tests, number of tests that are not shown) for each outcome. A test is (name, subject, text)."""
    return [
        (
            audit_text.OUTCOMES.get(outcome, outcome),
            [(one.name, one.subject, audit_text.measured(one)) for one in tests[:_MOST_TESTS]],
            max(0, len(tests) - _MOST_TESTS),
        )
        for outcome, tests in audit_text.by_outcome(measurements).items()
    ]


def _plots(measurements: Sequence[Measurement]) -> list[object]:
    from synthgen.reporting import plots

    return [*plots.bias_plots(measurements)] if measurements else []
