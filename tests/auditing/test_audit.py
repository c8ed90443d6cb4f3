"""Golden cases of terms, and the lattice's laws."""

from __future__ import annotations

import datetime
import itertools

import pytest

from synthgen.auditing.license import STATUSES, catalog, judge, worst
from synthgen.recipe import AuditSection

TODAY = datetime.date(2026, 1, 15)


def status(terms: str, role: str = "generator", **intent) -> str:
    return judge("x", role, terms, AuditSection(**{"use": "commercial", **intent}), TODAY).status


@pytest.mark.parametrize(
    ("terms", "role", "intent", "expected"),
    [
        ("CC0-1.0", "seed", {}, "ALLOW"),
        ("MIT", "seed", {}, "ALLOW"),
        ("Apache-2.0", "generator", {}, "ALLOW"),
        ("CC-BY-NC-4.0", "seed", {}, "DENY"),
        ("CC-BY-NC-4.0", "seed", {"use": "research", "actions": ["train"]}, "ALLOW"),
        ("CC-BY-SA-4.0", "seed", {}, "CONTESTED"),
        ("CC-BY-ND-4.0", "seed", {}, "DENY"),
        ("unknown", "seed", {}, "UNKNOWN"),
        ("some-license-nobody-wrote-down", "generator", {}, "UNKNOWN"),
        ("openai", "generator", {}, "UNKNOWN"),
        ("openai", "generator", {"competes": "no"}, "ALLOW"),
        ("openai", "generator", {"competes": "yes"}, "DENY"),
        ("anthropic", "generator", {}, "DENY"),
        ("deepseek-api", "generator", {}, "ALLOW"),
        ("llama-3", "generator", {"use": "research"}, "DENY"),
        ("llama-3", "generator", {"use": "research", "student_family": "llama", "actions": ["train"]}, "ALLOW"),
        ("llama-3.1", "generator", {"student_name": "Nice-Student"}, "DENY"),
        ("llama-3.1", "generator", {"student_name": "Llama-Nice"}, "CONTESTED"),
    ],
)
def test_golden(terms, role, intent, expected):
    assert status(terms, role, **intent) == expected


def test_laws():
    """Join is the worst, in any order; commercial is never easier than research; ignorance never passes."""
    for some in itertools.permutations(STATUSES, 3):
        assert worst(some) == max(some, key=STATUSES.index)
    for terms in catalog():
        for role in ("seed", "generator", "template", "student_base"):
            research, commercial = (status(terms, role, use=use) for use in ("research", "commercial"))
            assert STATUSES.index(research) <= STATUSES.index(commercial), (terms, role)
    assert worst([]) == "ALLOW"


def test_every_finding_that_is_not_allow_says_why():
    for terms in catalog():
        finding = judge("x", "generator", terms, AuditSection(), TODAY)
        assert finding.status == "ALLOW" or finding.reasons, terms


def test_old_contracts_are_flagged():
    late = datetime.date(2027, 1, 1)
    assert judge("x", "generator", "openai", AuditSection(), late).notes
    assert not judge("x", "generator", "openai", AuditSection(), TODAY).notes
    assert not judge("x", "generator", "MIT", AuditSection(), late).notes
