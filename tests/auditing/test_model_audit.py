"""`synthgen audit` of a student and of other models, with the section `audit.models`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.small import small_encoder, small_teacher
from test_model_sets import bbq, block, winobias

from synthgen.auditing import intent_of
from synthgen.auditing.models.job import audit_models, open_model
from synthgen.auditing.result import Subject
from synthgen.cli import main
from synthgen.manifest import make
from synthgen.recipe import AuditSection, load_recipe
from synthgen.recipe.audit import ModelsSection


@pytest.fixture
def sets(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    people = [row for t in range(6) for name in ("Ann", "Eve") for row in block(t, name, name == "Ann")]
    return {"winobias": str(winobias(tmp_path / "sets")), "bbq": str(bbq(tmp_path / "Age.jsonl", people))}


def settings(sets: dict[str, str], **more: object) -> list[str]:
    values = {"winobias": sets["winobias"], "bbq": f"[{sets['bbq']}]", **more}
    return [part for key, value in values.items() for part in ("--set", f"audit.models.{key}={value}")]


def invoke(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    return done.exit_code, done.output


def stored(folder: Path) -> dict[str, object]:
    return json.loads((folder / "audit" / "report.json").read_text())


def measured(folder: Path) -> dict[tuple[str, str], dict[str, object]]:
    return {(one["subject"], one["name"]): one for one in stored(folder)["audits"]["models"]["measurements"]}


def test_a_student_is_audited_beside_its_teacher_and_the_gate_stays_open(finished, sets, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    before = stored(run)
    code, text = invoke("audit", run / "student", *settings(sets, teacher=finished.teacher), "-q")
    assert code == 0, text
    found = measured(run / "student")
    assert found["student", "WinoBias type 1: preference"]["n"] == 3
    assert ("teacher", "WinoBias type 1: preference") in found
    assert ("student minus teacher", "WinoBias type 1: log-likelihood") in found
    assert ("student minus untrained student", "WinoBias type 1: log-likelihood") not in found
    report = stored(run / "student")
    assert report["audits"]["models"]["figures"]["test sets"] == {"WinoBias: sentences without a partner": 2.0}
    assert report["audits"]["models"]["status"] == "ALLOW"
    assert (report["intent"], report["corpus_sha256"]) == (before["intent"], before["corpus_sha256"])
    assert "models" not in report["intent"]
    assert stored(run) == before
    card = (run / "student" / "README.md").read_text()
    assert "WinoBias type 1: preference" in card, "the audit writes the card again"


def test_a_model_without_a_known_corpus_does_not_pass(finished, sets, tmp_path):
    model = small_teacher(tmp_path / "model")
    code, text = invoke("audit", model, "--recipe", finished.recipe, *settings(sets))
    assert code == 1
    assert "the corpus that this model was trained on is not known" in text
    assert stored(model)["status"] == "UNKNOWN"
    assert ("student", "WinoBias type 1: preference") in measured(model)


def models(student: Path | None, sets: dict[str, str], **more: object) -> dict[tuple[str, str], tuple[str, str]]:
    section = ModelsSection.model_validate({"winobias": sets["winobias"], "bbq": [sets["bbq"]], **more})
    subject = Subject(Path("corpus"), make("curated", {}, {}), student)  # type: ignore[typeddict-item]
    found = audit_models(subject, section)
    return {(one.subject, one.name): (one.outcome, one.note) for one in found.measurements}


def test_models_that_give_texts_no_likelihood_are_not_measurable_by_name(sets, tmp_path):
    encoder = small_encoder(tmp_path / "encoder")
    found = models(small_teacher(tmp_path / "student"), sets, teacher=str(encoder))
    outcome, why = found["teacher", "models"]
    assert outcome == "not measurable"
    assert f"'{encoder}' is a BertForSequenceClassification, which gives no text a likelihood" in why
    assert ("student", "WinoBias type 1: preference") in found


def test_a_student_of_another_kind_is_not_measurable_by_name(finished, tmp_path):
    student = tmp_path / "student"
    shutil.copytree(finished.run / "student", student)
    training = json.loads((student / "training.json").read_text())
    (student / "training.json").write_text(json.dumps(training | {"kind": "classifier"}))
    assert open_model(str(student)) == (
        None,
        f"'{student}' is a student of kind 'classifier', which gives no text a likelihood",
    )


def test_a_run_without_a_student_is_told_to_train_one(sets):
    assert models(None, sets) == {
        ("student", "models"): (
            "not measurable",
            "no student was trained on these rows yet: train one, then run `synthgen audit STUDENT`",
        )
    }


def test_a_set_that_does_not_fit_into_the_model_is_named_and_the_others_are_measured(sets, tmp_path):
    rows = [json.loads(line) | {"question": "Who left? " * 30} for line in Path(sets["bbq"]).read_text().splitlines()]
    bbq(Path(sets["bbq"]), rows)
    found = models(small_teacher(tmp_path / "student"), sets)
    outcome, why = found["student", "BBQ Age"]
    assert outcome == "not measurable"
    assert "reads 256 tokens" in why
    assert ("student", "WinoBias type 1: preference") in found


def test_three_students_and_the_untrained_one_are_compared_on_the_same_items(sets, tmp_path):
    folders = [str(small_teacher(tmp_path / f"student-{seed}", seed)) for seed in range(5)]
    found = models(Path(folders[0]), sets, students=folders[1:3], untrained=folders[3], teacher=folders[4])
    assert "seeds: " in found["student", "WinoBias type 1: log-likelihood"][1]
    for subject in ("student minus untrained student", "student minus teacher", "inheritance"):
        assert (subject, "WinoBias type 1: log-likelihood") in found


def test_what_is_measured_is_no_part_of_the_intent(sets):
    section = ModelsSection.model_validate({"winobias": sets["winobias"]})
    assert intent_of(AuditSection(models=section), ()) == intent_of(AuditSection(), ())


def test_files_of_test_sets_are_found_from_the_folder_of_the_recipe(finished, sets, tmp_path):
    folder = tmp_path / "task"
    shutil.copytree(finished.recipe.parent, folder)
    with (folder / finished.recipe.name).open("a") as recipe:
        recipe.write("audit:\n  models: {bbq: [sets/Age.jsonl], students: [./other, org/name]}\n")
    section = load_recipe(folder / finished.recipe.name).audit.models
    assert section is not None
    assert section.bbq == (str(folder / "sets" / "Age.jsonl"),)
    assert section.students == (str(folder / "other"), "org/name")
