"""Notices and license texts that must be passed on are in every folder that may be shared: corpus, student, exports."""

from __future__ import annotations

import json
import shutil
from importlib import metadata

import pytest
from support.corpora import corpus_of, curating, row

import distill
import synthgen
from synthgen import corpus
from synthgen.auditing.notices import shipped_text
from synthgen.recipe import Recipe
from synthgen.results.training import read_training

NOTHING = {"terms_date": None, "made_by": None, "account": None, "tools": []}
HEADINGS = (
    "## The name",
    "## What has to be stated",
    "## Who has to be named",
    "## Policies of use that have to be passed on",
    "## Copies of licenses and notices",
    "## Sources",
    "## Texts of the licenses",
)


def source(name: str, license: str, role: str = "seed") -> dict:
    return {"id": name, "role": role, "license": license, **NOTHING}


@pytest.fixture
def run(tmp_path):
    """An audited run with rows that a Llama wrote from texts under two licenses, and one row that Gemma wrote."""
    sources = [source("llama", "llama-3.1", "generator"), source("wiki", "CC-BY-4.0"), source("code", "Apache-2.0")]
    rows = [row(f"text {n}", n, sources=[sources[0], sources[1 + n % 2]]) for n in range(4)]
    run = corpus_of(tmp_path / "run", [*rows, row("g", 4, sources=[source("g", "gemma", "generator")])])
    recipe = Recipe.model_validate(
        {**curating().model_dump(), "audit": {"monthly_users": 5, "student_name": "Llama-x"}}
    )
    synthgen.curate(recipe, run)
    assert synthgen.audit(recipe, run).passed
    return run


def test_the_bundle_says_what_to_do_for_whom_and_has_the_texts_that_are_installed(run):
    text = (run / "audit" / "attribution.md").read_text()
    assert text == (run / "curated" / "NOTICE.md").read_text()
    places = [text.index(f"\n{heading}\n") for heading in HEADINGS]
    assert places == sorted(places)
    assert "- the student's name begins with 'Llama' (for llama)" in text
    assert "Built with Llama" in text
    assert "For commercial use (train, share_data, release_weights)" in text
    assert "- CC-BY-4.0: https://" in text
    assert "- llama-3.1: https://" in text
    version = metadata.version("license-expression")
    for license, words in [
        ("Apache-2.0", "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION"),
        ("CC-BY-4.0", "Section 3 -- License Conditions."),
    ]:
        assert f"### {license}\n\nAs the package license-expression {version} ships it." in text
        assert words in text
    assert shipped_text("llama-3.1") is None
    assert corpus.verify(run / "curated"), "the manifest is as before"


def test_another_audit_writes_its_own_and_nothing_of_somebody_else(run):
    recipe = Recipe.model_validate({**curating().model_dump(), "audit": {"actions": ["train"]}})
    before = (run / "curated" / "NOTICE.md").stat()
    path = run / "curated" / "NOTICE.md"
    synthgen.audit(recipe, run)
    assert "## The name" not in path.read_text()
    synthgen.audit(recipe, run)
    own = "These rows belong to the town library.\n"
    path.write_text(own)
    synthgen.audit(recipe, run)
    assert path.read_text() == own
    assert before.st_size > len(own)
    synthgen.curate(recipe, run, fresh=True)
    assert path.read_text() == own, "--fresh deletes only what the command made"


def test_exports_have_the_notice_and_rows_their_sources(run, tmp_path):
    notice = (run / "curated" / "NOTICE.md").read_text()
    expected = {record.id: record.sources for _, some in corpus.records(run / "curated") for record in some}
    for to in ("messages", "sharegpt", "alpaca", "prompt-completion"):
        out = tmp_path / to
        synthgen.export(run, to, out)
        assert (out / "NOTICE.md").read_text() == notice
        assert "`NOTICE.md` lists" in (out / "README.md").read_text()
        rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
        assert {one["id"]: one["sources"] for one in rows} == expected
        synthgen.export(run, to, out, fresh=True)
    synthgen.export(run, "messages", tmp_path / "rows.jsonl")
    recipe = Recipe.model_validate(
        {"task": "t", "seeds": [{"path": str(tmp_path / "rows.jsonl"), "source": "rows", "license": "CC0-1.0"}]}
    )
    synthgen.curate_dataset(recipe.seeds[0], tmp_path / "again", recipe)
    found = {(s["source"], s["role"], s["license"]) for s in corpus.manifest(tmp_path / "again" / "curated")["sources"]}
    assert {("llama", "generator", "llama-3.1"), ("wiki", "seed", "CC-BY-4.0")} <= found


@pytest.mark.slow
def test_a_student_and_its_export_have_the_notice(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    recipe = synthgen.load_recipe(run / "recipe.yaml", ["train.max_steps=1", "train.baseline=false"])
    synthgen.audit(recipe, run)
    student = distill.train(recipe, run, tmp_path / "student").folder
    notice = (student / "NOTICE.md").read_text()
    assert notice == (run / "audit" / "attribution.md").read_text()
    assert "`NOTICE.md` lists what the licenses of the sources ask for" in (student / "README.md").read_text()
    assert "NOTICE.md" not in read_training(student / "training.json").files
    distill.export(student, "gguf", tmp_path / "gguf", held_out=run)
    assert (tmp_path / "gguf" / "NOTICE.md").read_text() == notice
    distill.train(recipe, run, student, fresh=True)
    assert (student / "NOTICE.md").read_text() == notice
