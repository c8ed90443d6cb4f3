"""The plots of the page as inline SVG, made with matplotlib."""

from __future__ import annotations

import html
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.errors import missing_extra
from synthgen.results.audit import Measurement
from synthgen.results.audit_text import is_ratio
from synthgen.results.curve import Curve
from synthgen.results.evaluation import Evaluation, Matrix
from synthgen.results.measures import Interval, Measure, Table, shown
from synthgen.results.training import Training

try:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure
except ModuleNotFoundError:
    raise missing_extra("matplotlib", "report") from None

_INK, _SOFT, _GRID = "#334155", "#64748b", "#e2e8f0"
_MAIN, _DROP = "#0f766e", "#be4b49"
_OTHERS = ("#b45309", "#6d28d9", "#0369a1", "#64748b")
_STYLE = {
    "font.size": 10,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "synthgen",
    "text.parse_math": False,  # a `$` in a label is a dollar, not the beginning of a formula
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Plot:
    """An <svg> element and its caption."""

    svg: str
    caption: str


def evaluation_plots(evaluation: Evaluation) -> list[Plot]:
    """A plot for each measure that has a caption, and a plot of the matrix if the evaluation has one."""
    plots = [
        _plot(_dots(evaluation.table, name, measure, evaluation.student), measure.caption)
        for name, measure in evaluation.plotted.items()
        if any(isinstance(row.get(name), Interval) for row in evaluation.table.values())
    ]
    if evaluation.matrix:
        plots.append(_plot(_heat(evaluation.matrix), evaluation.matrix.caption))
    return plots


def curve_plot(curve: Curve) -> Plot:
    """A plot of the main measure against the number of training rows."""
    caption = (
        "Effect of more training data: the same student, trained on growing shares of the training seeds for the same "
        "number of epochs. Points are means, and bands are 95% intervals."
    )
    with matplotlib.rc_context(_STYLE):
        return _plot(_curve(curve), caption)


def loss_plot(training: Training) -> Plot:
    """A plot of each trained model's loss against the optimizer step."""
    over = f"{training.tokens:,} completion tokens" if training.tokens is not None else f"{training.rows:,} rows"
    caption = f"Training: {training.steps:,} steps on {over}. {training.loss_note}".strip()
    with matplotlib.rc_context(_STYLE):
        return _plot(_losses(training), caption)


def rejected_plot(counts: Mapping[str, int]) -> Plot:
    """A plot of the number of rows that each check rejected."""
    caption = (
        "Why rows were rejected. A student may still learn the teacher's distribution from a row with a wrong answer, "
        "but not from a degenerate row."
    )
    with matplotlib.rc_context(_STYLE):
        return _plot(_bars(counts), caption)


def bias_plots(measurements: Sequence[Measurement]) -> list[Plot]:
    """A plot for each unit of the tests of bias: the effects with their intervals. The first `_MOST_TESTS` tests of a
    unit are drawn.
    """
    by_unit: dict[str, list[Measurement]] = {}
    for one in measurements:
        if one.estimate is not None and one.low is not None and one.high is not None:
            by_unit.setdefault(one.unit, []).append(one)
    plots = []
    for unit, tests in by_unit.items():
        left = len(tests) - _MOST_TESTS
        caption = (
            f"Effects with their 95% intervals. An interval that holds {1 if is_ratio(unit) else 0} fits with no "
            "effect. Effects inside the gray band are too small to matter."
            f"{f' Tests that are not drawn: {left}.' if left > 0 else ''}"
        )
        plots.append(_plot(_effects(tests[:_MOST_TESTS], unit), caption))
    return plots


def lengths_plot(lengths: Mapping[str, Counter[int]]) -> Plot:
    """A histogram of the completion lengths of kept and rejected rows, in tokens."""
    with matplotlib.rc_context(_STYLE):
        return _plot(_lengths(lengths), "Length of completions.")


def _plot(figure: Figure, caption: str) -> Plot:
    """Convert the figure to an <svg> element that scales with the page. Screen readers read the caption aloud."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    label = html.escape(caption, quote=True)
    return Plot(f'<svg role="img" aria-label="{label}"' + text[text.index("<svg") + len("<svg") :], caption)


def _axes(height: float, width: float = 6.4) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _colors(names: list[str], first: str) -> dict[str, str]:
    """A color for each model: the main color for the model `first`, and other colors for the other models."""
    others = [name for name in names if name != first]
    return {first: _MAIN, **{name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}}


def _dots(table: Table, key: str, measure: Measure, student: str) -> Figure:
    """Draw the mean and the 95% interval of each model on a line of its own."""
    found = {name: row.get(key) for name, row in table.items()}
    rows = [(name, value) for name, value in found.items() if isinstance(value, Interval)]
    if measure.log_scale:  # a log scale cannot show values that are zero except for rounding errors
        least = 1e-5 * max((value.mean for _, value in rows), default=0.0)
        rows = [(name, value) for name, value in rows if value.mean > least]
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(0.7 + 0.36 * len(rows))
        for place, (name, value) in enumerate(reversed(rows)):
            color = _MAIN if name == student else _SOFT
            axes.plot([value.low, value.high], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
            axes.plot([value.mean], [place], "o", color=color, markersize=7)
            text = shown(value.mean, measure.format)
            offset = {"textcoords": "offset points", "va": "center", "color": _INK}
            axes.annotate(text, (value.high, place), (6, 0), **offset)
        axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        _scale(axes, measure)
        axes.margins(x=0.14)
        axes.set_xlabel(f"{measure.title}{' (log scale)' if measure.log_scale else ''}")
        axes.grid(axis="y", visible=False)
    return figure


def _scale(axes: Any, measure: Measure) -> None:
    """Format the numbers on the axis for a measure."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if measure.log_scale:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif "percent" in measure.format:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))


def _losses(training: Training) -> Figure:
    """Draw the loss of every trained model against the step."""
    figure, axes = _axes(2.8)
    names = [name for name, points in training.metrics.items() if points]
    for name, color in _colors(names, next(iter(names), "")).items() if names else ():
        points = training.metrics[name]
        axes.plot([p["step"] + 1 for p in points], [p["loss"] for p in points], color=color, label=name, linewidth=1.6)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"training loss, {training.loss_unit}")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def _curve(curve: Curve) -> Figure:
    """Draw every trained model's mean and interval of the main measure against the number of training rows."""
    figure, axes = _axes(2.8)
    names = list(dict.fromkeys(name for point in curve.points for name in point.table))
    for name, color in _colors(names, curve.student).items():
        found = [(point.rows, point.table.get(name, {}).get(curve.measure)) for point in curve.points]
        points = [(rows, value) for rows, value in found if isinstance(value, Interval)]
        if points:
            rows, values = zip(*points, strict=True)
            axes.plot(rows, [v.mean for v in values], "o-", color=color, label=name, linewidth=1.6)
            axes.fill_between(rows, [v.low for v in values], [v.high for v in values], color=color, alpha=0.15)
    axes.set_xscale("log")
    ticks = [point.rows for point in curve.points]
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel("rows trained on")
    axes.set_ylabel(curve.measures[curve.measure].title)
    axes.legend()
    return figure


def _bars(counts: Mapping[str, int]) -> Figure:
    """Draw a bar for each check: the number of rows that it rejected."""
    items = sorted(counts.items(), key=lambda item: item[1])
    figure, axes = _axes(0.7 + 0.34 * len(items))
    bars = axes.barh([name for name, _ in items], [count for _, count in items], color=_DROP, height=0.62)
    axes.bar_label(bars, padding=4, color=_INK, fmt="{:,.0f}")
    axes.margins(x=0.12)
    axes.set_xlabel("rows rejected (a row can fail several checks)")
    axes.grid(axis="y", visible=False)
    return figure


def _lengths(lengths: Mapping[str, Counter[int]]) -> Figure:
    """Draw a histogram of the number of completion tokens, in 24 bins."""
    figure, axes = _axes(2.6)
    top = max([1, *(length for side in lengths.values() for length in side)])
    bins = [top * i / 24 for i in range(25)]
    sides = [(side, color) for side, color in (("kept", _MAIN), ("rejected", _DROP)) if lengths[side]]
    axes.hist(
        [list(lengths[side]) for side, _ in sides],
        weights=[list(lengths[side].values()) for side, _ in sides],
        bins=bins,
        stacked=True,
        color=[color for _, color in sides],
        label=[side for side, _ in sides],
    )
    axes.set_xlabel("tokens in the completion")
    axes.set_ylabel("rows")
    axes.legend()
    return figure


_MOST_TESTS = 16  # maximum number of tests of bias in a plot
_LABEL = 34  # maximum number of characters of a test's label


def _effects(tests: Sequence[Measurement], unit: str) -> Figure:
    """Draw the effect and the interval of each test of bias on a separate line, and the test's margin as a band."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(0.8 + 0.3 * len(tests), width=4.4)
        for place, one in enumerate(reversed(tests)):
            color = {"found": _DROP, "absent": _MAIN}.get(one.outcome, _SOFT)
            if one.margin is not None:
                axes.barh(place, 2 * one.margin, left=-one.margin, height=0.8, color=_GRID, zorder=0)
            axes.plot([one.low, one.high], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
            axes.plot([one.estimate], [place], "o", color=color, markersize=7)
        axes.axvline(0, color=_INK, linewidth=0.8)
        labels = [f"{one.subject} ({one.outcome})" for one in reversed(tests)]
        axes.set_yticks(range(len(tests)), [_short(label) for label in labels])
        axes.set_ylim(-0.6, len(tests) - 0.4)
        axes.set_xlabel(unit.removeprefix("log2 of the ") or "effect")
        if is_ratio(unit):  # people read "2 times" more easily than a logarithm
            axes.xaxis.set_major_formatter(lambda value, place: f"{2.0**value:.2g}×")
            axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="y", visible=False)
    return figure


def _short(label: str) -> str:
    """The label; "…" replaces the middle of a long label."""
    half = _LABEL // 2 - 1
    return label if len(label) <= _LABEL else f"{label[:half]}…{label[-half:]}"


_NUMBERS = 16  # maximum number of labels of a matrix in which the counts are printed


def _heat(matrix: Matrix) -> Figure:
    """Draw the counts of a matrix as shades. The counts are also printed as numbers if there are few labels."""
    size = len(matrix.labels)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _axes(max(3.4, min(9.0, 0.55 * size)), max(4.6, min(11.0, 0.7 * size)))
        # pcolormesh draws squares into the SVG; imshow would need an image file
        edges = [place - 0.5 for place in range(size + 1)]
        axes.pcolormesh(edges, edges, matrix.counts, cmap="GnBu", vmin=0, edgecolors="white", linewidth=0.8)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        top = max(max(row) for row in matrix.counts) or 1
        for y, row in enumerate(matrix.counts if size <= _NUMBERS else ()):
            for x, count in enumerate(row):
                axes.text(x, y, str(count), ha="center", va="center", color="white" if count > 0.6 * top else _INK)
        axes.set_xticks(range(size), matrix.labels, rotation=20 if size <= 6 else 90)
        axes.set_yticks(range(size), matrix.labels)
        axes.set_xlabel(matrix.columns_title)
        axes.set_ylabel(matrix.rows_title)
        axes.grid(visible=False)
    return figure
