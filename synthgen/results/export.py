"""The result of `distill export`: the files of one format, and the comparison of each file with the student."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthgen.results import measures as m
from synthgen.results import stored
from synthgen.results.measures import Measure, Table, middle


@dataclass(frozen=True)
class ExportedFile:
    """A file of weights, and the runtime that ran the file in the comparison."""

    file: str
    runtime: str


@dataclass(frozen=True)
class Gate:
    """The gate of an export: every file needs a value of at least `at_least` in the measure `measure`. `meaning` says
    in words what is measured.
    """

    measure: str
    at_least: float
    meaning: str


@dataclass(frozen=True, repr=False)
class Export:
    """A student in another format.

    `rows` is the number of held-out rows that were compared, and `unit` says what a row is. `table` has a row for the
    student itself and a row for each file of weights; `files` maps the name of a row to its file. `usage` is Markdown
    that explains how to run the files. The function that writes a format leaves `to`, `title`, `folder` and `inputs`
    empty. The command `distill export` sets these four fields.
    """

    kind: str
    rows: int
    unit: str
    measures: dict[str, Measure]
    table: Table
    files: dict[str, ExportedFile]
    usage: str
    gate: Gate | None = None
    notes: list[str] = field(default_factory=list)
    to: str = ""
    title: str = ""
    folder: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    schema_version: Literal[2] = 2

    @property
    def below(self) -> dict[str, float | None]:
        """Maps the name of each file that fails the gate to the file's value of the gate's measure. A file without a
        value fails. Only the first row of the table, the student itself, needs no value.
        """
        if self.gate is None:
            return {}
        found = [(name, middle(row.get(self.gate.measure))) for name, row in self.table.items()]
        known = [(name, value) for place, (name, value) in enumerate(found) if place or value is not None]
        return {name: value for name, value in known if value is None or not value >= self.gate.at_least}

    @property
    def passed(self) -> bool:
        """Whether every file passes the gate."""
        return not self.below

    @property
    def failure(self) -> str:
        """A message that names the files that fail the gate. Empty when all files pass."""
        if self.gate is None or self.passed:
            return ""
        write = self.measures[self.gate.measure].format
        names = " and ".join(f"{name} ({m.shown(value, write)})" for name, value in self.below.items())
        least = m.shown(self.gate.at_least, write)
        return f"{names}: an export needs at least {least} of {self.gate.meaning}"

    def to_dict(self) -> dict[str, Any]:
        """The content of export.json."""
        return {**asdict(self), "passed": self.passed}

    def __repr__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The folder and a table of the files, for a terminal."""
        shown = m.columns(self.measures, self.table.values())
        rows = [
            [name, self.files[name].file, *(m.shown(row.get(key), measure.format) for key, measure in shown.items())]
            for name, row in self.table.items()
        ]
        header = ["", "file", *(measure.title for measure in shown.values())]
        return f"{self.folder}\n{m.text_table(header, rows)}"


def read_export(path: Path) -> Export:
    """Read export.json. Raises CorpusError when the file is damaged or of another version."""
    return stored.read(path, Export, "make the export again: `distill export STUDENT --to FORMAT --fresh`")
