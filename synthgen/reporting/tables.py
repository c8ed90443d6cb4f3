"""Makes the tables of the page: selects the columns and rows that have values, and formats each value as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from synthgen.results.evaluation import Evaluation
from synthgen.results.export import Export
from synthgen.results.measures import Cell, Measure, Table, Value, cell, shown


@dataclass(frozen=True)
class Line:
    """One row of a table: its name, a remark below the name, and its cells. The row of the student is `marked`."""

    name: str
    remark: str
    cells: list[Cell]
    marked: bool = False


@dataclass(frozen=True)
class View:
    """A table for the template. `corner` is the header of the column that has the names of the rows."""

    corner: str
    header: list[str]
    lines: list[Line]


def evaluation_tables(evaluation: Evaluation) -> list[View]:
    """Two tables with a row for each model: one table with the measures of quality, and one with the measures of cost.
    A table without values is left out.
    """
    views = [
        _view(
            "model" if about == "quality" else "cost of",
            evaluation.measures,
            evaluation.table,
            about,
            evaluation.models if about == "quality" else {},
            evaluation.student,
        )
        for about in ("quality", "cost")
    ]
    return [view for view in views if view.header]


def parts_table(evaluation: Evaluation) -> View | None:
    """A table with a row for each part of the held-out rows, and a column for each pair of a measure and a model. None
    when the evaluation has no parts.
    """
    if not evaluation.parts:
        return None
    wide = {
        part.name: {(model, name): value for model, row in part.table.items() for name, value in row.items()}
        for part in evaluation.parts
    }
    frame = pd.DataFrame.from_dict(wide, orient="index", dtype=object)
    columns = [(str(model), str(name)) for model, name in map(tuple, frame.columns)]
    header = ["rows", *(f"{model}: {evaluation.measures[name].title}" for model, name in columns)]
    lines = []
    for part, (name, values) in zip(evaluation.parts, frame.iterrows(), strict=True):
        cells = [cell(_value(v), evaluation.measures[key].format) for (_, key), v in zip(columns, values, strict=True)]
        lines.append(Line(str(name), "", [Cell(f"{part.rows:,}"), *cells]))
    return View("part of the held-out rows", header, lines)


def export_table(export: Export) -> View:
    """A table with a row for each file of an export. If a file fails the gate, the remark of its row says so."""
    remarks = {name: f"{file.file}, {file.runtime}" for name, file in export.files.items()}
    remarks |= {name: f"{remarks[name]}; fails the gate" for name in export.below}
    return _view("file", export.measures, export.table, "", remarks, "")


def differences(evaluation: Evaluation) -> list[str]:
    """For each measure in which models were compared: a sentence with the differences."""
    by_measure: dict[str, list[str]] = {}
    for found in evaluation.comparisons:
        text = f"{found.name} {shown(found.difference, evaluation.measures[found.measure].format)}"
        by_measure.setdefault(evaluation.measures[found.measure].title, []).append(text)
    return [f"Paired differences in “{title}”: {'; '.join(texts)}." for title, texts in by_measure.items()]


def _view(
    corner: str,
    measures: Mapping[str, Measure],
    table: Table,
    about: str,
    remarks: Mapping[str, str],
    student: str,
) -> View:
    """Make a table with the measures whose `about` equals the argument `about`. If the argument is "", the table has
    all measures except the measures with `about` "detail". Empty columns and rows are left out.
    """
    wanted = [name for name, m in measures.items() if (m.about == about if about else m.about != "detail")]
    frame = pd.DataFrame.from_dict(table, orient="index", dtype=object).reindex(columns=wanted)
    frame = frame.dropna(axis="columns", how="all").dropna(axis="index", how="all")
    lines = [
        Line(
            str(name),
            remarks.get(str(name), ""),
            [cell(_value(value), measures[str(key)].format) for key, value in values.items()],
            marked=name == student,
        )
        for name, values in frame.iterrows()
    ]
    return View(corner, [measures[name].title for name in frame.columns], lines)


def _value(value: Value) -> Value:
    """Convert the value of a data frame's cell: NaN, which pandas writes for a missing value, becomes None."""
    return None if isinstance(value, float) and pd.isna(value) else value
