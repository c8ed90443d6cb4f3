"""Section `audit`: the intended use that the audit judges."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, WithJsonSchema

from synthgen.tables.section import Section


def _word(value: object) -> object:
    """Convert a boolean to "yes" or "no", because YAML reads an unquoted `yes` or `no` as a boolean."""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


class AuditSection(Section):
    """The intended use that the audit judges."""

    use: Literal["research", "commercial"] = "commercial"
    """Whether the corpus and the student are for research or for commercial use."""
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
    """Whether the student competes with the teacher's provider. The terms of some providers forbid such students."""
    student_family: str = ""
    """Model family of the student, for terms that allow the teacher's output to train only models of its family."""
    student_name: str = ""
    """Name under which the student will be released, for licenses that require the name to begin with some prefix."""
