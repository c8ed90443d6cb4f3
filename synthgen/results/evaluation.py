"""The result of `distill eval`, one class for every kind of student.

Each kind of student sets the fields for which its evaluation has values: measures, a table, a headline, key figures,
comparisons, results for groups of rows, a matrix, samples, and notes on the method. The page, the model card and
`distill eval` show every field that is set.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from synthgen.results import measures as m
from synthgen.results import stored
from synthgen.results.measures import Bootstrap, Figure, Interval, Measure, Table
from synthgen.results.statement import Statement
from synthgen.results.statement_text import terminal

if TYPE_CHECKING:
    import pandas as pd

_AGAIN = "measure again: `distill eval RUN --fresh`"


@dataclass(frozen=True)
class Comparison:
    """The difference between two models in one measure, computed on the same rows."""

    name: str
    measure: str
    difference: Interval


@dataclass(frozen=True)
class Part:
    """One part of the held-out rows, such as the longest third, and the table for these rows."""

    name: str
    rows: int
    table: Table
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Matrix:
    """Counts of held-out rows by the label that the teacher gave (rows of the matrix) and the label that the student
    gave (columns).
    """

    labels: list[str]
    counts: list[list[int]]
    rows_title: str = "teacher"
    columns_title: str = "student"
    caption: str = ""


@dataclass(frozen=True)
class Sample:
    """One held-out prompt and what each model wrote."""

    prompt: str
    texts: dict[str, str]


@dataclass(frozen=True, repr=False)
class Evaluation:
    """How close a student is to its teacher, and what the student and the teacher cost.

    `rows` is the number of held-out rows that were compared, and `unit` says what a row is ("completions", "texts").
    `student` names the student's row in `table`; `models` maps names of rows in `table` to remarks about them. `counts`
    maps names to further numbers. `statement` is the loss statement without the dimensions that audits measure.
    `synthgen.results.statement.statement_of` adds these dimensions. `inputs` are compared with the current inputs to
    decide whether a stored evaluation is still valid.
    """

    kind: str
    rows: int
    unit: str
    headline: str
    measures: dict[str, Measure]
    table: Table
    notes: list[str] = field(default_factory=list)
    models: dict[str, str] = field(default_factory=dict)
    student: str = "distilled"
    figures: list[Figure] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    matrix: Matrix | None = None
    samples: list[Sample] = field(default_factory=list)
    bootstrap: Bootstrap | None = None
    counts: dict[str, float] = field(default_factory=dict)
    learned_from: str = ""
    statement: Statement = field(default_factory=Statement)
    inputs: dict[str, Any] = field(default_factory=dict)
    schema_version: Literal[2] = 2

    def to_dict(self) -> dict[str, Any]:
        """The content of evaluation.json."""
        return asdict(self)

    def __repr__(self) -> str:
        return self.text()

    def text(self) -> str:
        """The headline, a table of the quality measures, and the loss statement, for a terminal."""
        shown = m.columns(self.measures, self.table.values(), "quality")
        header = ["", *(measure.title for measure in shown.values())]
        lines = []
        for model, row in self.table.items():
            values = []
            for name, measure in shown.items():
                value = row.get(name)  # measures with a caption are shown with their intervals
                values.append(m.shown(value if measure.caption else m.middle(value), measure.format))
            lines.append([model, *values])
        text = "\n\n".join(filter(None, [self.headline, m.text_table(header, lines)]))
        text += f"\nThe student learned from {self.learned_from}." if self.learned_from else ""
        return f"{text}\n\n{terminal(self.statement)}"

    def frame(self) -> pd.DataFrame:
        """The table as a pandas data frame of numbers; see `synthgen.results.measures.frame`."""
        return m.frame(self.table)

    @property
    def plotted(self) -> dict[str, Measure]:
        """The measures that have a plot. The plot of `distill curve` shows the first of these measures."""
        return {name: measure for name, measure in self.measures.items() if measure.caption}


def read_evaluation(path: Path) -> Evaluation:
    """Read evaluation.json. Raises CorpusError when the file is damaged or of another version."""
    return stored.read(path, Evaluation, _AGAIN)
