"""A kind of student that a user adds is evaluated and shown on card and page, without a change of the package."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.reading import training_of
from test_report import page_of

import distill
import synthgen
from distill.evaluation.subject import Subject
from synthgen.errors import CorpusError, UserError
from synthgen.results.evaluation import Evaluation, Sample
from synthgen.results.measures import Figure, Interval, Measure
from synthgen.tables.students import KINDS


def listen(subject: Subject) -> Evaluation:
    """Counts the letters of the held-out texts, and claims that a parrot repeats half of them."""
    texts = [row.text for row in subject.held_out()]
    return Evaluation(
        kind="",
        rows=len(texts),
        unit="calls",
        headline=f"The parrot heard {len(texts)} calls.",
        measures={"repeated": Measure("calls repeated", "percent", False, caption="What it repeats.")},
        table={"teacher": {"repeated": 1.0}, "parrot": {"repeated": Interval(0.5, 0.25, 0.75)}},
        notes=["In a quiet room."],
        student="parrot",
        figures=[Figure("letters heard", sum(map(len, texts)), "count")],
        samples=[Sample(texts[0], {"parrot": texts[0].upper()})],
    )


PARROT = replace(KINDS["classifier"], evaluate=listen, library_name="feathers", how_to_run="feed it", loss_unit="seeds")


@pytest.fixture
def run(finished, tmp_path, monkeypatch) -> Path:
    """A run with a parrot as student."""
    run = shutil.copytree(finished.run, tmp_path / "run")
    (run / "student" / "evaluation.json").unlink()
    training = json.loads((run / "student" / "training.json").read_text())
    facts = training_of("parrot") | {
        "student": "a parrot",
        "steps": 7,
        "rows": 5,
        "curated_sha256": training["curated_sha256"],
    }
    facts |= {key: getattr(PARROT, key) for key in ("library_name", "how_to_run", "loss_unit", "loss_note")}
    facts["metrics"] = {"parrot": [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}]}
    (run / "student" / "training.json").write_text(json.dumps(facts))
    monkeypatch.setitem(KINDS, "parrot", PARROT)
    return run


def test_a_kind_from_outside_works_from_end_to_end(run, finished):
    recipe = synthgen.load_recipe(finished.recipe)
    found = distill.evaluate(recipe, run)
    assert found.kind == "parrot"
    assert found.rows > 0
    assert synthgen.open(run).evaluation == found
    assert distill.evaluate(recipe, run) == found, "nothing to do"
    path = run / "student" / "evaluation.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "statement"})
    )
    assert distill.evaluate(recipe, run) == found, "an evaluation without a statement is of an older version"
    assert found.statement.not_measured["accuracy"] == "the evaluation of this kind of student does not measure it"
    assert "The parrot heard" in found.text()
    assert "50.0% [25.0, 75.0]" in found.text()
    card = (run / "student" / "README.md").read_text()
    for words in (
        "library_name: feathers",
        "feed it",
        "trained 7 steps on 5 rows",
        "In a quiet room.",
        "The parrot heard",
    ):
        assert words in card, words
    assert "| parrot | 50.0% [25.0, 75.0] |" in card
    page, html = page_of(run)
    for words in ("The parrot heard", "letters heard", "calls repeated", "What it repeats.", "training loss, seeds"):
        assert words in page.text, words
    assert found.samples[0].texts["parrot"] in page.text
    assert '<tr class="us"><td>parrot' in html


def test_kinds_that_cannot_be_evaluated_are_named_in_one_line(run, finished, monkeypatch):
    recipe = synthgen.load_recipe(finished.recipe)
    monkeypatch.setitem(KINDS, "parrot", replace(PARROT, evaluate=None))
    with pytest.raises(UserError, match="students of kind 'parrot' have no evaluation"):
        distill.evaluate(recipe, run)
    monkeypatch.delitem(KINDS, "parrot")
    with pytest.raises(CorpusError, match="there is no kind of student 'parrot'"):
        distill.evaluate(recipe, run)
    assert not (run / "student" / "evaluation.json").exists()
