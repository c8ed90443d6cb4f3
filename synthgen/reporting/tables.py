"""Tables of the page: the columns and rows that have content, and the text of each value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from synthgen.results.evaluation import Evaluation
from synthgen.results.export import Export
from synthgen.results.measures import Cell, Measure, Table, Value, cell, shown


@dataclass(frozen=True)
class Line:
    """One row: its name, a remark below the name, and its cells. The student's own row is marked."""

    name: str
    remark: str
    cells: list[Cell]
    marked: bool = False


@dataclass(frozen=True)
class View:
    """A table in the form that the template shows. `corner` is the header of the column of names."""

    corner: str
    header: list[str]
    lines: list[Line]


def evaluation_tables(evaluation: Evaluation) -> list[View]:
    """The tables of quality and of cost of each model, when they have content."""
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
    """Each part of the held-out rows with a column for each measure and model; None when there are no parts."""
    if not evaluation.parts:
        return None
    wide = {
        part.name: {(model, name): value for model, row in part.table.items() for name, value in row.items()}
        for part in evaluation.parts
    }
    frame = pd.DataFrame.from_dict(wide, orient="index", dtype=object)
    header = ["rows", *(f"{model}: {evaluation.measures[name].title}" for model, name in frame.columns)]
    lines = []
    for part, (name, values) in zip(evaluation.parts, frame.iterrows(), strict=True):
        cells = [cell(_value(v), evaluation.measures[key].format) for (_, key), v in values.items()]
        lines.append(Line(str(name), "", [Cell(f"{part.rows:,}"), *cells]))
    return View("part of the held-out rows", header, lines)


def export_table(export: Export) -> View:
    """A row for each file of an export. A file that fails the gate is marked."""
    remarks = {name: f"{file.file}, {file.runtime}" for name, file in export.files.items()}
    remarks |= {name: f"{remarks[name]}; fails the gate" for name in export.below}
    return _view("file", export.measures, export.table, "", remarks, "")


def differences(evaluation: Evaluation) -> list[str]:
    """A sentence for each measure in which models were compared."""
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
    """The measures with this `about`, or all except details, without empty columns and rows."""
    wanted = [name for name, m in measures.items() if (m.about == about if about else m.about != "detail")]
    frame = pd.DataFrame.from_dict(table, orient="index", dtype=object).reindex(columns=wanted)
    frame = frame.dropna(axis="columns", how="all").dropna(axis="index", how="all")
    lines = [
        Line(
            str(name),
            remarks.get(str(name), ""),
            [cell(_value(value), measures[key].format) for key, value in values.items()],
            marked=name == student,
        )
        for name, values in frame.iterrows()
    ]
    return View(corner, [measures[name].title for name in frame.columns], lines)


def _value(value: Value) -> Value:
    """Convert a data frame's cell to a table value; pandas writes NaN for missing values."""
    return None if isinstance(value, float) and pd.isna(value) else value
