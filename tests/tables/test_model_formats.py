"""A model format that a user adds is exported, gated and shown on card and page, without a change of the package."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.places import REPOSITORY
from test_report import page_of

import distill
import distill.cli
from distill.exporting.job import Job
from distill.held_out import first_rows
from synthgen import durable
from synthgen.errors import UserError
from synthgen.results.export import Export, ExportedFile, Gate, read_export
from synthgen.results.measures import Measure, Quantiles
from synthgen.tables.formats import MODEL_FORMATS, ModelFormat
from synthgen.tables.students import KINDS

REFERENCE = "test_model_formats:carve"  # tests/tables is on sys.path, like the folder of a user's module


def carve(job: Job) -> Export:
    """Writes a student as text, and claims that half of it is legible."""
    rows = first_rows(job.source, "test")
    durable.write_text(job.out / "stone.txt", f"{job.kind} of {len(rows)} rows")
    return Export(
        kind=job.kind,
        rows=len(rows),
        unit="inscriptions",
        measures={
            "weight": Measure("weight, t", "number", True, "cost"),
            "legible": Measure("legible", "percent", False),
            "chisel_ms": Measure("one stroke, ms", "milliseconds", True, "cost"),
        },
        table={
            "student": {"weight": 0.001},
            "stone": {"weight": 2.5, "legible": 0.5, "chisel_ms": Quantiles(3.0, 9.0)},
        },
        files={"student": ExportedFile("model.safetensors", "torch"), "stone": ExportedFile("stone.txt", "eyes")},
        usage="Walk around it.",
        gate=Gate("legible", 0.4, "letters that can be read"),
        notes=["It rained."],
    )


STONE = ModelFormat("Stone", "masonry", {"decoder": REFERENCE}, files=(r"stone\.txt",), copies_config=True)


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "tables"))
    monkeypatch.setitem(MODEL_FORMATS, "stone", STONE)
    return shutil.copytree(finished.run, tmp_path / "run")


def test_a_format_from_outside_works_from_end_to_end(run):
    found = distill.export(run, "stone")
    folder = run / "student" / "stone"
    assert found.passed
    assert (folder / "stone.txt").read_text() == f"decoder of {found.rows} rows"
    assert (folder / "config.json").exists(), "copies_config"
    assert read_export(folder / "export.json") == read_export(run / "student" / "export-stone.json") == found
    card = (folder / "README.md").read_text()
    for words in ("library_name: masonry", "# Stone of a student", "Walk around it.", "It rained.", "CC0-1.0"):
        assert words in card, words
    assert "| stone | `stone.txt` | 2.500 | 50.0% | 3.00 (p95 9.00) |" in card
    assert "at least 40% of letters that can be read. This export passed" in card
    page, _ = page_of(run)
    for words in ("Stone", "held-out inscriptions", "legible", "stone.txt, eyes", "p95 9.00", "passed"):
        assert words in page.text, words
    before = (folder / "stone.txt").stat().st_mtime_ns
    assert distill.export(run, "stone") == found
    assert (folder / "stone.txt").stat().st_mtime_ns == before


def test_the_command_takes_it_and_its_gate_decides(run, monkeypatch):
    strict = lambda job: replace(carve(job), gate=Gate("legible", 0.75, "letters that can be read"))  # noqa: E731
    monkeypatch.setitem(MODEL_FORMATS, "stone", replace(STONE, writes={"decoder": strict}))
    done = CliRunner().invoke(distill.cli.main, ["export", str(run), "--to", "stone", "--json", "-q"])
    assert done.exit_code == 1, done.output
    assert "Error: stone (50.0%): an export needs at least 75.0% of letters that can be read" in done.stderr
    assert json.loads(done.stdout)["passed"] is False
    page, _ = page_of(run)
    assert "not passed by stone" in page.text


def test_a_kind_brings_its_own_writers(run, monkeypatch):
    """A kind of student that a user adds brings its own function for an existing format."""
    training = run / "student" / "training.json"
    training.write_text(json.dumps({**json.loads(training.read_text()), "kind": "toy"}))
    toy = replace(KINDS["classifier"], exports={"stone": carve}, not_exported="carve it by hand")
    monkeypatch.setitem(KINDS, "toy", toy)
    assert distill.export(run, "stone").kind == "toy"
    with pytest.raises(UserError, match="a student of kind 'toy', which cannot be exported to onnx") as caught:
        distill.export(run, "onnx")
    assert caught.value.hint == "export the student with --to stone"
    monkeypatch.setitem(KINDS, "toy", replace(toy, exports={}))
    with pytest.raises(UserError) as caught:
        distill.export(run, "onnx")
    assert caught.value.hint == "carve it by hand"


def test_a_package_that_is_missing_is_named_with_its_extra(run, monkeypatch):
    monkeypatch.setitem(MODEL_FORMATS, "stone", replace(STONE, packages=("hammer_and_chisel",), extra="masonry"))
    with pytest.raises(UserError, match="'hammer_and_chisel', which is not installed") as caught:
        distill.export(run, "stone")
    assert "synthgen-distill[masonry]" in caught.value.hint
