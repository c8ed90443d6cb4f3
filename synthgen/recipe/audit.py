"""Section `audit`: the intended use that the audit judges."""

from __future__ import annotations

from typing import Literal

from synthgen.tables.section import Section


class AuditSection(Section):
    """The intended use that the audit judges."""

    use: Literal["research", "commercial"] = "commercial"
    actions: tuple[Literal["train", "share_data", "release_weights", "serve"], ...] = (
        "train",
        "share_data",
        "release_weights",
    )
    competes: Literal["yes", "no", "unknown"] = "unknown"
    """Whether the student competes with the teacher's provider."""
    student_family: str = ""
    """Model family of the student, for terms that allow training only within their own."""
    student_name: str = ""
