"""The audit says that student and teacher come from the same model, or that this is not known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.corpora import corpus_of, curating, row

import synthgen
from distill.card import write_model_card
from synthgen import corpus
from synthgen.auditing.inheritance import ancestors, audit_inheritance, compared
from synthgen.auditing.result import Subject
from synthgen.lineage import begins_with, student_sources
from synthgen.manifest import make
from synthgen.recipe import AuditSection, Recipe
from synthgen.reporting.page import report as write_report
from synthgen.results.training import Training

RISK = "hidden traits of the teacher can pass to the student"


def recipe_with(teacher: str, **train) -> Recipe:
    values = curating(duplicates=False).model_dump(exclude={"teacher", "logits"})
    entry = {"engine": "transformers", "model": teacher, "license": "MIT"}
    return Recipe.model_validate({**values, "teacher": entry, **({"train": train} if train else {})})


def notes(recipe: Recipe, *generators: str) -> tuple[str, ...]:
    from synthgen.auditing import NO_FACTS

    facts = {**NO_FACTS, "sources": [{"role": "generator", "source": one, "license": "MIT"} for one in generators]}
    manifest = make("curated", facts, {})
    subject = Subject(Path("x"), manifest, None, tuple(student_sources(recipe)), begins_with=begins_with(recipe))
    result = audit_inheritance(subject, AuditSection())
    assert result.status == "ALLOW"
    return result.notes


def model(folder: Path, card: str = "", adapter: object = None) -> str:
    folder.mkdir()
    if card:
        (folder / "README.md").write_text(card)
    if adapter is not None:
        (folder / "adapter_config.json").write_text(adapter if isinstance(adapter, str) else json.dumps(adapter))
    return str(folder)


@pytest.mark.parametrize(
    "student",
    [{"kind": "decoder", "layers": 2}, {"kind": "decoder", "model": "org/a"}, {"kind": "seq2seq", "model": "org/a"}],
)
def test_a_student_with_the_teachers_weights_shares_its_model(student):
    [note] = notes(recipe_with("org/a", student=student, kd_weight=0), "org/a")
    assert "the teacher org/a is that model" in note
    assert RISK in note
    assert "train.mask_divergence" in note


def test_random_weights_share_nothing_and_no_student_has_no_note():
    student = {"kind": "decoder", "config": {"num_hidden_layers": 1}}
    [note] = notes(recipe_with("org/a", student=student), "org/a")
    assert "random weights" in note
    assert RISK not in note
    assert notes(recipe_with("org/a"), "org/a") == ()


def test_hub_ids_of_two_names_are_not_known():
    student = {"kind": "decoder", "model": "org/b"}
    [note] = notes(recipe_with("org/a", student=student, kd_weight=0), "org/a")
    assert note.startswith("it is not known whether org/b")
    assert "what org/b and org/a were made from" in note


def test_rows_without_a_named_teacher_are_not_known():
    student = {"kind": "decoder", "model": "org/b"}
    [note] = notes(recipe_with("org/a", student=student, kd_weight=0))
    assert "not known which models wrote the rows" in note


def test_every_teacher_is_compared_and_a_live_teacher_too():
    student = {"kind": "decoder", "model": "org/b"}
    found = notes(recipe_with("org/a", student=student, online={}), "org/b", "org/c")
    assert [("is that model" in one, "not known" in one) for one in found] == [
        (True, False),
        (False, True),
        (False, True),
    ]
    assert "org/a" in found[2]


def test_a_mutual_teacher_is_not_the_students_own_weights():
    """In mutual learning, the trained teacher is also a source, but the student does not begin with its weights."""
    student = {"kind": "decoder", "config": {"num_hidden_layers": 1}}
    assert begins_with(recipe_with("org/a", student=student, online={"mode": "mutual"})) == ()


def test_models_that_were_made_from_the_same_model_share_it(tmp_path):
    tuned = model(tmp_path / "tuned", "---\nbase_model: org/base\n---\n# A model\n")
    adapted = model(tmp_path / "adapted", adapter={"base_model_name_or_path": tuned})
    merged = model(tmp_path / "merged", "---\nbase_model:\n- org/x\n- org/base\n---\n")
    assert ancestors(adapted) == [adapted, tuned, "org/base"]
    assert ancestors(merged) == [merged, "org/x", "org/base"]
    assert f"the teacher {merged} comes from org/base too" in compared(adapted, merged)
    assert RISK in compared(adapted, merged)
    assert compared("org/base", tuned).count("too") == 1
    assert "it is not known" in compared(adapted, "org/y")


@pytest.mark.parametrize(
    ("card", "adapter"),
    [("---\n: [\n---\n", None), ("no head", None), ("---\nbase_model: 3\n---\n", None), ("", "{"), ("", [1])],
)
def test_damaged_files_say_nothing(tmp_path, card, adapter):
    folder = model(tmp_path / "one", card, adapter)
    assert ancestors(folder) == [folder]
    assert "it is not known" in compared(folder, "org/a")


def test_models_that_name_each_other_end(tmp_path):
    other = tmp_path / "b"
    one = model(tmp_path / "a", f"---\nbase_model: {other}\n---\n")
    two = model(other, f"---\nbase_model: {one}\n---\n")
    assert ancestors(one) == [one, two]


def test_the_report_the_cards_and_the_page_show_the_note(tmp_path):
    nothing = {"terms_date": None, "made_by": None, "account": None, "tools": []}
    source = {"id": "org/a", "role": "generator", "license": "MIT", **nothing}
    run = corpus_of(tmp_path, [row("a", 0, sources=[source])])
    facts = corpus.manifest(run / "generated")
    facts["sources"] = [{"role": "generator", "source": "org/a", "license": "MIT"}]
    (run / "generated" / "manifest.json").write_text(json.dumps(facts))
    synthgen.curate(curating(), run)
    recipe = recipe_with("org/a", student={"kind": "decoder", "layers": 2})
    report = synthgen.audit(recipe, run)
    assert any(RISK in note for note in report.notes)
    stored = json.loads((run / "audit" / "report.json").read_text())
    assert RISK in stored["audits"]["inheritance"]["notes"][0]
    training = Training(student="", learns_by="", learned_from="", steps=1, rows=1, metrics={})
    manifest = corpus.manifest(run / "curated")
    write_model_card(tmp_path / "student", recipe, manifest, training, source=run / "curated")
    write_report(run)
    places = (tmp_path / "student" / "README.md", run / "curated" / "README.md", run / "report.html")
    for place in places:
        text = place.read_text()
        assert "Hidden traits" in text, place
        assert RISK in text, place
