"""The result of `distill export`: the files of one format, each compared with the original student."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthgen.results import measures as m
from synthgen.results import stored
from synthgen.results.measures import Measure, Table, middle


@dataclass(frozen=True)
class ExportedFile:
    """A file of weights and the runtime that ran it."""

    file: str
    runtime: str


@dataclass(frozen=True)
class Gate:
    """The gate of an export: every file needs at least `at_least` of `measure`. `meaning` explains it in words."""

    measure: str
    at_least: float
    meaning: str


@dataclass(frozen=True, repr=False)
class Export:
    """A student in another format.

    `rows` held-out rows were compared; `unit` names what a row is. `table` has a row for each file of weights and one
    for the student itself; `files` maps a row to its file. `usage` is Markdown that explains how to run the files. The
    function that writes a format leaves `to`, `title`, `folder` and `inputs` empty; the command fills them in.
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
    def below(self) -> dict[str, float]:
        """The files that fail the gate, with their values."""
        if self.gate is None:
            return {}
        found = {name: middle(row.get(self.gate.measure)) for name, row in self.table.items()}
        return {name: value for name, value in found.items() if value is not None and not value >= self.gate.at_least}

    @property
    def passed(self) -> bool:
        """Whether every file passes the gate."""
        return not self.below

    @property
    def failure(self) -> str:
        """One line that names the files that fail the gate; empty when all pass."""
        if self.gate is None or self.passed:
            return ""
        write = self.measures[self.gate.measure].format
        names = " and ".join(f"{name} ({m.shown(value, write)})" for name, value in self.below.items())
        least = m.shown(self.gate.at_least, write)
        return f"{names}: an export needs at least {least} of {self.gate.meaning}"

    def to_dict(self) -> dict[str, Any]:
        """As in export.json."""
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
    """The export in export.json. Raises CorpusError when the file is damaged or of an older version."""
    return stored.read(path, Export, "make the student again: `distill export STUDENT --to FORMAT --fresh`")
