"""What an audit is given and what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synthgen.manifest import Manifest

Status = Literal["ALLOW", "CONTESTED", "UNKNOWN", "DENY"]
STATUSES: tuple[Status, ...] = ("ALLOW", "CONTESTED", "UNKNOWN", "DENY")
"""From best to worst. The first two pass."""


@dataclass(frozen=True)
class Subject:
    """What is audited: a finished corpus, or a student.

    `bases` are the models that the student is made from, each with its license, where a student is trained.
    """

    corpus: Path
    manifest: Manifest
    student: Path | None = None
    bases: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Finding:
    """What an audit says of one thing: for licenses, what one source's terms say of the intended use.

    `source` is what is judged, `role` what it did, and `terms` under which license or rule it is judged.
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
    """What one audit says: its status, its findings, and figures by name (such as rows by status)."""

    status: Status
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of some statuses; ALLOW when there is none."""
    return max(statuses, key=STATUSES.index, default="ALLOW")
