"""What a function that writes a student in some format gets, and what it returns when it is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthgen.errors import UserError
from synthgen.ui import UI


@dataclass(frozen=True)
class Job:
    """A student to write.

    `student` is its folder, `kind` its kind, `source` a curated corpus with held-out rows to compare on, and `out` the
    empty folder that the files go to.
    """

    student: Path
    kind: str
    source: Path
    out: Path
    ui: UI


def no_rows(source: Path) -> UserError:
    """The error for a corpus without held-out rows."""
    return UserError(f"{source} has no held-out rows to compare on", "set split.test in the recipe, or name a corpus")
