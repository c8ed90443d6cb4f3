"""Measured values and their format for people.

    table = {"teacher": {"kl": Interval(0.0, 0.0, 0.0)}, "distilled": {"kl": Interval(0.41, 0.35, 0.48)}}
    measures = {"kl": Measure("KL to the teacher, nats a token", lower_is_better=True)}
    shown(table["distilled"]["kl"], measures["kl"].format)     # "0.410 [0.350, 0.480]"

A table has a row for each model and a value for each measure. The `Measure` holds the title of a measure, the format of
its values and whether it is plotted. Code that shows a table needs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Interval:
    """A value and the two ends of its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Quantiles:
    """The median and the 95th percentile of repeated measurements."""

    p50: float
    p95: float


Value = float | Interval | Quantiles | None
"""None means not measured for this model."""

Row = dict[str, Value]
Table = dict[str, Row]
"""Model -> measure -> value."""


@dataclass(frozen=True)
class Format:
    """How to format a number: `write` gives the digits, and `unit` follows them."""

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
"""Number formats. The input of `megabytes` is bytes, of `millions` a count, and of the percent formats a share of 1."""


@dataclass(frozen=True)
class Measure:
    """A column of a table.

    `title` is the header of the column, with the unit. `format` is a key of `FORMATS`. `caption` is the text below its
    plot; a measure without a caption is not plotted. `about` puts a measure into the table of quality or of cost;
    details are only in the JSON file and in `frame`.
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
    """One number with its label, for the row of key figures at the top of the page."""

    label: str
    value: float
    format: str = "number"

    def text(self) -> str:
        """The value as text."""
        return shown(self.value, self.format)


@dataclass(frozen=True)
class Cell:
    """One cell of a table: `main` is the value, `detail` its interval or its 95th percentile."""

    main: str
    detail: str = ""


def cell(value: Value, format: str) -> Cell:
    """Format a value as the two parts of a cell. A dash means not measured."""
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
    """The value without its interval: a mean, a median, or the number itself."""
    if isinstance(value, Interval):
        return value.mean
    return value.p50 if isinstance(value, Quantiles) else value


def columns(
    measures: Mapping[str, Measure], rows: Iterable[Mapping[str, Value]], about: str | None = None
) -> dict[str, Measure]:
    """The measures for which at least one row has a value, in order. Either all except details, or those with this
    `about`.
    """
    rows = list(rows)
    wanted = ("quality", "cost") if about is None else (about,)
    return {
        name: measure
        for name, measure in measures.items()
        if measure.about in wanted and any(row.get(name) is not None for row in rows)
    }


def frame(table: Mapping[str, Mapping[str, Value]]) -> pd.DataFrame:
    """The table as numbers: a row for each model, a column for each measure.

    The ends of an interval are in `NAME_low` and `NAME_high`; the 95th percentile is in `NAME_p95`. Missing values are
    NaN.
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
    """Lines of text with aligned columns, for a terminal."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in [header, *rows]]
    return "\n".join(lines)


@dataclass(frozen=True)
class Bootstrap:
    """The method of the intervals: number of resamples, resampled unit, seed, and width."""

    resamples: int
    seed: int
    unit: str
    interval: float = field(default=0.95)

    def text(self) -> str:
        """One sentence that describes the intervals."""
        return (
            f"Intervals of {self.interval:.0%} are from a paired bootstrap over each {self.unit}, with "
            f"{self.resamples:,} resamples and seed {self.seed}."
        )
