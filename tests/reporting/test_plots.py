"""Each plot of the page shows the values that it is made from, in the right place, and all of them are inside."""

from __future__ import annotations

from collections import Counter
from typing import Any

import matplotlib
import pytest
from matplotlib.colors import to_rgba
from support.audits import BIASED

from synthgen.reporting import plots
from synthgen.results.audit import Measurement
from synthgen.results.curve import Curve, Point
from synthgen.results.evaluation import Evaluation, Matrix
from synthgen.results.measures import Interval, Measure
from synthgen.results.training import Training

RATES = {
    "teacher": {"rate": Interval(0.9, 0.8, 0.97)},
    "distilled": {"rate": Interval(0.5, 0.4, 0.7)},
    "unknown": {"rate": None},
    "base": {"rate": Interval(0.2, 0.1, 0.25)},
}
RATE = Measure("right answers", "percent", caption="What is right.")


def drawn(figure: Any) -> Any:
    """The axes of a figure, after matplotlib has placed everything."""
    figure.canvas.draw()
    return figure.axes[0]


def styled(draw: Any, *values: Any) -> Any:
    with matplotlib.rc_context(plots._STYLE):
        return drawn(draw(*values))


def places(axes: Any) -> dict[str, float]:
    """The height of each label of the vertical axis. The labels are in order from the top to the bottom."""
    top_first = sorted(
        axes.get_yticklabels(), key=lambda label: axes.transData.transform((0, label.get_position()[1]))[1]
    )
    return {label.get_text(): label.get_position()[1] for label in reversed(top_first)}


def dots(axes: Any) -> list[tuple[list[float], list[float], str]]:
    """(x, y, color) of the lines that have markers."""
    return [
        (list(one.get_xdata()), list(one.get_ydata()), one.get_color()) for one in axes.lines if one.get_marker() == "o"
    ]


def bars(axes: Any) -> list[tuple[list[float], list[float], str]]:
    """(x, y, color) of the lines without markers, except the lines across the whole plot."""
    every = [one for one in axes.lines if one.get_marker() != "o" and len(set(one.get_xdata())) > 1]
    return [(list(one.get_xdata()), list(one.get_ydata()), one.get_color()) for one in every]


def has_grid(axis: Any) -> bool:
    return any(line.get_visible() for line in axis.get_gridlines())


def check_inside(axes: Any, heights: list[float]) -> None:
    """Nothing is cut off at the top or the bottom, and the space above is as large as the space below."""
    low, high = sorted(axes.get_ylim())
    assert 0.5 <= min(heights) - low == pytest.approx(high - max(heights))
    assert high - max(heights) < 1


def test_each_model_has_its_mean_and_its_interval_beside_its_name():
    axes = drawn(plots._dots(RATES, "rate", RATE, "distilled"))
    names = places(axes)
    assert list(names) == ["teacher", "distilled", "base"]
    found = {y: (x, color) for [x], [y], color in dots(axes)}
    lines = {y[0]: (x, y[1], color) for x, y, color in bars(axes)}
    for name, height in names.items():
        value = RATES[name]["rate"]
        assert found[height][0] == value.mean
        assert lines[height][:2] == ([value.low, value.high], height)
        assert (found[height][1] == plots._MAIN) is (lines[height][2] == plots._MAIN) is (name == "distilled")
    assert {text.xy: text.get_text() for text in axes.texts} == {
        (0.97, names["teacher"]): "90.0%",
        (0.7, names["distilled"]): "50.0%",
        (0.25, names["base"]): "20.0%",
    }
    assert (axes.get_xlim()[0] < 0.1, axes.get_xlim()[1] > 0.97) == (True, True)
    assert (has_grid(axes.xaxis), has_grid(axes.yaxis)) == (True, False)
    assert axes.xaxis.get_major_formatter()(0.3, 0) == "30%"
    check_inside(axes, list(names.values()))


def test_a_log_scale_leaves_out_what_it_cannot_show():
    table = {
        "a": {"kl": Interval(2.0, 1.0, 3.0)},
        "b": {"kl": Interval(1e-5, 0.0, 2e-5)},
        "c": {"kl": Interval(3e-5, 2e-5, 4e-5)},
    }
    axes = drawn(plots._dots(table, "kl", Measure("KL", caption="c", log_scale=True), "a"))
    assert list(places(axes)) == ["a", "c"], "a hundred-thousandth of the largest value is zero except for rounding"
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "KL (log scale)")
    assert axes.xaxis.get_major_formatter()(0.02, 0) == "0.02"


def test_a_measure_is_plotted_if_it_has_a_caption_and_an_interval():
    measures = {"rate": RATE, "none": Measure("x", caption="Never measured."), "plain": Measure("no caption")}
    table = {name: {**row, "none": 1.0, "plain": Interval(1, 0, 2)} for name, row in RATES.items()}
    matrix = Matrix(["a", "b"], [[1, 2], [3, 4]], caption="Who chose what.")
    evaluation = Evaluation("toy", 3, "rows", "", measures, table, matrix=matrix)
    assert [one.caption for one in plots.evaluation_plots(evaluation)] == ["What is right.", "Who chose what."]


def test_a_matrix_has_its_counts_in_its_cells():
    counts = [[9, 0, 2], [1, 5, 6], [3, 0, 7]]
    axes = drawn(plots._heat(Matrix(["a", "b", "c"], counts, "given", "said")))
    (mesh,) = axes.collections
    assert mesh.get_array().tolist() == counts
    assert mesh.get_coordinates()[:, :, 0].tolist() == [[-0.5, 0.5, 1.5, 2.5]] * 4
    assert axes.yaxis_inverted(), "the first row is at the top"
    texts = {one.get_position(): (int(one.get_text()), one.get_color()) for one in axes.texts}
    assert {place: count for place, (count, _) in texts.items()} == {
        (x, y): counts[y][x] for x in range(3) for y in range(3)
    }
    assert {count for count, color in texts.values() if color == "white"} == {6, 7, 9}, "on dark cells"
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [(one.get_text(), max(one.get_position())) for one in labels] == [("a", 0), ("b", 1), ("c", 2)]
    assert (axes.get_xlabel(), axes.get_ylabel(), has_grid(axes.xaxis)) == ("said", "given", False)


@pytest.mark.parametrize(("size", "numbers", "rotation"), [(6, 36, 20), (7, 49, 90), (16, 256, 90), (17, 0, 90)])
def test_a_large_matrix_has_shades_without_numbers(size, numbers, rotation):
    axes = plots._heat(Matrix([f"label {n}" for n in range(size)], [[0] * size] * size)).axes[0]
    assert len(axes.texts) == numbers
    assert {one.get_rotation() for one in axes.get_xticklabels()} == {rotation}


def measured(**values: Any) -> Measurement:
    return Measurement(**{**BIASED, "outcome": "found", **values})


def test_each_test_of_bias_has_its_effect_its_interval_and_its_margin():
    tests = [
        measured(subject="women"),
        measured(subject="men", outcome="absent", estimate=0.05, low=-0.1, high=0.18, margin=0.3),
        measured(
            subject="people who live in small towns",
            outcome="inconclusive",
            estimate=0.2,
            low=-0.3,
            high=0.7,
            margin=None,
        ),
    ]
    axes = drawn(plots._effects(tests, "log2 of the ratio"))
    heights = list(places(axes).values())
    assert list(places(axes)) == ["women (found)", "men (absent)", "people who live …s (inconclusive)"]
    assert all(len(name) <= 34 for name in places(axes))
    colors = [plots._DROP, plots._MAIN, plots._SOFT]
    expected = list(zip(tests, heights, colors, strict=True))
    assert sorted(dots(axes)) == sorted(([one.estimate], [y], color) for one, y, color in expected)
    assert sorted(bars(axes)) == sorted(([one.low, one.high], [y, y], color) for one, y, color in expected)
    bands = {round(one.get_y() + one.get_height() / 2, 6): (one.get_x(), one.get_width()) for one in axes.patches}
    assert bands == {heights[0]: (-0.2, 0.4), heights[1]: (-0.3, 0.6)}
    assert any(set(one.get_xdata()) == {0} for one in axes.lines), "a line where there is no effect"
    assert [axes.xaxis.get_major_formatter()(x, 0) for x in (-1, 0, 2)] == ["0.5×", "1×", "4×"]
    assert axes.get_xlabel() == "ratio"
    assert (has_grid(axes.xaxis), has_grid(axes.yaxis)) == (True, False)
    check_inside(axes, heights)


def test_tests_of_bias_are_drawn_by_unit_and_what_is_not_drawn_is_counted():
    tests = [measured(subject=f"group {n}") for n in range(17)]
    tests += [
        measured(subject="a", unit="share", estimate=0.0),
        *(measured(**{end: None}) for end in ("estimate", "low", "high")),
    ]
    ratios, shares = plots.bias_plots(tests)
    assert "An interval that holds 1 fits" in ratios.caption
    assert ratios.caption.endswith("Tests that are not drawn: 1.")
    assert ("group 15" in ratios.svg, "group 16" in ratios.svg) == (True, False)
    assert "An interval that holds 0 fits" in shares.caption
    assert "not drawn" not in shares.caption


def test_losses_begin_at_the_first_step_and_at_zero():
    metrics = {
        "distilled": [{"step": 0, "loss": 3.0}, {"step": 4, "loss": 1.5}],
        "other": [{"step": 0, "loss": 2.0}],
        "none": [],
    }
    training = Training(
        student="s",
        learns_by="l",
        learned_from="f",
        steps=5,
        rows=20,
        tokens=12345,
        kind="decoder",
        loss_unit="nats",
        metrics=metrics,
    )
    axes = styled(plots._losses, training)
    found = [(one.get_label(), list(one.get_xdata()), list(one.get_ydata())) for one in axes.lines]
    assert found == [("distilled", [1, 5], [3.0, 1.5]), ("other", [1], [2.0])]
    assert axes.lines[0].get_color() == plots._MAIN != axes.lines[1].get_color()
    assert axes.get_ylim()[0] == 0 < 3 < axes.get_ylim()[1]
    assert axes.get_ylabel() == "training loss, nats"
    assert "5 steps on 12,345 completion tokens" in plots.loss_plot(training).caption


def test_a_curve_has_a_point_and_a_band_for_each_number_of_rows():
    values = {10: Interval(0.3, 0.2, 0.5), 100: Interval(0.6, 0.5, 0.65), 1000: Interval(0.8, 0.78, 0.9)}
    points = [
        Point(n / 1000, n, n, {"distilled": {"rate": value}, "other": {"rate": 0.5}}) for n, value in values.items()
    ]
    axes = styled(plots._curve, Curve("toy", "distilled", "rate", {"rate": RATE}, points))
    assert [(x, y, color) for x, y, color in dots(axes)] == [([10, 100, 1000], [0.3, 0.6, 0.8], plots._MAIN)]
    (band,) = axes.collections
    corners = {tuple(corner) for corner in band.get_paths()[0].vertices.tolist()}
    assert corners >= {(n, end) for n, one in values.items() for end in (one.low, one.high)}
    assert band.get_alpha() < 0.5, "the band covers no line"
    assert [one.get_text() for one in axes.get_xticklabels()] == ["10", "100", "1,000"]
    assert (axes.get_xscale(), axes.get_ylabel()) == ("log", "right answers")


def test_colors_tell_models_apart():
    names = ["a", "b", "c", "d", "e", "f"]
    found = plots._colors(names, "b")
    assert found["b"] == plots._MAIN
    assert len({found[name] for name in names[:5]}) == 5
    assert found["a"] == found["f"], "there are four other colors"


def test_the_check_that_rejected_most_rows_is_at_the_top():
    axes = styled(plots._bars, {"echo": 3, "language": 1200, "broken": 40})
    names = places(axes)
    assert list(names) == ["language", "broken", "echo"]
    found = {round(one.get_y() + one.get_height() / 2): one.get_width() for one in axes.patches}
    assert {name: found[round(height)] for name, height in names.items()} == {"language": 1200, "broken": 40, "echo": 3}
    assert {one.get_text() for one in axes.texts} == {"1,200", "40", "3"}
    assert {one.get_facecolor() for one in axes.patches} == {to_rgba(plots._DROP)}
    assert (has_grid(axes.xaxis), has_grid(axes.yaxis)) == (True, False)


def test_the_histogram_counts_every_row_of_both_sides():
    kept, rejected = Counter({0: 2, 11: 5, 48: 3}), Counter({11: 4, 30: 1})
    axes = styled(plots._lengths, {"kept": kept, "rejected": rejected})
    for side, color in ((kept, plots._MAIN), (rejected, plots._DROP)):
        parts = [one for one in axes.patches if one.get_facecolor() == to_rgba(color) and one.get_height()]
        found = {(round(one.get_x(), 6), round(one.get_width(), 6)): one.get_height() for one in parts}
        assert found == {(min(2 * (length // 2), 46), 2): count for length, count in side.items()}
    assert max(one.get_y() + one.get_height() for one in axes.patches) == 9, "one side is on top of the other"
    assert [one.get_text() for one in axes.get_legend().get_texts()] == ["kept", "rejected"]
    alone = styled(plots._lengths, {"kept": kept, "rejected": Counter()})
    assert [one.get_text() for one in alone.get_legend().get_texts()] == ["kept"]
