"""The header of model cards has the form of the hub's metadata, and the text names the real teachers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from support.audits import measurement
from support.corpora import corpus_of, curating, row

import synthgen
from distill.card import authors, write_model_card, written_in
from synthgen import corpus
from synthgen.manifest import Manifest
from synthgen.recipe import Recipe
from synthgen.removed import Tombstone, write_tombstone
from synthgen.results import audit_text
from synthgen.results.evaluation import Evaluation
from synthgen.results.measures import Interval, Measure, Quantiles
from synthgen.results.training import Training
from synthgen.tables.students import KINDS

EVIL = "a: \"b\" # c\n---\n- [d]: {e} | 'f' \\ g"
HOSTED = {
    "engine": "openai",
    "model": "big-model",
    "revision": "2026-02-01",
    "dtype": "",
    "tokenizer": "",
    "vocab_size": 0,
    "license": "openai-services-2026-01-01",
}
EVALUATION = Evaluation(
    kind="decoder",
    rows=12,
    unit="recorded answers",
    headline="H.",
    measures={
        "nll": Measure("−log q"),
        "accuracy": Measure("right", "percent"),
        "perplexity": Measure("perplexity"),
        "calibration": Measure("error"),
        "answer_ms": Measure("ms", "milliseconds", about="cost"),
    },
    table={
        "untrained": {"nll": 3.0},
        "distilled": {
            "nll": Interval(1.25, 1.0, 1.5),
            "accuracy": None,
            "perplexity": float("inf"),
            "answer_ms": Quantiles(1.0, 2.0),
        },
    },
)


def recipe_of(student: dict[str, Any], **more: Any) -> Recipe:
    values = {
        "task": "sums",
        "seeds": [{"path": "none.jsonl", "source": "tests", "license": "CC0-1.0"}],
        "teacher": {"model": "org/teacher", "license": "Apache-2.0"},
        "train": {"student": {"kind": "decoder", **student}},
        **more,
    }
    return Recipe.model_validate(values)


def training_of(kind: str = "decoder") -> Training:
    return Training(
        student="a checkpoint",
        learns_by="",
        learned_from="",
        steps=1,
        rows=1,
        metrics={},
        kind=kind,
        library_name=KINDS[kind].library_name,
    )


def card_of(folder: Path, recipe: Recipe, facts: Manifest, **more: Any) -> ModelCard:
    training = more.pop("training", training_of())
    write_model_card(folder, recipe, facts, training, **more)
    return ModelCard.load(folder / "README.md")


@pytest.fixture
def run(tmp_path) -> Path:
    records = [row(f"text {n}", n, teacher="big", served_model=f"big-model-{n % 2}") for n in range(3)]
    for record in records:
        date = "2026-01-01" if record.id == "r1" else None
        source = {"id": "big-model", "role": "generator", "license": "x", "terms_date": date}
        record.sources = [{**source, "made_by": None, "account": None, "tools": []}]  # type: ignore[typeddict-item]
    run = corpus_of(tmp_path / "run", records)
    synthgen.curate(curating(answer=False, truncated=False, repetition=None, length=None, duplicates=False), run)
    return run


def facts_of(run: Path, **changes: Any) -> Manifest:
    found: Manifest = {**corpus.manifest(run / "curated"), **changes}  # type: ignore[typeddict-item]
    return found


def test_a_finetune_names_its_base_its_license_and_its_results(run, tmp_path):
    recipe = recipe_of({"model": "org/base", "license": "MIT"})
    card = card_of(tmp_path / "s", recipe, facts_of(run), evaluation=EVALUATION)
    head = card.data.to_dict()
    assert head["base_model"] == ["org/base"]
    assert head["base_model_relation"] == "finetune"
    assert head["license"] == "mit"
    assert head["library_name"] == "transformers"
    assert head["pipeline_tag"] == "text-generation"
    [result] = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_name) == ("nll", 1.25, "−log q")
    assert result.task_type == "text-generation"
    assert result.dataset_name == "t: 12 held-out recorded answers"
    assert "datasets" not in head, "the seeds are a file of this machine"
    assert "language" not in head, "nothing states a language"


@pytest.mark.parametrize(
    ("student", "base", "relation"),
    [
        ({"model": "org/base"}, ["org/base"], "finetune"),
        ({"model": "org/base", "lora": {"r": 4}}, ["org/base"], "finetune"),  # the saved weights are merged
        ({"layers": 2}, ["org/teacher"], None),  # the student's weights are only a part of the teacher's weights
        ({"config": {"hidden_size": 8}}, None, None),
        ({"model": "/models/mine"}, None, None),
        ({"model": "package:some_model"}, None, None),
        ({"model": "org/base.gguf"}, None, None),
    ],
)  # fmt: skip
def test_a_base_is_named_only_where_the_hub_has_it(run, tmp_path, student, base, relation):
    head = card_of(tmp_path / "s", recipe_of(student), facts_of(run)).data.to_dict()
    assert (head.get("base_model"), head.get("base_model_relation")) == (base, relation)


def test_an_adapter_is_an_adapter(run, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "adapter_config.json").write_text("{}")
    head = card_of(tmp_path / "s", recipe_of({"model": "org/base"}), facts_of(run)).data.to_dict()
    assert head["base_model_relation"] == "adapter"


@pytest.mark.parametrize(
    ("license", "found", "name"),
    [
        ("Apache-2.0", "apache-2.0", None),
        ("GPL-3.0-only", "gpl-3.0", None),
        ("llama-3.1", "llama3.1", None),
        ("My Own: License!", "other", "my-own-license"),
        ("unknown", None, None),
        (None, None, None),
    ],
)
def test_licenses_are_tags_of_the_hub_or_named_or_left_out(run, tmp_path, license, found, name):
    card = card_of(tmp_path / "s", recipe_of({"model": "org/base", "license": license}), facts_of(run))
    head = card.data.to_dict()
    assert (head.get("license"), head.get("license_name")) == (found, name)
    assert ("License of the student: not known" in card.text) == (found is None)


def test_data_sets_of_the_hub_are_named_if_the_rows_come_from_them(run, tmp_path):
    seeds = [
        {"dataset": "org/used", "source": "used", "license": "MIT"},
        {"dataset": "org/another", "source": "another", "license": "MIT"},
        {"dataset": "/data/local", "source": "local", "license": "MIT"},
    ]
    terms = [{"role": "seed", "source": name, "license": "MIT"} for name in ("used", "local")]
    head = card_of(tmp_path / "s", recipe_of({"layers": 1}, seeds=seeds), facts_of(run, sources=terms)).data
    assert head.datasets == ["org/used"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_has_a_task_that_the_hub_knows(run, tmp_path, kind):
    assert KINDS[kind].pipeline_tag in ("text-generation", "text-classification", "sentence-similarity")
    head = card_of(tmp_path / "s", recipe_of({"layers": 1}), facts_of(run), training=training_of(kind)).data.to_dict()
    assert head["pipeline_tag"] == KINDS[kind].pipeline_tag
    assert head["library_name"] == KINDS[kind].library_name


# The text


def test_the_card_names_the_teacher_of_the_rows_and_not_that_of_the_recipe(run, tmp_path):
    facts = facts_of(run, teachers={"big": HOSTED, "judge": {**HOSTED, "model": "judge-model"}})
    card = card_of(tmp_path / "s", recipe_of({"model": "org/base"}), facts, source=run / "curated")
    assert "# t: a student of big-model\n" in card.text
    assert "org/teacher" not in card.text
    line = next(line for line in card.text.splitlines() if line.startswith("- Teacher: big-model"))
    assert line == (
        "- Teacher: big-model at `2026-02-01`, engine openai, terms openai-services-2026-01-01; the server named the "
        "model big-model-0, big-model-1"
    )
    assert "- Terms of big-model: as of 2026-01-01\n" in card.text


def test_a_teacher_that_is_not_stated_is_not_invented(run, tmp_path):
    none = [row("x", 0, teacher=None)]
    other = corpus_of(tmp_path / "other", none)
    card = card_of(
        tmp_path / "s", recipe_of({"model": "org/base"}), facts_of(run, teachers={}), source=other / "generated"
    )
    assert "# t: a student of recorded rows\n" in card.text
    assert "- Teacher: not stated.\n" in card.text
    assert "org/teacher" not in card.text
    named = card_of(tmp_path / "s", recipe_of({"model": "org/base"}), facts_of(run), source=run / "curated")
    assert "- Teacher: not stated. The rows name big.\n" in named.text


def test_what_rows_record_is_read_once_for_each_source(run):
    found = written_in(run / "curated")
    assert found.served == {"big": {"big-model-0", "big-model-1"}}
    assert found.read_on == {"big-model": {"2026-01-01"}}
    assert authors(facts_of(run), found) == "big"


def test_texts_of_users_do_not_break_the_header(run, tmp_path):
    facts = facts_of(run, task=EVIL, teachers={"big": {**HOSTED, "model": EVIL, "license": EVIL}})
    measures = {"nll": Measure(EVIL)}
    evaluation = replace(EVALUATION, measures=measures, unit=EVIL)
    recipe = recipe_of({"model": "org/base", "license": EVIL})
    card = card_of(tmp_path / "s", recipe, facts, evaluation=evaluation, source=run / "curated")
    text = (tmp_path / "s" / "README.md").read_text()
    head = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    flat = EVIL.replace("\n", " ")
    assert head["model-index"][0]["name"] == flat
    assert head["model-index"][0]["results"][0]["metrics"][0]["name"] == flat
    assert head["license"] == "other"
    assert card.data.base_model == ["org/base"]
    assert f"# {flat}: a student of {flat}" in text


def test_the_card_has_the_audit_for_the_use_of_this_student(run, tmp_path):
    recipe = recipe_of({"model": "org/base", "license": "MIT"})
    more = {"facts": facts_of(run), "source": run / "curated"}
    assert audit_text.NOT_AUDITED in card_of(tmp_path / "s", recipe, **more).text
    synthgen.audit(recipe, run)
    card = card_of(tmp_path / "s", recipe, **more).text
    assert "**It is not known whether this corpus may be used to train a student" in card
    assert "because of big-model (generator, x): terms 'x' are not in the catalog" in card
    assert audit_text.NOT_MEASURED in card
    other = recipe_of({"model": "org/base", "license": "MIT"}, audit={"use": "research"})
    assert audit_text.NOT_AUDITED in card_of(tmp_path / "s", other, **more).text
    assert "## Bias" not in card_of(tmp_path / "s", recipe, facts_of(run)).text


def test_the_card_has_the_tests_of_bias_of_this_student(run, tmp_path):
    """If the student was trained again after the audit, the card leaves out the tests of bias."""
    recipe, folder = recipe_of({"model": "org/base", "license": "MIT"}), tmp_path / "s"
    (folder / "audit").mkdir(parents=True)
    intent = {"use": "commercial", "actions": [], "competes": "no"}
    about = {"status": "ALLOW", "passed": True, "intent": intent, "findings": [], "date": "2026-01-01"}
    audits = {"models": {"status": "ALLOW", "measurements": [measurement(subject="nurses")]}}
    (folder / "audit" / "report.json").write_text(json.dumps({**about, "audits": audits}))
    (folder / "training.json").write_text("{}")
    os.utime(folder / "training.json", (1, 1))
    more = {"facts": facts_of(run), "source": run / "curated"}
    assert "- representation, nurses: How often" in card_of(folder, recipe, **more).text
    os.utime(folder / "audit" / "report.json", (0, 0))
    assert audit_text.NOT_MEASURED in card_of(folder, recipe, **more).text


def test_a_card_that_is_written_again_still_says_that_the_student_is_out_of_date(run):
    recipe, student = recipe_of({"model": "org/base", "license": "MIT"}), run / "student"
    student.mkdir()
    (student / "inputs.json").write_text('{"curated_sha256": "s"}')
    card = card_of(student, recipe, facts_of(run)).text
    assert "Out of date" not in card
    tombstone = Tombstone("q1", "2026-11-30", corpora=("s",))
    write_tombstone(run, tombstone)
    again = card_of(student, recipe, facts_of(run)).text
    assert "**Out of date.** This student was trained on a corpus from which 'q1' was removed on 2026-11-30." in again
    assert tombstone.marked(again) == again


def test_the_card_has_the_notes_of_the_corpus(run, tmp_path):
    recipe = recipe_of({"model": "org/base", "license": "MIT"})
    noted = card_of(tmp_path / "s", recipe, facts_of(run, notes=["Not for\n# advice."])).text
    assert "\n\n## Use and limits\n\n- Not for # advice.\n\n" in noted
    assert "Use and limits" not in card_of(tmp_path / "s", recipe, facts_of(run, notes=[])).text
