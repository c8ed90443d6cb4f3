"""Everything that a student is made from is in the rows' sources, in the cards, or in the audit."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from support.corpora import corpus_of, curating, row
from support.scripted import jobs_of, play, write
from support.serving import write_recipe
from support.small import small_task, small_teacher

import distill
import synthgen
from distill.card import write_model_card
from synthgen import corpus
from synthgen.datasets import reading
from synthgen.errors import GateDenied, RecipeError
from synthgen.lineage import student_sources
from synthgen.recipe import Recipe, deciding
from synthgen.results.training import Training
from synthgen.teachers.base import Reply

NOTHING = {"terms_date": None, "made_by": None, "account": None, "tools": []}
TEACHER = {"engine": "transformers", "model": "some/model", "license": "Apache-2.0"}


def source(name: str, role: str, license: str) -> dict:
    return {"id": name, "role": role, "license": license, **NOTHING}


def recipe_with(strategy: str = "answer", generate: dict | None = None, **train) -> Recipe:
    """A recipe that trains a student."""
    values = curating(duplicates=False).model_dump(exclude={"teacher", "logits", "strategy", "generate"})
    own = {"strategy": strategy, "generate": generate or {}, "teacher": TEACHER, "train": train}
    return Recipe.model_validate({**values, **own})


def a_run(folder, *sources: dict):
    """A curated run of one row."""
    run = corpus_of(folder, [row("a", 0, sources=list(sources) or [source("s", "seed", "MIT")])])
    synthgen.curate(curating(), run)
    return run


STUDENTS = [
    {"kind": "decoder", "model": "org/base"},
    {"kind": "seq2seq", "model": "org/base"},
    {"kind": "encoder", "model": "org/base"},
    {"kind": "sentence", "model": "org/base"},
]


@pytest.mark.parametrize("student", STUDENTS, ids=[str(student["kind"]) for student in STUDENTS])
@pytest.mark.parametrize(
    ("license", "terms", "status"),
    [(None, "unknown", "UNKNOWN"), ("Apache-2.0", "Apache-2.0", "ALLOW"), ("CC-BY-NC-4.0", "CC-BY-NC-4.0", "DENY")],
)
def test_a_students_own_checkpoint_is_judged(tmp_path, student, license, terms, status):
    student = {**student, "license": license}
    if student["kind"] == "encoder":
        recipe = recipe_with("classify", {"labels": ["a", "b"]}, student=student)
    elif student["kind"] == "sentence":
        recipe = recipe_with("embed", student=student)
    else:
        recipe = recipe_with(student=student)
    report = synthgen.audit(recipe, a_run(tmp_path))
    assert ("org/base", "student_base", terms) in {(f.source, f.role, f.terms) for f in report.findings}
    assert report.status == status


def test_the_teachers_own_checkpoint_has_the_teachers_license():
    recipe = recipe_with(student={"kind": "decoder", "model": "some/model"})
    assert student_sources(recipe) == [{"role": "student_base", "source": "some/model", "license": "Apache-2.0"}]


def test_a_license_without_a_checkpoint_is_refused():
    with pytest.raises(ValueError, match="'license' is the license of 'model'"):
        recipe_with(student={"kind": "decoder", "layers": 2, "license": "MIT"})


def test_the_license_of_a_checkpoint_may_be_stated_later():
    """The license decides what may be done with the student. The license does not change the student itself."""
    one, other = (recipe_with(student={"kind": "decoder", "model": "org/base", "license": x}) for x in (None, "MIT"))
    assert deciding(one) == deciding(other)


def test_the_intended_use_may_be_stated_after_the_rows_were_paid(serve, tmp_path):
    server = serve()
    unstated, stated = (
        synthgen.load_recipe(
            write_recipe(tmp_path / "task", server.url, 4, teacher={"license": "openai"}, audit={"competes": competes})
        )
        for competes in ("unknown", "no")
    )
    with pytest.raises(GateDenied, match="audit status UNKNOWN"):
        synthgen.run(unstated, tmp_path / "run")
    done = synthgen.run(stated, tmp_path / "run")
    assert (done.audit, done.worked) == ("ALLOW", False), "no stage but the audit was done again"
    assert synthgen.load_recipe(tmp_path / "run" / "recipe.yaml").audit.competes == "no"
    assert server.stats()["requests"] == 4


@pytest.mark.parametrize(("license", "status"), [("Apache-2.0", "ALLOW"), ("anthropic", "DENY")])
def test_the_other_run_of_a_cross_tokenizer_student_is_judged(tmp_path, license, status):
    other = corpus_of(tmp_path / "other", [row("a", 0)])
    facts = json.loads((other / "generated" / "manifest.json").read_text())
    facts["sources"] = [{"role": "logits", "source": "big/teacher", "license": license}]
    (other / "generated" / "manifest.json").write_text(json.dumps(facts))
    recipe = recipe_with(student={"kind": "decoder", "layers": 2}, across={"run": str(other)})
    report = synthgen.audit(recipe, a_run(tmp_path / "run"))
    assert ("big/teacher", "logits") in {(f.source, f.role) for f in report.findings}
    assert report.status == status


ONLINE = {"student": {"kind": "decoder", "model": "org/base", "license": "MIT"}, "online": {}}


@pytest.mark.parametrize(
    ("train", "roles"),
    [
        (ONLINE, {"logits"}),
        ({**ONLINE, "online": {"mode": "mutual"}}, {"logits", "student_base"}),
        ({"student": {"kind": "decoder", "layers": 1}, "hidden": {}}, {"logits", "student_base"}),
        ({"student": {"kind": "decoder", "layers": 1}, "relations": {}}, {"logits", "student_base"}),
    ],
)
def test_a_live_teacher_is_a_source_of_the_student(train, roles):
    found = {s["role"] for s in student_sources(recipe_with(**train)) if s["source"] == "some/model"}
    assert found == roles


@pytest.mark.parametrize(
    ("template", "license"),
    [("some/model", "Apache-2.0"), ("org/base", "MIT"), ("/my/chat.jinja", "CC-BY-4.0"), ("org/other", "unknown")],
)
def test_a_chat_template_is_a_source_of_the_student(template, license):
    student = {"kind": "decoder", "model": "org/base", "license": "MIT", "chat_template_path": template}
    recipe = recipe_with(student=student, kd_weight=0).model_copy(update={"license": "CC-BY-4.0"})
    assert {"role": "template", "source": template, "license": license} in student_sources(recipe)


def test_the_model_that_wrote_the_seeds_is_a_source(tmp_path):
    """The model is a source of the rows, of examples, and of the corpus. The audit knows the account that asked the
    model, and the date of the model's terms.
    """
    teacher = small_teacher(tmp_path / "teacher")
    path = small_task(tmp_path / "task", teacher, seeds=2, train=None)
    maker = {"model": "gpt", "license": "openai", "account": "third_party", "date": "2024-05-01", "tools": ["search"]}
    values = yaml.safe_load(path.read_text())
    values["seeds"][0]["made_by"] = maker
    values["teacher"]["account"] = "third_party"
    path.write_text(yaml.safe_dump(values))
    recipe, run = synthgen.load_recipe(path), tmp_path / "run"
    synthgen.generate(recipe, run)
    stated = {"role": "generator", "license": "openai", "account": "third_party", "tools": ["search"]}
    expected = {**NOTHING, **stated, "id": "gpt", "terms_date": "2024-05-01"}
    for _, records in corpus.records(run / "generated"):
        for record in records:
            assert expected in record.sources
            assert record.sources[0]["made_by"] == "gpt"
            assert record.sources[-1]["account"] == "third_party", "the teacher's"
    stated = {**stated, "source": "gpt", "terms_date": "2024-05-01"}
    assert stated in corpus.manifest(run / "generated")["sources"]
    job = jobs_of(path)[0]
    assert [one["role"] for one in job.example_sources(job.seed)] == ["few_shot", "generator"]


def test_another_run_that_is_not_there_is_unknown(tmp_path):
    recipe = recipe_with(student={"kind": "decoder", "layers": 2}, across={"run": str(tmp_path / "gone")})
    assert synthgen.audit(recipe, a_run(tmp_path / "run")).status == "UNKNOWN"


def test_a_student_whose_sources_were_not_judged_is_not_trained(tmp_path):
    """The audit was made with another recipe."""
    run = a_run(tmp_path)
    assert synthgen.audit(recipe_with(student={"kind": "decoder", "layers": 2}), run).passed
    own = recipe_with(student={"kind": "decoder", "model": "org/base", "license": "CC-BY-NC-4.0"}, kd_weight=0)
    with pytest.raises(GateDenied, match="did not judge 'org/base'"):
        distill.train(own, run, tmp_path / "student")
    synthgen.audit(own, run)
    with pytest.raises(GateDenied, match="DENY"):
        distill.train(own, run, tmp_path / "student")


def test_the_model_card_names_all_sources(tmp_path):
    recipe = recipe_with(student={"kind": "decoder", "model": "org/base", "license": "MIT"})
    run = a_run(tmp_path)
    training = Training(student="the checkpoint org/base", learns_by="", learned_from="", steps=1, rows=1, metrics={})
    write_model_card(tmp_path / "student", recipe, corpus.manifest(run / "curated"), training)
    card = (tmp_path / "student" / "README.md").read_text()
    assert "org/base (student_base, MIT)" in card
    assert "tests (seed, CC0-1.0)" in card


def test_templates_and_examples_are_sources_under_the_recipes_license(tmp_path):
    teacher = small_teacher(tmp_path / "teacher")
    path = small_task(tmp_path / "task", teacher, seeds=2, train=None, license="CC-BY-4.0")
    (path.parent / "assistant.j2").write_text("{{ answer }}")
    (path.parent / "examples.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    run = tmp_path / "run"
    synthgen.generate(synthgen.load_recipe(path), run)
    version = corpus.manifest(run / "generated")["prompt_version"]
    own = {(version, "template", "CC-BY-4.0"), (f"{version}#examples", "few_shot", "CC-BY-4.0")}
    manifest = corpus.manifest(run / "generated")
    assert own <= {(s["source"], s["role"], s["license"]) for s in manifest["sources"]}
    for _, records in corpus.records(run / "generated"):
        for record in records:
            assert own <= {(s["id"], s["role"], s["license"]) for s in record.sources}
    card = (run / "generated" / "README.md").read_text()
    assert f"few_shot: {version}#examples – CC-BY-4.0" in card


AUTHOR = [source("their/seeds", "seed", "MIT"), source("writer@1", "generator", "anthropic")]
GIVEN = {
    "a row of another corpus": ({"sources": AUTHOR}, None, [("writer@1", "generator", "anthropic")]),
    "the recipe names the author": ({}, "some-writer", [("some-writer", "generator", "openai")]),
    "nobody is named": ({}, None, []),
    "a column that holds something else": ({"sources": ["a", 1]}, None, []),
    "a column of another kind": ({"sources": [{"id": "x"}]}, "w", [("w", "generator", "openai")]),
}


@pytest.mark.parametrize("name", GIVEN)
def test_the_author_of_a_scored_completion_is_a_source(tmp_path, name):
    columns, made_by, expected = GIVEN[name]
    path = write(tmp_path, 1, strategy="score", logits={"kind": "sampled", "draws": 2})
    seed = {"id": "q0", "question": "What?", "completion": "That.", "answer": "That.", **columns}
    (tmp_path / "seeds.jsonl").write_text(json.dumps(seed) + "\n")
    if made_by:
        maker = f"made_by: {{model: {made_by}, license: openai}}"
        path.write_text(path.read_text().replace("source: tests", f"source: tests\n  {maker}"))
    rows, _, _ = play(jobs_of(path)[0], [Reply("That.", token_ids=[1], finish_reason="stop")])
    found = [(s["id"], s["role"], s["license"]) for s in rows[0].sources]
    assert [one for one in found if one[1] == "generator"] == expected
    assert found[0][1] == "seed"
    assert {"template", "logits"} <= {role for _, role, _ in found}


def test_the_author_of_a_scored_corpus_is_in_its_manifest_card_and_audit(tmp_path):
    """The corpus was written by a model that forbids training on its output."""
    teacher = small_teacher(tmp_path / "teacher")
    path = small_task(tmp_path / "task", teacher, seeds=1, strategy="score", train=None)
    seed = {"id": "q0", "question": "1 + 1?", "completion": "2", "answer": "2", "sources": AUTHOR}
    (path.parent / "seeds.jsonl").write_text(json.dumps(seed) + "\n")
    recipe = synthgen.load_recipe(path)
    run = tmp_path / "run"
    synthgen.generate(recipe, run)
    terms = {(s["role"], s["source"], s["license"]) for s in corpus.manifest(run / "generated")["sources"]}
    assert {("generator", "writer@1", "anthropic"), ("seed", "their/seeds", "MIT")} <= terms
    assert ("logits", str(teacher), "Apache-2.0") in terms
    assert not [one for one in terms if one[1].startswith("teacher@")], "the teacher is named once"
    assert "generator: writer@1 – anthropic" in (run / "generated" / "README.md").read_text()
    assert synthgen.audit(recipe, run).status == "DENY"


def test_the_license_of_a_single_row_is_judged(tmp_path):
    """A data set of several licenses says in a column which license each row has. The license that the user states for
    the whole data set does not replace the license of a row.
    """
    licenses = ["MIT", "cc-by-nc-4.0", None, "Some text\nof a license", ["MIT", "GPL-3.0-only"], "CC0-1.0"]
    rows = [
        {"id": str(n), "prompt": "Who?", "completion": f"Me {n}.", "license": one} for n, one in enumerate(licenses)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    read = reading.open_dataset(reading.source_of(tmp_path / "rows.jsonl", "CC0-1.0"))
    assert "license of each row: license" in read.text()
    found = [[one["license"] for one in record.sources] for _, record in reading.records(read, "t", None)]
    assert found == [
        ["CC0-1.0", "MIT"],
        ["CC0-1.0", "cc-by-nc-4.0"],
        ["CC0-1.0"],
        ["CC0-1.0", "unknown"],
        ["CC0-1.0", "(MIT) AND (GPL-3.0-only)"],
        ["CC0-1.0"],
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_a_license_that_cannot_be_read_is_not_lost(tmp_path, suffix):
    """Without the error, the rows would have only the license that the user states for the whole data set."""
    table = pa.table({"prompt": ["Who?"], "completion": ["Me."], "license": pa.array([b"CC-BY-NC-4.0"])})
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    with pytest.raises(RecipeError, match="the license in column 'license' is not text but bytes"):
        reading.open_dataset(reading.source_of(path, "MIT"))


def test_the_license_of_a_single_seed_is_judged(tmp_path, serve):
    seeds = [{"id": f"q{n}", "question": f"What is {n}?", "licence": ("MIT", "CC-BY-NC-4.0")[n % 2]} for n in range(4)]
    recipe = synthgen.load_recipe(write_recipe(tmp_path / "task", serve().url, seeds))
    synthgen.generate(recipe, tmp_path / "run")
    stated = {(one["role"], one["license"]) for one in corpus.manifest(tmp_path / "run" / "generated")["sources"]}
    assert {("seed", "CC0-1.0"), ("seed", "MIT"), ("seed", "CC-BY-NC-4.0")} <= stated
    report = synthgen.audit(recipe, tmp_path / "run")
    assert (report.status, report.rows) == ("DENY", {"ALLOW": 2, "DENY": 2})
