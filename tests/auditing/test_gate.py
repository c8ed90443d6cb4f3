"""The gate of training: only a passing audit of this corpus, for this intended use and this student, opens it."""

from __future__ import annotations

import importlib.util
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from support.commands import warm
from support.corpora import corpus_of, curating, row
from support.small import small_task, small_teacher

import distill
import synthgen
from distill.cli import main
from synthgen import corpus
from synthgen.auditing.gate import check, notice
from synthgen.errors import GateDenied, RecipeError
from synthgen.recipe import Recipe, load_recipe
from synthgen.sources import given_sources

NOTHING = {"terms_date": None, "made_by": None, "account": None, "tools": []}
STUDENT = {"student": {"kind": "decoder", "layers": 2}}
SHORT = ["--set", "train.max_steps=1", "--set", "train.baseline=false"]


def recipe_with(**sections) -> Recipe:
    """A recipe that trains a student."""
    values = curating(duplicates=False).model_dump(exclude={"teacher", "logits", "strategy", "generate"})
    teacher = {"engine": "transformers", "model": "some/model", "license": "Apache-2.0"}
    return Recipe.model_validate({**values, "teacher": teacher, "train": STUDENT, **sections})


def a_run(folder: Path, license: str = "MIT", text: str = "a") -> Path:
    """A curated run of one row. `license` is the license of its seeds."""
    seed = {"id": "s", "role": "seed", "license": license, **NOTHING}
    run = corpus_of(folder, [row(text, 0, sources=[seed])])
    synthgen.curate(curating(), run)
    return run


def refused(done, *texts: str) -> None:
    """Asserts that a gate failed, with one line that says why, and one line that says what to do."""
    assert done.code == 1, done
    assert all(text in done.err for text in texts), done.err
    assert len([line for line in done.err.splitlines() if line.startswith("Error: ")]) == 1, done.err
    assert "--override-audit" in done.err


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a run that was generated and curated, and that has a student, but no audit."""
    copy = tmp_path / "run"
    shutil.copytree(finished.run, copy)
    shutil.rmtree(copy / "audit")
    return copy


# The ways around the gate, at the command line


def test_a_run_without_an_audit_trains_nothing(run):
    student = run / "small"
    train = ["distill", "train", run, "-o", student, *SHORT]
    refused(warm(*train), "was not audited for commercial use (train, share_data, release_weights)", "synthgen audit")
    assert not student.exists()
    assert warm("synthgen", "audit", run).code == 0
    assert warm(*train).code == 0
    audit = json.loads((student / "training.json").read_text())["audit"]
    actions = ["train", "share_data", "release_weights"]
    passage = {"status": "ALLOW", "use": "commercial", "actions": actions, "overridden": False, "waivers": []}
    assert audit == passage
    assert "License audit: ALLOW for commercial use" in (student / "README.md").read_text()
    assert (student / "NOTICE.md").read_text() == (run / "audit" / "attribution.md").read_text()


def test_an_audit_for_research_does_not_allow_commerce(run):
    student = run / "small"
    train = ["distill", "train", run, "-o", student, *SHORT]
    values = yaml.safe_load((run / "recipe.yaml").read_text())
    values["teacher"]["license"] = "CC-BY-NC-4.0"  # the student has layers of the teacher
    (run / "recipe.yaml").write_text(yaml.safe_dump(values))
    assert warm("synthgen", "audit", run, "--use", "research").code == 0
    refused(warm(*train), "was audited for research use", "not for commercial use", "`synthgen audit")
    assert warm("synthgen", "audit", run).code == 1
    assert warm("synthgen", "audit", run, "--use", "research").code == 0  # the report for this use passes
    refused(warm(*train), "is DENY for commercial use", "(student_base, CC-BY-NC-4.0)")
    refused(warm("distill", "curve", run, "--share", "0.5"), "is DENY for commercial use")
    assert not student.exists()
    assert warm(*train, "--set", "audit.use=research").code == 0
    assert "for research use" in (student / "README.md").read_text()


@pytest.fixture
def rows(tmp_path):
    """(a file of rows, the options that name a student for them)"""
    small_teacher(tmp_path / "checkpoint")
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"What is {n}?", "completion": f"It is {n}.", "split": "train"} for n in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path, ["--student", tmp_path / "checkpoint", "-o", tmp_path / "mine", *SHORT]


def test_rows_of_unknown_terms_train_nothing(rows, tmp_path):
    path, options = rows
    licenses = ["--license", "CC0-1.0", "--student-license", "MIT"]
    for given, role, option in [
        (licenses[2:], "(dataset, unknown)", "--license ID"),
        (licenses[:2], "(student_base, unknown)", "--student-license ID"),
    ]:
        refused(warm("distill", "train", path, *options, *given), "is UNKNOWN for commercial use", role, option)
        assert not (tmp_path / "mine" / "training.json").exists()
    done = warm("distill", "train", path, *options, *licenses)  # the rows have a license, so this one command is enough
    assert done.code == 0, done
    assert "ALLOW" in (tmp_path / "mine" / "audit" / "report.md").read_text()
    assert warm("distill", "train", path, *options, *licenses).code == 0, "it is finished"
    assert warm("distill", "train", path, *options, *licenses, "--fresh").code == 0


def test_a_license_for_a_data_set_does_not_wash_its_rows(rows, tmp_path):
    """Rows of a corpus keep their own sources. The audit judges the license of rows and the model that wrote them."""
    path, options = rows
    licenses = ["--license", "CC0-1.0", "--student-license", "MIT"]
    made_by = ["--set", "seeds.0.made_by.model=claude", "--set", "seeds.0.made_by.license=anthropic"]
    account = ["--set", "seeds.0.made_by.account=third_party", "--set", 'seeds.0.made_by.date="2025-01-31"']
    done = warm("distill", "train", path, *options, *licenses, *made_by, *account, "--override-audit")
    assert done.code == 0, done
    [source, maker] = next(corpus.records(tmp_path / "mine" / "corpus"))[1][0].sources
    assert (source["role"], source["license"], source["made_by"]) == ("dataset", "CC0-1.0", "claude")
    assert source["account"] == "third_party", "so that a tag of the data set does not hide the model's terms"
    stated = {"id": "claude", "role": "generator", "license": "anthropic", "account": "third_party"}
    assert maker == {**NOTHING, **stated, "terms_date": "2025-01-31"}
    assert "claude (generator, anthropic)" in (tmp_path / "mine" / "README.md").read_text()

    lines = [json.loads(line) for line in path.read_text().splitlines()]
    writer = {"id": "writer", "role": "generator", "license": "CC-BY-NC-4.0", **NOTHING}
    path.write_text("".join(json.dumps({**line, "sources": [writer]}) + "\n" for line in lines))
    done = warm("distill", "train", path, *options, *licenses, "--fresh")
    refused(done, "is DENY for commercial use: 'writer' (generator, CC-BY-NC-4.0)")
    sources = corpus.manifest(tmp_path / "mine" / "corpus")["sources"]
    assert {"role": "generator", "source": "writer", "license": "CC-BY-NC-4.0"} in sources


def test_sources_that_cannot_be_read_are_judged_most_strictly():
    """A row's `sources` may come from another tool or version. A source with unknown facts is never left out."""
    good = {"id": "writer", "role": "judge", "license": "CC-BY-NC-4.0", **NOTHING}
    assert given_sources([good]) == [good]
    assert given_sources([good, {**good, "role": "author"}]) == [good, {**good, "role": "generator"}]
    [unnamed] = given_sources([{"role": "seed", "license": None}])
    assert (unnamed["id"], unnamed["role"], unnamed["license"]) == ("a source without a name", "seed", "unknown")
    assert [one["license"] for one in given_sources([{"id": "w", "license": "MIT"}, {"role": "seed"}])] == [
        "MIT",
        "unknown",
    ]
    assert given_sources(good) == given_sources(json.dumps(good)) == given_sources(json.dumps([good])) == [good], "CSV"
    assert given_sources("[not JSON") == given_sources("[1, null]") == given_sources(None) == []
    assert given_sources(["https://example.org", {"title": "a page"}]) == [], "a user's own column"
    assert given_sources("https://example.org") == []
    for hidden in (json.dumps([good]).encode(), [json.dumps(good)], [[good]], [[json.dumps(good).encode()]]):
        assert given_sources(hidden) == [good], hidden
    for unreadable in (str([good]), f"[{json.dumps(good)}", [str(good)], "[" * 100_000):
        assert [(one["role"], one["license"]) for one in given_sources(unreadable)] == [("generator", "unknown")]
    assert given_sources("[1] on a license: see there") == given_sources(b"\xff[{") == []


def test_a_refusal_says_which_command_audits_the_student(rows, tmp_path):
    """The message names the command even if the run is a curated data set, whose recipe has no student."""
    path, _ = rows
    mine = tmp_path / "curated-rows"
    assert warm("synthgen", "curate", path, "-o", mine, "--license", "MIT").code == 0
    named = ["--student", tmp_path / "checkpoint", "--student-license", "MIT"]
    done = warm("distill", "train", mine, *named, *SHORT, "--set", "train.kd_weight=0")
    audit = ["audit", mine, "--set", f"train.student.model={tmp_path / 'checkpoint'}", "--set"]
    audit += ["train.student.license=MIT", "--set", "train.kd_weight=0"]
    refused(done, "was not audited for commercial use", f"run `{' '.join(map(str, ['synthgen', *audit]))}`")
    assert warm("synthgen", *audit).code == 0
    assert warm("distill", "train", mine, *named, *SHORT, "--set", "train.kd_weight=0").code == 0


# What the report must be about


def test_an_audit_of_other_rows_does_not_count(tmp_path):
    recipe, run = recipe_with(), a_run(tmp_path / "run")
    synthgen.audit(recipe, run)
    assert check(recipe, run / "curated").status == "ALLOW"
    assert notice(recipe, run / "curated")
    other = a_run(tmp_path / "other", text="b")
    shutil.rmtree(run / "curated")
    shutil.copytree(other / "curated", run / "curated")
    with pytest.raises(GateDenied, match="have changed since the audit of"):
        check(recipe, run / "curated")
    assert check(recipe, run / "curated", override=True).status == "no audit"
    assert notice(recipe, run / "curated") == ""
    synthgen.audit(recipe, run)
    assert check(recipe, run / "curated").status == "ALLOW"


def test_an_audit_with_another_catalogue_does_not_count(tmp_path, monkeypatch):
    """An update of the shipped catalog may change what a license allows."""
    recipe, run = recipe_with(), a_run(tmp_path / "run")
    synthgen.audit(recipe, run)
    monkeypatch.setattr("synthgen.auditing.catalogue_hash", lambda: "that of the next version")
    with pytest.raises(GateDenied, match="with another catalog of licenses"):
        check(recipe, run / "curated")
    synthgen.audit(recipe, run)
    assert check(recipe, run / "curated").status == "ALLOW"


def test_two_curated_corpora_of_a_run_have_a_report_each(tmp_path):
    recipe, run = recipe_with(), a_run(tmp_path / "run")
    synthgen.curate(curating(near_duplicates=True), run, run / "strict")
    synthgen.audit(recipe, run)
    with pytest.raises(GateDenied) as caught:
        check(recipe, run / "strict")
    assert f"synthgen audit {run / 'strict'}" in caught.value.hint
    synthgen.audit(recipe, run / "strict")
    assert [check(recipe, run / name).status for name in ("curated", "strict")] == ["ALLOW", "ALLOW"]


INTENTS = [
    {"use": "research"},
    {"actions": ["train"]},
    {"competes": "no"},
    {"student_family": "llama"},
    {"student_name": "Llama-mine"},
]


@pytest.mark.parametrize("audit", INTENTS)
def test_every_key_of_the_intent_counts(tmp_path, audit):
    run = a_run(tmp_path)
    synthgen.audit(recipe_with(audit=audit), run)
    with pytest.raises(GateDenied, match=r"was audited for .*, not for "):
        check(recipe_with(), run / "curated")
    synthgen.audit(recipe_with(), run)
    assert check(recipe_with(audit=audit), run / "curated").use == audit.get("use", "commercial")
    assert len([path for path in (run / "audit").iterdir() if path.is_dir()]) == 2


def test_a_report_that_does_not_pass_is_overridden_and_recorded(tmp_path):
    recipe, run = recipe_with(), a_run(tmp_path, "CC-BY-NC-4.0")
    synthgen.audit(recipe, run)
    with pytest.raises(GateDenied, match=r"is DENY for commercial use: 's' \(seed, CC-BY-NC-4.0\)"):
        distill.train(recipe, run, tmp_path / "student")
    passage = check(recipe, run / "curated", override=True)
    assert (passage.status, passage.overridden) == ("DENY", True)


def test_run_trains_against_the_audit_only_when_told_to(tmp_path):
    train = {**STUDENT, "kd_weight": 0, "max_steps": 1, "baseline": False}
    teacher = small_teacher(tmp_path / "teacher")
    task = small_task(tmp_path / "task", teacher, seeds=4, license="CC-BY-NC-4.0", train=train, split={"test": 0.3})
    run = tmp_path / "run"
    refused(warm("synthgen", "run", task, "-o", run), "audit status DENY for commercial use; no student was trained")
    assert not (run / "student").exists()
    done = warm("synthgen", "run", task, "-o", run, "--override-audit")
    assert done.code == 0, done
    assert "audit DENY (overridden)" in done.out
    for page in ("report.html", "student/README.md"):
        text = (run / page).read_text()
        assert "--override-audit" in text
        assert "DENY for commercial use (train, share_data, release_weights)" in text
    assert ("audit overridden", "DENY for commercial use (train, share_data, release_weights)") in synthgen.open(
        run
    ).summary()


def test_the_option_student_names_a_folder_from_here(tmp_path, monkeypatch):
    """Paths in a recipe are relative to the recipe, but a path in a command is relative to the current folder."""
    teacher = small_teacher(tmp_path / "here" / "mine")
    recipe = small_task(tmp_path / "task", teacher, seeds=2, train={"kd_weight": 0})
    run, trained = a_run(tmp_path / "run"), []
    monkeypatch.setattr("distill.training.train", lambda recipe, *more, **named: trained.append(recipe) or 1 / 0)
    monkeypatch.chdir(tmp_path / "here")
    words = ["train", run, "--recipe", recipe, "--student", "./mine", "--student-license", "MIT"]
    CliRunner().invoke(main, [str(word) for word in words])
    assert trained[0].train.student.model == str(tmp_path / "here" / "mine")


def test_a_missing_package_of_an_audit_ends_the_run_before_it_begins(tmp_path, monkeypatch):
    """The tests of privacy run after the training. Without this check, a run would stop only there."""
    recipe = load_recipe(small_task(tmp_path / "task", tmp_path, audit={"privacy": {}}))
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "scipy" else known(name))
    for act in (partial(synthgen.plan, recipe), partial(synthgen.run, recipe, tmp_path / "run")):
        with pytest.raises(RecipeError, match=r"audit\.privacy needs scipy, which is not installed") as caught:
            act()
        assert "synthgen-distill[audit]" in caught.value.hint
    assert not (tmp_path / "run" / "generated").exists()


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("privacy.private", {"privacy": {"private": ["gone.jsonl"]}}),
        ("models.winobias", {"models": {"winobias": "gone"}}),
        ("models.winogender", {"models": {"winogender": "gone"}}),
        ("models.bbq", {"models": {"bbq": ["gone.jsonl"]}}),
    ],
)
def test_a_missing_file_of_an_audit_ends_the_run_before_it_begins(tmp_path, key, section):
    recipe = load_recipe(small_task(tmp_path / "task", tmp_path, audit=section))
    for act in (partial(synthgen.plan, recipe), partial(synthgen.run, recipe, tmp_path / "run")):
        with pytest.raises(RecipeError, match=rf"audit\.{key}: '.*gone.*' does not exist"):
            act()
    assert not (tmp_path / "run" / "generated").exists()
