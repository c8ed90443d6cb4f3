"""Section `audit`: the intended use that the audit judges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema

from synthgen.tables.section import Section


def _word(value: object) -> object:
    """YAML reads an unquoted `yes` or `no` as a boolean."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class AuditSection(Section):
    """The intended use that the audit judges."""

    use: Literal["research", "commercial"] = "commercial"
    """What the corpus and the student are for."""
    actions: tuple[Literal["train", "share_data", "release_weights", "serve"], ...] = (
        "train",
        "share_data",
        "release_weights",
    )
    """What will be done: train a student, share the corpus, release the student's weights, serve the student."""
    competes: Annotated[
        Literal["yes", "no", "unknown"],
        BeforeValidator(_word),
        WithJsonSchema({"enum": ["yes", "no", "unknown", True, False]}),
    ] = "unknown"
    """Whether the student competes with the teacher's provider. Some providers' terms forbid that."""
    student_family: str = ""
    """Model family of the student, for terms that allow training only within their own family."""
    student_name: str = ""
    """Name under which the student will be released, for licenses that require a prefix of the name."""
