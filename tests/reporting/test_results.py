"""How measured values are printed, and that results are the same after writing and reading."""

from __future__ import annotations

import json
import math

import pytest
from support.reading import training_of
from test_report import TOY

from synthgen.cards import markdown_table
from synthgen.errors import CorpusError
from synthgen.results.curve import Curve, Point, read_curve
from synthgen.results.evaluation import read_evaluation
from synthgen.results.export import Export, ExportedFile, Gate, read_export
from synthgen.results.measures import FORMATS, Interval, Measure, Quantiles, columns, frame, shown
from synthgen.results.training import read_training


@pytest.mark.parametrize(
    ("value", "format", "text"),
    [
        (0.12345, "number", "0.123"),
        (-1e-9, "number", "0.000"),
        (0.567, "percent", "56.7%"),
        (0.99999, "fine_percent", "100.00%"),
        (1234567.0, "count", "1,234,567"),
        (0.000012, "significant", "1.2e-05"),
        (1240.6, "rate", "1,241"),
        (12.34, "rate", "12.3"),
        (25_000.0, "megabytes", "0.03"),
        (432_100_000.0, "megabytes", "432"),
        (134_500_000, "millions", "134.50"),
        (Interval(0.5, 0.25, 0.75), "percent", "50.0% [25.0, 75.0]"),
        (Quantiles(1.5, 20.0), "milliseconds", "1.50 (p95 20)"),
        (None, "percent", "–"),
        (math.nan, "number", "nan"),
    ],
)
def test_values_are_written(value, format, text):
    assert shown(value, format) == text


def test_a_format_that_there_is_none_of_is_refused():
    with pytest.raises(ValueError, match="'per cent' is not a format of values; known formats: number"):
        Measure("x", "per cent")
    assert set(FORMATS) >= {"number", "percent"}


def test_columns_are_those_with_something_to_show():
    assert list(columns(TOY.measures, TOY.table.values())) == ["rhyme", "meter", "price"]
    assert list(columns(TOY.measures, TOY.table.values(), "quality")) == ["rhyme", "meter"]
    assert list(columns(TOY.measures, [TOY.table["apprentice"]])) == ["rhyme"]
    assert list(columns(TOY.measures, TOY.table.values(), "detail")) == ["secret"]


def test_a_frame_has_the_numbers():
    found = frame(TOY.table)
    assert found.loc["apprentice", ["rhyme", "rhyme_low", "rhyme_high", "secret"]].tolist() == [0.625, 0.5, 0.75, 4711]
    assert found.loc["poet", "price_p95"] == 34
    assert math.isnan(found.loc["apprentice", "meter"])


def test_a_markdown_table_is_one_whatever_is_in_it():
    text = markdown_table({"a|b": Measure("a|b")}, {"x|y": {"a|b": 1.0}}, {"x|y": "f"})
    assert text.splitlines() == ["|  | file | a\\|b |", "| --- | --- | --- |", "| x\\|y | `f` | 1.000 |"]


def test_results_come_back_as_they_were(tmp_path):
    curve = Curve("toy", "apprentice", "rhyme", TOY.measures, [Point(0.5, 10, 3, {"apprentice": {"rhyme": 0.5}})])
    export = Export(
        kind="toy",
        rows=3,
        unit="texts",
        measures={"same": Measure("same", "percent")},
        table={"student": {}, "small": {"same": 0.5}, "large": {"same": 1.0}},
        files={name: ExportedFile(f"{name}.bin", "abacus") for name in ("student", "small", "large")},
        usage="",
        gate=Gate("same", 0.75, "beads"),
    )
    for result, read in ((TOY, read_evaluation), (curve, read_curve), (export, read_export)):
        path = tmp_path / "result.json"
        path.write_text(json.dumps(result.to_dict()))
        assert read(path) == result
        assert result.text() == repr(result)
    assert export.below == {"small": 0.5}
    assert export.failure == "small (50.0%): an export needs at least 75.0% of beads"
    assert "small.bin" in export.text()


def test_a_result_that_is_not_a_number_does_not_pass():
    bad = Export(
        "toy", 1, "texts", {"same": Measure("same")}, {"x": {"same": math.nan}}, {}, "", Gate("same", 0.5, "x")
    )
    assert not bad.passed


def test_a_file_that_was_not_measured_does_not_pass():
    table = {"student": {}, "measured": {"same": 0.9}, "forgotten": {"size": 3.0}}
    export = Export("toy", 1, "texts", {"same": Measure("same")}, table, {}, "", Gate("same", 0.5, "x"))
    assert export.below == {"forgotten": None}
    assert export.failure.startswith("forgotten (–): ")


@pytest.mark.parametrize("damage", ["{", "[]", '{"kind": "toy"}', "null"])
def test_a_file_that_is_no_result_is_one_line(tmp_path, damage):
    path = tmp_path / "evaluation.json"
    path.write_text(damage)
    with pytest.raises(CorpusError, match=r"evaluation\.json (is|was)") as caught:
        read_evaluation(path)
    assert "\n" not in caught.value.message
    assert "distill eval" in caught.value.hint


def test_training_is_read_back_as_it_was_written(tmp_path):
    path = tmp_path / "training.json"
    made = training_of("sentence") | {"rows_kept": 2, "learned_from": "books", "loss_unit": "mse distance"}
    path.write_text(json.dumps(made))
    found = read_training(path)
    assert (found.kind, found.rows_kept, found.learned_from, found.loss_unit) == (
        "sentence",
        2,
        "books",
        "mse distance",
    )
    assert found.to_dict() == made
    for damaged in (made | {"rows": "many"}, {key: made[key] for key in made if key != "steps"}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(CorpusError, match=r"training\.json was") as caught:
            read_training(path)
        assert "distill train" in caught.value.hint
