"""The input and the result of an audit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from synthgen.manifest import Manifest, SourceTerms

Status = Literal["ALLOW", "CONTESTED", "UNKNOWN", "DENY"]
STATUSES: tuple[Status, ...] = ("ALLOW", "CONTESTED", "UNKNOWN", "DENY")
"""All statuses, from best to worst. An audit passes with one of the first two."""


@dataclass(frozen=True)
class Subject:
    """What is audited: a finished corpus, or a student.

    `of_student` holds the student's sources that are not sources of its rows, such as a model whose weights initialize
    it (see `synthgen.lineage`). It is empty when no student is trained.
    """

    corpus: Path
    manifest: Manifest
    student: Path | None = None
    of_student: tuple[SourceTerms, ...] = ()


@dataclass(frozen=True)
class Finding:
    """An audit's judgment of one source, for example of what the source's license says about the intended use.

    `source` names what is judged, and `role` is its role in the corpus. `terms` names the license or rule that applies,
    and `texts` says where each of its texts was read.
    """

    source: str
    role: str
    terms: str
    status: Status
    reasons: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class AuditResult:
    """The result of one audit: its status, its findings, and its figures. A figure maps names to numbers, such as
    `rows`, the number of rows with each status.
    """

    status: Status
    findings: tuple[Finding, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def worst(statuses: Iterable[Status]) -> Status:
    """The worst of the statuses; ALLOW when `statuses` is empty."""
    return max(statuses, key=STATUSES.index, default="ALLOW")
