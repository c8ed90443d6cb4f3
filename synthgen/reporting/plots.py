"""The plots of the page, as inline SVG by matplotlib. Each takes what `report` gathered and gives a figure."""

from __future__ import annotations

import io
from typing import Any

from synthgen.errors import missing_extra

try:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure
except ModuleNotFoundError:
    raise missing_extra("matplotlib", "report") from None

_INK, _SOFT, _GRID = "#334155", "#64748b", "#e2e8f0"
_MAIN, _OTHER, _DROP = "#0f766e", "#b45309", "#be4b49"
_STYLE = {
    "font.size": 10,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "synthgen",
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


def figures(page: dict[str, Any]) -> dict[str, Figure]:
    """Every figure that the run has data for, by name."""
    found = {}
    with matplotlib.rc_context(_STYLE):
        evaluation, training = page["evaluation"], page["training"]
        if evaluation and evaluation["kind"] in ("decoder", "seq2seq"):
            found["kl"] = _dots(evaluation["table"], "kl", "KL(teacher ‖ model), nats a token (log scale)", log=True)
        if evaluation and evaluation["kind"] in ("classifier", "encoder"):
            found["agreement"] = _dots(
                evaluation["table"], "agreement", "share of held-out texts, same label as the teacher"
            )
            found["confusion"] = _confusion(evaluation["confusion"], evaluation["labels"])
        if evaluation and evaluation["kind"] == "sentence":
            found["spearman"] = _dots(evaluation["table"], "spearman", "Spearman's ρ with the teacher, held-out pairs")
        if training:
            found["loss"] = _losses(training)
        if page["curve"]:
            found["curve"] = _curve(page["curve"])
        if page["curated"] and page["curated"]["rejected_by"]:
            found["rejected"] = _bars(page["curated"]["rejected_by"])
        drawn = any(page["lengths"].values())
        if drawn and (page["training"] is None or page["training"]["kind"] in ("decoder", "seq2seq")):
            found["lengths"] = _lengths(page["lengths"])
    return found


def svg(figure: Figure) -> str:
    """The figure as an <svg> element that scales with the page."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _axes(height: float, width: float = 6.4) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _dots(table: dict[str, Any], key: str, label: str, log: bool = False) -> Figure:
    """One line a model: its mean and 95% interval."""
    rows = [(name, row[key]) for name, row in table.items() if row.get(key) and not (log and row[key]["mean"] <= 0)]
    figure, axes = _axes(0.7 + 0.36 * len(rows))
    for place, (name, value) in enumerate(reversed(rows)):
        color = _MAIN if name == "distilled" else _SOFT
        axes.plot([value["low"], value["high"]], [place, place], color=color, linewidth=2.5, solid_capstyle="round")
        axes.plot([value["mean"]], [place], "o", color=color, markersize=7)
        axes.annotate(
            f"{value['mean']:.2f}", (value["high"], place), (6, 0), textcoords="offset points", va="center", color=_INK
        )
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    if log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12)
    axes.set_xlabel(label)
    axes.grid(axis="y", visible=False)
    return figure


def _losses(training: dict[str, Any]) -> Figure:
    """Loss by step, both students."""
    figure, axes = _axes(2.8)
    for arm, color in (("distilled", _MAIN), ("cross-entropy", _OTHER)):
        points = training["metrics"].get(arm)
        if points:
            axes.plot(
                [p["step"] + 1 for p in points], [p["loss"] for p in points], color=color, label=arm, linewidth=1.6
            )
    axes.set_xlabel("optimizer step")
    units = {"decoder": ", nats a token", "seq2seq": ", nats a token", "sentence": f" ({training.get('distance')})"}
    axes.set_ylabel(f"training loss{units.get(training['kind'], ', nats')}")
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


_CURVE = {
    "decoder": ("kl", "KL(teacher ‖ student), nats a token"),
    "seq2seq": ("kl", "KL(teacher ‖ student), nats a token"),
    "sentence": ("spearman", "Spearman's ρ with the teacher"),
    "classifier": ("agreement", "same label as the teacher"),
    "encoder": ("agreement", "same label as the teacher"),
}


def _curve(curve: dict[str, Any]) -> Figure:
    """The measure that matters by rows trained on, with its interval."""
    key, label = _CURVE[curve["kind"]]
    figure, axes = _axes(2.8)
    for arm, color in (("distilled", _MAIN), ("cross-entropy", _OTHER)):
        points = [(p["rows"], p["table"][arm][key]) for p in curve["points"] if key in p["table"].get(arm, {})]
        if points:
            rows, values = zip(*points, strict=True)
            axes.plot(rows, [v["mean"] for v in values], "o-", color=color, label=arm, linewidth=1.6)
            axes.fill_between(rows, [v["low"] for v in values], [v["high"] for v in values], color=color, alpha=0.15)
    axes.set_xscale("log")
    ticks = [p["rows"] for p in curve["points"]]
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.minorticks_off()
    axes.set_xlabel("rows trained on")
    axes.set_ylabel(label)
    axes.legend()
    return figure


def _bars(counts: dict[str, int]) -> Figure:
    """Rows a check rejected."""
    items = sorted(counts.items(), key=lambda item: item[1])
    figure, axes = _axes(0.7 + 0.34 * len(items))
    bars = axes.barh([name for name, _ in items], [count for _, count in items], color=_DROP, height=0.62)
    axes.bar_label(bars, padding=4, color=_INK, fmt="{:,.0f}")
    axes.margins(x=0.12)
    axes.set_xlabel("rows rejected (a row can fail several checks)")
    axes.grid(axis="y", visible=False)
    return figure


def _lengths(lengths: dict[str, dict[int, int]]) -> Figure:
    """Completion tokens, kept and rejected."""
    figure, axes = _axes(2.6)
    top = max([1, *lengths["kept"], *lengths["rejected"]])
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


def _confusion(counts: list[list[int]], labels: list[str]) -> Figure:
    """Teacher's label by student's label."""
    figure, axes = _axes(3.4, 4.6)
    axes.imshow(counts, cmap="GnBu", vmin=0)
    top = max(max(row) for row in counts) or 1
    for y, row in enumerate(counts):
        for x, count in enumerate(row):
            axes.text(x, y, str(count), ha="center", va="center", color="white" if count > 0.6 * top else _INK)
    axes.set_xticks(range(len(labels)), labels, rotation=20)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("student says")
    axes.set_ylabel("teacher says")
    axes.grid(visible=False)
    return figure
