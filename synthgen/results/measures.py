"""Classes for measured values and tables of them, and functions that format them.

    table = {"teacher": {"kl": Interval(0.0, 0.0, 0.0)}, "distilled": {"kl": Interval(0.41, 0.35, 0.48)}}
    measures = {"kl": Measure("KL to the teacher, nats a token", lower_is_better=True)}
    shown(table["distilled"]["kl"], measures["kl"].format)     # "0.410 [0.350, 0.480]"

A table has a row for each model. A row has a value for each measure. A `Measure` says how to show its values: the
title, the format, and whether there is a plot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Interval:
    """A mean and the two ends of its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Quantiles:
    """The median and the 95th percentile of repeated measurements."""

    p50: float
    p95: float


Value = float | Interval | Quantiles | None
"""The value of a measure for one model. None means that there is no value."""

Row = dict[str, Value]
Table = dict[str, Row]
"""Model -> measure -> value."""


@dataclass(frozen=True)
class Format:
    """How to format a number: `write` returns the number as text, and `unit` is appended to this text."""

    write: Callable[[float], str]
    unit: str = ""


def _rate(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.1f}"


FORMATS: dict[str, Format] = {
    "number": Format(lambda v: f"{v:z.3f}"),
    "significant": Format(lambda v: f"{v:.3g}"),
    "count": Format(lambda v: f"{v:,.0f}"),
    "rate": Format(_rate),
    "percent": Format(lambda v: f"{100 * v:z.1f}", "%"),
    "fine_percent": Format(lambda v: f"{100 * v:z.2f}", "%"),
    "milliseconds": Format(lambda v: f"{v:.2f}" if v < 10 else f"{v:.0f}"),
    "megabytes": Format(lambda v: f"{v / 1e6:.{2 if v < 1e7 else 1 if v < 1e8 else 0}f}"),
    "millions": Format(lambda v: f"{v / 1e6:,.2f}"),
}
"""The formats of numbers. `megabytes` takes a number of bytes, `millions` takes a count, and the percent formats take a
share from 0 to 1.
"""


@dataclass(frozen=True)
class Measure:
    """A column of a table.

    `title` is the header of the column, with the unit. `format` is a key of `FORMATS`. `caption` is the text below the
    plot of the measure; a measure without a caption is not plotted. `about` says whether the measure is in the table of
    quality or in the table of cost; a measure whose `about` is "detail" is only in the JSON file and in `frame`.
    """

    title: str
    format: str = "number"
    lower_is_better: bool | None = None
    about: Literal["quality", "cost", "detail"] = "quality"
    caption: str = ""
    log_scale: bool = False

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"'{self.format}' is not a format of values; known formats: {', '.join(FORMATS)}")


@dataclass(frozen=True)
class Figure:
    """One number with its label, for the key figures at the top of the page."""

    label: str
    value: float
    format: str = "number"

    def text(self) -> str:
        """The value as text."""
        return shown(self.value, self.format)


@dataclass(frozen=True)
class Cell:
    """One cell of a table. `main` is the value, and `detail` is its interval or its 95th percentile, if any."""

    main: str
    detail: str = ""


def cell(value: Value, format: str) -> Cell:
    """Format a value as a cell. A dash means that there is no value."""
    write, unit = FORMATS[format].write, FORMATS[format].unit
    if value is None:
        return Cell("–")
    if isinstance(value, Interval):
        return Cell(f"{write(value.mean)}{unit}", f"[{write(value.low)}, {write(value.high)}]")
    if isinstance(value, Quantiles):
        return Cell(f"{write(value.p50)}{unit}", f"p95 {write(value.p95)}{unit}")
    return Cell(f"{write(value)}{unit}")


def shown(value: Value, format: str) -> str:
    """Format a value on one line: '0.410 [0.350, 0.480]', '12 (p95 15)', '56.7%' or a dash."""
    found = cell(value, format)
    if isinstance(value, Quantiles):
        return f"{found.main} ({found.detail})"
    return f"{found.main} {found.detail}".strip()


def middle(value: Value) -> float | None:
    """The main number of a value: the mean of an interval, the median of quantiles, or the number itself."""
    if isinstance(value, Interval):
        return value.mean
    return value.p50 if isinstance(value, Quantiles) else value


def columns(
    measures: Mapping[str, Measure], rows: Iterable[Mapping[str, Value]], about: str | None = None
) -> dict[str, Measure]:
    """The measures for which at least one row has a value, in the order of `measures`. With `about`, only measures with
    this `about`. Without `about`, all measures are returned, except the measures with `about` "detail".
    """
    rows = list(rows)
    wanted = ("quality", "cost") if about is None else (about,)
    return {
        name: measure
        for name, measure in measures.items()
        if measure.about in wanted and any(row.get(name) is not None for row in rows)
    }


def frame(table: Mapping[str, Mapping[str, Value]]) -> pd.DataFrame:
    """The table as a data frame of numbers, with a row for each model and a column for each measure.

    For a measure NAME, the ends of intervals are in the columns `NAME_low` and `NAME_high`, and the 95th percentiles in
    `NAME_p95`. Missing values are NaN.
    """
    import pandas as pd

    rows = {}
    for model, values in table.items():
        row: dict[str, float | None] = {}
        for name, value in values.items():
            row[name] = middle(value)
            if isinstance(value, Interval):
                row |= {f"{name}_low": value.low, f"{name}_high": value.high}
            if isinstance(value, Quantiles):
                row[f"{name}_p95"] = value.p95
        rows[model] = row
    return pd.DataFrame.from_dict(rows, orient="index", dtype="float64")


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table as lines of text with aligned columns, for a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join(lines)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are computed: the number of resamples, the random seed, the unit that is resampled, and the
    confidence level.
    """

    resamples: int
    seed: int
    unit: str
    interval: float = field(default=0.95)

    def text(self) -> str:
        """One sentence that describes the intervals."""
        return (
            f"The {self.interval:.0%} intervals are from a paired bootstrap whose unit is the {self.unit}, with "
            f"{self.resamples:,} resamples and the random seed {self.seed}."
        )
