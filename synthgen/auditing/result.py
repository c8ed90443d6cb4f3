"""The input and the result of an audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synthgen.manifest import Manifest

Status = Literal["ALLOW", "CONTESTED", "UNKNOWN", "DENY"]
STATUSES: tuple[Status, ...] = ("ALLOW", "CONTESTED", "UNKNOWN", "DENY")
"""Ordered from best to worst. The first two pass."""


@dataclass(frozen=True)
class Subject:
    """What is audited: a finished corpus, or a student.

    `bases` holds (model, license) pairs of the models that the student starts from; it is empty when no student is
    trained.
    """

    corpus: Path
    manifest: Manifest
    student: Path | None = None
    bases: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Finding:
    """What an audit says about one source or artifact. For licenses: what the terms of one source say about the
    intended use.

    `source` is the thing that is judged and `role` its role in the corpus. `terms` names the license or rule that
    applies.
    """

    source: str
    role: str
    terms: str
    status: Status
    reasons: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditResult:
    """The result of one audit: its status, its findings, and its figures by name (such as rows by status)."""

    status: Status
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of the statuses; ALLOW when there are none."""
    return max(statuses, key=STATUSES.index, default="ALLOW")
