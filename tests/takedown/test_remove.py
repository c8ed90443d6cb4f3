"""`synthgen remove` deletes everything that was derived from a source, and no command brings it back."""

from __future__ import annotations

import json
import sqlite3
import threading
from dataclasses import replace

import pytest
from click.testing import CliRunner
from support.corpora import contents
from support.removing import ANSWERS, SECRET, make, places_of, questions, rows_of
from support.serving import KEY, Serving

import synthgen
from synthgen import corpus, durable
from synthgen.auditing.gate import check as check_gate
from synthgen.cli import main
from synthgen.errors import CorpusError, GateDenied, UserError
from synthgen.generation.inputs import read_inputs, runner
from synthgen.recipe import Recipe
from synthgen.removed import JOURNAL, Removed, Tombstone, outdated, read_removed
from synthgen.takedown import remove as takedown


@pytest.fixture(scope="module")
def server():
    running = Serving(answers=ANSWERS, script=[["thing 5", ["filter"]]])
    yield running
    running.stop()


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory):
    """A function that makes a finished run of a kind once."""
    made = {}

    def get(kind, **sections):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LOOPBACK_KEY", KEY)
                patch.setenv("SYNTHGEN_CACHE", str(folder / "cache"))
                made[kind] = make(folder, server, **{"seeds": questions(), **sections})
        return made[kind]

    return get


@pytest.fixture
def plain(finished, tmp_path, monkeypatch):
    """A copy of a run with one row for each seed."""
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    return finished("plain", page=True).copy(tmp_path, monkeypatch)


def command(*words, code=0):
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done.output


def test_nothing_of_the_source_is_left_on_the_disk(plain):
    places = places_of(SECRET, plain.run, plain.cache)
    found = {next(name for name in ("generated", "curated", "report", "replies") if name in place) for place in places}
    assert found == {"generated", "curated", "report", "replies"}, places
    output = command("remove", plain.run, "--source", "q1", "--yes")
    assert places_of(SECRET, plain.run, plain.cache) == []
    assert "removed the seed 'q1' and what was derived from it: 1 row generated (1 kept and 0 rejected" in output
    assert "0 failures, 1 cached reply" in output
    assert "not reached: the seed files themselves" in output


def test_the_source_stays_away_and_all_other_rows_stay(plain, server):
    before, asked = rows_of(plain.run), server.stats()["requests"]
    names = {name: data for name, data in contents(plain.run / "generated").items() if name.startswith("data/")}
    said = command("remove", plain.run, "--source", "tests#q1", "--yes")
    assert f"synthgen run {plain.run / 'recipe.yaml'} -o {plain.run}, which makes again" in said
    output = command("run", plain.run / "recipe.yaml", "-o", plain.run)
    assert "1 seed left out: 'q1' was removed on" in output.replace("tests#q1", "q1")
    after = rows_of(plain.run)
    assert after == {row_id: row for row_id, row in before.items() if row.seed_id != "q1"}
    assert len(before) - len(after) == 1
    assert SECRET not in json.dumps([row.prompt for row in rows_of(plain.run, "curated").values()])
    same = [name for name, data in contents(plain.run / "generated").items() if names.get(name) == data]
    assert len(same) == len(names) - 1, "only the shard with the row is written again"
    assert server.stats()["requests"] == asked
    assert places_of(SECRET, plain.run, plain.cache) == []
    assert "'tests#q1' (1 row)" in command("show", plain.run)
    assert "Removed on" in (plain.run / "report.html").read_text()


@pytest.mark.parametrize(
    "option", ["--fresh", *(pytest.param(one, marks=pytest.mark.slow) for one in ("--repair", "--retry-failed"))]
)
def test_making_rows_again_obeys_the_tombstone(plain, server, option):
    """The files are byte for byte the same as if generation had run without the seed."""
    synthgen.remove(plain.run, "q1")
    before, asked = contents(plain.run / "generated"), server.stats()["requests"]
    if option == "--repair":
        next((plain.run / "generated" / "data").glob("train-00000.parquet")).write_bytes(b"damaged")
    command("generate", plain.run / "recipe.yaml", "-o", plain.run, option)
    after = contents(plain.run / "generated")
    assert after == before
    assert server.stats()["requests"] - asked == (1 if option == "--retry-failed" else 0)


@pytest.mark.slow
def test_a_seed_may_leave_its_file_too(plain, server, tmp_path):
    synthgen.remove(plain.run, "q1")
    path = tmp_path / "seeds.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in questions() if row["id"] != "q1"))
    seeds = tuple(one.model_copy(update={"path": str(path)}) for one in plain.recipe.seeds)
    recipe = plain.recipe.model_copy(update={"seeds": seeds})
    before, asked = rows_of(plain.run), server.stats()["requests"]
    synthgen.generate(recipe, plain.run, fresh=True)
    assert rows_of(plain.run) == before
    assert server.stats()["requests"] == asked


def test_a_removed_row_is_not_made_again(plain, server):
    """A row may also be named by its own id. The row's reply is deleted, and the row's request is not sent again."""
    row = next(row for row in rows_of(plain.run).values() if row.seed_id == "q1")
    assert "the row" in command("remove", plain.run, "--source", row.id, "--yes")
    asked = server.stats()["requests"]
    command("generate", plain.run / "recipe.yaml", "-o", plain.run, "--fresh")
    assert row.id not in rows_of(plain.run)
    assert server.stats()["requests"] == asked
    assert places_of(SECRET, plain.run, plain.cache) == []


def test_a_failure_of_the_source_goes_too(plain):
    assert len(list((plain.run / "generated" / "failures").glob("*.parquet"))) == 1
    removal = synthgen.remove(plain.run, "q5")
    assert removal.counts | {"rows": 0, "failures": 1, "replies": 1, "seeds": 1} == removal.counts
    assert corpus.verify(plain.run / "generated")["counts"]["failures"] == 0
    assert list((plain.run / "generated" / "failures").glob("*.parquet")) == []


def test_examples_and_what_was_made_from_them_go(finished, tmp_path, monkeypatch, server):
    """With `self_instruct`, the question of a seed is an example in the prompts of other seeds, so the rows of those
    seeds were derived from this seed too.
    """
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    templates = {"new": "{% for one in examples %}{{ one.question }} {% endfor %}A new one:"}
    sections = {"strategy": "self_instruct", "steps": {"shown": 3}, "templates": templates, "split": {"test": 0}}
    made = finished("examples", **sections).copy(tmp_path, monkeypatch)
    before = rows_of(made.run)
    shown = {i for i, row in before.items() if "tests#q1" in {s["id"] for s in row.sources if s["role"] == "few_shot"}}
    own = {i for i, row in before.items() if row.seed_id == "q1"}
    assert shown
    removal = synthgen.remove(made.run, "q1")
    assert rows_of(made.run).keys() == before.keys() - shown - own
    assert removal.counts["replies"] == 2 * (len(shown | own)), "each row needed two replies"
    assert places_of(SECRET, made.run, made.cache) == []
    files, asked = contents(made.run / "generated"), server.stats()["requests"]
    command("generate", made.run / "recipe.yaml", "-o", made.run, "--fresh")
    assert contents(made.run / "generated") == files
    assert server.stats()["requests"] == asked


@pytest.mark.slow
def test_a_group_goes_as_a_whole(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    people = [{"id": f"p{i}", "question": f"Has he seen {i} birds?"} for i in range(4)]
    made = finished("groups", seeds=people, strategy="counterfactual", split={"test": 0}).copy(tmp_path, monkeypatch)
    rows = rows_of(made.run)
    group = [row for row in rows.values() if row.seed_id == "p1"]
    assert len(group) == 2
    first, second = sorted(group, key=lambda row: str(row.pair_role))
    removal = synthgen.remove(made.run, first.id)
    assert removal.counts["rows"] == 2
    assert rows_of(made.run).keys() == rows.keys() - {first.id, second.id}
    assert read_removed(made.run).rows == {first.id, second.id}


@pytest.mark.slow
def test_a_row_whose_kept_twin_is_removed_is_judged_again(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    twins = [{"id": name, "question": "What is a twin?"} for name in ("one", "two")]
    others = [{"id": "three", "question": "What is another?"}]
    rules = {"curate": {"duplicates": True, "length": None, "repetition": None}}
    made = finished("twins", seeds=[*twins, *others], split={"test": 0}, **rules).copy(tmp_path, monkeypatch)
    (kept,) = {row.seed_id for row in rows_of(made.run, "curated").values()} - {"three"}
    synthgen.remove(made.run, kept)
    assert not (made.run / "curated" / "manifest.json").exists()
    synthgen.curate(made.recipe, made.run)
    assert {row.seed_id for row in rows_of(made.run, "curated").values()} == {"one", "two", "three"} - {kept}
    assert corpus.manifest(made.run / "curated")["counts"]["rejected"] == 0


@pytest.mark.slow
def test_a_whole_source_goes_with_the_model_that_wrote_it(finished, tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    ours = {"path": "seeds.jsonl", "source": "ours", "license": "CC0-1.0", "id": "id"}
    theirs = {**ours, "path": str(tmp_path / "theirs.jsonl"), "source": "theirs"}
    theirs["made_by"] = {"model": "writer", "license": "Apache-2.0"}
    lines = [json.dumps({"id": f"t{i}", "question": f"Their question {i}?"}) for i in range(5)]
    (tmp_path / "theirs.jsonl").write_text("\n".join(lines))
    sections = {"seeds": questions(4), "split": {"test": 0}}

    folder = tmp_path / "made"
    monkeypatch.setenv("SYNTHGEN_CACHE", str(folder / "cache"))
    from support.serving import write_recipe

    path = write_recipe(folder / "task", _any_url(finished), **sections)
    recipe = synthgen.load_recipe(path)
    both = [*recipe.seeds, synthgen.load_recipe(path).seeds[0].model_validate(theirs)]
    recipe = recipe.model_copy(update={"seeds": tuple(both)})
    synthgen.generate(recipe, folder / "run")
    asked = {one["source"] for one in corpus.manifest(folder / "run" / "generated")["sources"]}
    assert {"theirs", "writer"} <= asked
    removal = synthgen.remove(folder / "run", "theirs")
    assert removal.counts["rows"] == removal.counts["replies"] == 5
    manifest = corpus.manifest(folder / "run" / "generated")
    assert {one["source"] for one in manifest["sources"]} == asked - {"theirs", "writer"}
    assert {row.seed_id for row in rows_of(folder / "run").values()} == {f"q{i}" for i in range(4)}
    synthgen.generate(recipe, folder / "run", fresh=True)
    assert corpus.manifest(folder / "run" / "generated") == manifest


def _any_url(finished):
    return finished("plain", page=True).recipe.teacher.base_url


def test_an_unknown_id_is_refused_with_similar_ones(plain):
    before = contents(plain.run)
    for wrong, near in (("q99", "q9"), ("test", "tests"), ("m", "m@unversioned")):
        output = command("remove", plain.run, "--source", wrong, "--yes", code=2)
        assert f"has no source, seed or row with the id '{wrong}'" in output
        assert near in output
    assert contents(plain.run) == before
    assert "is not a run" in command("remove", plain.run / "curated", "--source", "q1", "--yes", code=2)
    assert "does not exist" in command("remove", plain.run.parent / "none", "--source", "q1", "--yes", code=2)


def test_nothing_is_removed_without_consent(plain, monkeypatch):
    before = contents(plain.run)
    assert "would remove the seed 'q1'" in command("remove", plain.run, "--source", "q1", "--plan")
    assert "nothing was removed yet" in command("remove", plain.run, "--source", "q1", code=2)
    monkeypatch.setattr("synthgen.takedown.command._asks", lambda: True)
    done = CliRunner().invoke(main, ["remove", str(plain.run), "--source", "q1"], input="n\n")
    assert done.exit_code == 2
    assert "Remove it?" in done.output
    assert contents(plain.run) == before
    done = CliRunner().invoke(main, ["remove", str(plain.run), "--source", "q1"], input="y\n")
    assert done.exit_code == 0, done.output
    assert contents(plain.run) != before


def test_the_tombstone_holds_no_text(plain):
    synthgen.remove(plain.run, "q1")
    (tombstone,) = read_removed(plain.run).tombstones
    assert tombstone.seeds == ("q1",)
    assert tombstone.counts == {"seeds": 1, "rows": 1, "kept": 1, "rejected": 0, "failures": 0, "replies": 1}
    assert SECRET not in (plain.run / "removed.jsonl").read_text()


@pytest.mark.slow
def test_a_second_removal_does_nothing(plain):
    synthgen.remove(plain.run, "q1")
    synthgen.curate(plain.recipe, plain.run)
    before = contents(plain.run)
    assert "was already removed on" in command("remove", plain.run, "--source", "q1", "--yes")
    assert contents(plain.run) == before


def test_a_removal_waits_for_no_other_process(plain):
    held, let_go = threading.Event(), threading.Event()

    def hold():
        with durable.lock(plain.run):
            held.set()
            let_go.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(30)
    try:
        assert "is writing here" in command("remove", plain.run, "--source", "q1", "--yes", code=2)
    finally:
        let_go.set()
        other.join()


@pytest.mark.slow
def test_a_cache_in_use_stops_the_removal_which_can_be_completed(plain, monkeypatch):
    monkeypatch.setattr("synthgen.generation.cache._WAIT", 0.1)
    other = sqlite3.connect(plain.cache / "replies.sqlite", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM reply").fetchone()
    output = command("remove", plain.run, "--source", "q1", "--yes", code=2)
    assert "replies cannot be deleted from the cache" in output
    other.close()
    command("remove", plain.run, "--source", "q1", "--yes")
    assert places_of(SECRET, plain.run, plain.cache) == []


def test_an_open_batch_stops_the_removal(plain):
    journal = plain.run / "generated" / "batches.json"
    journal.write_text('[{"digest": "d", "batch": "b"}]')
    assert "has not ended" in command("remove", plain.run, "--source", "q1", "--yes", code=2)
    journal.write_text('[{"digest": "d", "batch": "b", "done": true}]')
    command("remove", plain.run, "--source", "q1", "--yes")


def test_no_student_is_trained_without_a_new_audit(plain):
    check_gate(plain.recipe, plain.run / "curated")
    synthgen.remove(plain.run, "q1")
    synthgen.curate(plain.recipe, plain.run)
    with pytest.raises(GateDenied):
        check_gate(plain.recipe, plain.run / "curated")


def test_a_student_of_an_earlier_curation_is_out_of_date(plain):
    """The corpus that the student learned from is gone, and may have had the rows."""
    student, notes = plain.run / "student", plain.run / "notes"
    durable.write_json(student / "inputs.json", {"curated_sha256": "earlier"})
    for folder in (student, notes):
        durable.write_json(folder / "evaluation.json", {})
    removal = synthgen.remove(plain.run, "q1")
    assert removal.students == ["student"]
    assert outdated(plain.run, student).name == "q1"
    assert [folder.name for folder in (student, notes) if (folder / "evaluation.json").exists()] == ["notes"]
    assert removal.unsearched == ["notes/evaluation.json"]


def test_a_repaired_copy_inside_the_run_goes_too(plain):
    synthgen.keep_allowed(plain.recipe, plain.run, plain.run / "allowed")
    assert any("allowed/curated" in place for place in places_of(SECRET, plain.run))
    removal = synthgen.remove(plain.run, "q1")
    assert "allowed/curated/" in removal.made
    assert removal.unsearched == []
    assert places_of(SECRET, plain.run) == []


def half(made, monkeypatch, after):
    """Ends a removal with an error after some of its shards."""
    calls = []

    def stop(work, name):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(name)
        whole(work, name)

    whole = takedown.rewrite
    with monkeypatch.context() as patch:
        patch.setattr(takedown, "rewrite", stop)
        with pytest.raises(KeyboardInterrupt):
            synthgen.remove(made.run, "q1")


@pytest.mark.parametrize("after", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_half_removed_run_is_refused_until_it_is_completed(plain, monkeypatch, after):
    half(plain, monkeypatch, after)
    hint = f"synthgen remove {plain.run} --source q1"
    recipe = plain.run / "recipe.yaml"
    for words in (
        ["show", plain.run],
        ["run", recipe, "-o", plain.run],
        ["generate", recipe, "-o", plain.run, "--fresh"],
        ["curate", plain.run],
        ["audit", plain.run],
        ["export", plain.run, "--to", "messages", "-o", plain.run.parent / "out"],
        ["report", plain.run],
    ):
        output = command(*words, code=2)
        assert "was interrupted" in output, words
        assert hint in output
    with pytest.raises(CorpusError, match="was interrupted"):
        check_gate(plain.recipe, plain.run / "curated")
    with pytest.raises(UserError, match="removal of 'q1'"):
        synthgen.remove(plain.run, "q4")
    synthgen.remove(plain.run, "q1")
    assert not (plain.run / JOURNAL).exists()
    assert places_of(SECRET, plain.run, plain.cache) == []
    corpus.verify(plain.run / "generated")


@pytest.mark.parametrize("text", ["{}", '{"name": "q1", "tombstone": {"name": 1}}'])
def test_damaged_files_are_named(plain, text):
    (plain.run / JOURNAL).write_text(text)
    assert f"{JOURNAL} is damaged" in command("remove", plain.run, "--source", "q1", "--yes", code=2)
    assert f"{JOURNAL} is damaged" in command("show", plain.run, code=2)
    (plain.run / JOURNAL).unlink()
    (plain.run / "removed.jsonl").write_text(text or "?")
    output = command("generate", plain.run / "recipe.yaml", "-o", plain.run, code=2)
    assert "removed.jsonl, line 1: this is not a tombstone" in output


def test_rows_of_a_data_set_stay_away(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    rows = [
        {"id": f"r{i}", "prompt": f"Question {i}?", "completion": SECRET if i == 3 else f"Answer {i}, yes."}
        for i in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["curate", tmp_path / "rows.jsonl", "--license", "CC0-1.0", "-o", tmp_path / "run"]
    command(*words)
    assert places_of(SECRET, tmp_path / "run")
    command("remove", tmp_path / "run", "--source", "r3", "--yes")
    assert places_of(SECRET, tmp_path / "run") == []
    files = contents(tmp_path / "run" / "generated")
    command(*words)
    assert places_of(SECRET, tmp_path / "run") == []
    command(*words, "--fresh")
    assert contents(tmp_path / "run" / "generated") == files
    assert "has no source" in command("remove", tmp_path / "run", "--source", "nobody", "--yes", code=2)


def test_a_row_that_is_scored_stays_away_with_the_source_that_it_brings(tmp_path):
    """No teacher scores the text of the removed row again."""
    seeds = [{"id": name, "question": name, "completion": name} for name in ("a", "b")]
    seeds[1]["sources"] = [{"id": "web", "role": "seed", "license": "CC0-1.0"}]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in seeds))
    (tmp_path / "user.j2").write_text("{{ question }}")
    values = {"task": "t", "strategy": "score", "prompts": str(tmp_path), "split": {"test": 0}}
    values["seeds"] = [{"path": str(tmp_path / "seeds.jsonl"), "source": "s", "license": "CC0-1.0", "id": "id"}]
    values["teacher"] = {"engine": "transformers", "model": "some/model", "license": "MIT"}
    recipe = Recipe.model_validate(values)
    removed = Removed((Tombstone("web", "2026-01-31", sources=("web",)),))
    jobs = replace(read_inputs(recipe), removed=removed).jobs().one_by_one()
    assert [job.seed.id for job in jobs if next(runner(recipe)(job), None)] == ["a"]
