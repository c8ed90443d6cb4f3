"""The result of `distill curve`: the student's measures for growing shares of the training seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from synthgen.results import measures as m
from synthgen.results import stored
from synthgen.results.measures import Measure, Table


@dataclass(frozen=True)
class Point:
    """One trained student: the share of the training seeds that the student learned from, the numbers of rows and
    steps, and the measures that have an interval.
    """

    share: float
    rows: int
    steps: int
    table: Table


@dataclass(frozen=True, repr=False)
class Curve:
    """The points, ordered by share. `measure` is the name of the measure that the plot shows. `student` names the
    student's row in each table.
    """

    kind: str
    student: str
    measure: str
    measures: dict[str, Measure]
    points: list[Point] = field(default_factory=list)
    schema_version: Literal[2] = 2

    def to_dict(self) -> dict[str, Any]:
        """The content of curve.json."""
        return asdict(self)

    def __repr__(self) -> str:
        return self.text()

    def text(self) -> str:
        """One line for each point, for a terminal."""
        shown = m.columns(self.measures, (point.table.get(self.student, {}) for point in self.points))
        rows = []
        for point in self.points:
            values = point.table.get(self.student, {})
            cells = [m.shown(values.get(name), measure.format) for name, measure in shown.items()]
            rows.append([f"{point.share:.0%}", f"{point.rows:,}", f"{point.steps:,}", *cells])
        return m.text_table(["share", "rows", "steps", *(measure.title for measure in shown.values())], rows)


def read_curve(path: Path) -> Curve:
    """Read curve.json. Raises CorpusError when the file is damaged or of another version."""
    return stored.read(path, Curve, "measure again: `distill curve RUN`")
