"""The argument of a function that exports a student, and the error for missing held-out rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthgen.errors import UserError
from synthgen.ui import UI


@dataclass(frozen=True)
class Job:
    """One export.

    `student` is the student's folder, and `kind` its kind. `source` is a curated corpus with held-out rows for the
    comparison. `out` is the empty folder for the files.
    """

    student: Path
    kind: str
    source: Path
    out: Path
    ui: UI


def no_rows(source: Path) -> UserError:
    """The error for a corpus without held-out rows."""
    return UserError(
        f"{source} has no held-out rows for the comparison", "set split.test, or name another run with --corpus"
    )
