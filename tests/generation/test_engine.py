"""Every strategy with a real engine: rows with logits and lineage, and the same bytes after a kill."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from support.reading import check_logits, failures_of, files, rows_of
from support.scripted import identified, scores

import synthgen
from synthgen import corpus
from synthgen.generation.inputs import runner
from synthgen.generation.rounds import ask_batch, lockstep
from synthgen.generation.rows import split_rationale
from synthgen.recipe import load_recipe, shipped
from synthgen.tables.strategies import STRATEGIES
from synthgen.teachers import open_teacher
from synthgen.verify import matches

SHIPPED = sorted(path.parent.name for path in shipped("prompts").glob("*/recipe.yaml"))
KILLED = ["vote", "self_instruct", "evolve", "conversation", "extract", "disagreement", "preference"]


UPDATES = {
    "vote": {"generate": {"answer_marker": None, "temperature": 0.01}},
    "rationalize": {"generate": {"answer_marker": "\n"}},
    "best_of_n": {"steps": {"choose": "likelihood"}},  # a model with random weights seldom says Yes or No
    "preference": {"steps": {"choose": "likelihood"}},
    "classify_votes": {"generate": {"max_new_tokens": 24}},  # the tiny tokenizer writes a label with many tokens
    "consensus": {"generate": {"answer_marker": None}},
    "disagreement": {"generate": {"answer_marker": None}},
}


ROLES = {
    "best_of_n": {"judge"},
    "preference": {"judge"},
    "self_instruct": {"rewriter", "few_shot"},
    "conversation": set(),
    **{n: {"rewriter"} for n in ("evolve", "magpie", "personas", "paraphrase", "back_translation", "extract")},
}


MULTI = [name for name in SHIPPED if load_recipe(name).strategy not in ("answer", "rationale", "classify", "embed")]


@pytest.mark.parametrize("name", MULTI)
def test_on_the_engine(name, shrunk, tmp_path):
    """Rows have logits and lineage, and each request occurs once. A run that lost shards is made again with the same
    bytes.
    """
    recipe = shrunk(name, **UPDATES.get(name, {}))
    folder = synthgen.generate(recipe, tmp_path / "run").folder
    rows, failed = rows_of(folder), failures_of(folder)
    made = corpus.manifest(folder)["counts"]
    assert (made["rows"] if rows else 0, made["failures"]) == (len(rows), len(failed))
    # a model with random weights never reaches the reference answer, and two such models never agree
    if name in ("rationalize", "consensus"):
        assert {f["kind"] for f in failed} & {"not_led", "tie", "no_answer"}
    else:
        assert len(rows) >= 3
    if name != "score":
        wanted = {"seed", "template", "generator"} | ROLES.get(name, set())
        assert all({s["role"] for s in r.sources} >= wanted for r in rows)
    assert all(r.parents for r in rows) or name in ("score", "counterfactual", "conversation")
    if STRATEGIES[recipe.strategy].keeps_distributions:
        check_logits(folder, rows)
    if name in KILLED:
        before = files(folder)
        lost = sorted((folder / "data").glob("*.parquet"))[1:]  # a kill can leave a shard without its data file
        assert lost
        for path in [*lost, folder / "manifest.json"]:
            path.unlink()
        assert synthgen.generate(recipe, tmp_path / "run").folder == folder
        assert files(folder) == before


def test_rationalize_keeps_what_the_teacher_knows(shrunk, tmp_path):
    """Half of the references are the greedy teacher's own answers. Rows with these references need no hint, and the
    other rows get a hint.
    """
    greedy = {"generate": {"answer_marker": " ", "temperature": 0.0}}
    told = shrunk("vote", strategy="answer", **greedy)
    said = {r.seed_id: r.text for r in rows_of(synthgen.generate(told, tmp_path / "first").folder)}
    seeds = [json.loads(line) for line in Path(told.seeds[0].path).read_text().splitlines()[:10]]
    known = {s["id"]: split_rationale(said[s["id"]], " ")[1] or "" for s in seeds}
    path = tmp_path / "seeds.jsonl"
    lines = [json.dumps({**s, "answer": known[s["id"]] if n % 2 else "zebra"}) + "\n" for n, s in enumerate(seeds)]
    path.write_text("".join(lines))
    source = {"path": str(path), "source": "t", "license": "MIT", "id": "id", "reference": "answer"}
    recipe = shrunk("rationalize", seeds=[source], **greedy)
    folder = synthgen.generate(recipe, tmp_path / "run").folder
    expected = {s["id"] for n, s in enumerate(seeds) if n % 2 and matches(known[s["id"]], known[s["id"]])}
    kept = {r.seed_id for r in rows_of(folder) if scores(r) == {"rationalized": 0.0}}
    assert len(expected) >= 2
    assert kept == expected
    assert {f["kind"] for f in failures_of(folder)} - {"no_reference"} == {"not_led"}  # a blank answer is no reference


def test_unparsable_marks_of_a_real_judge_are_failures(shrunk, tmp_path):
    recipe = shrunk("preference", limit=4, steps={"choose": "judge", "max_new_tokens": 8})
    folder = synthgen.generate(recipe, tmp_path / "run").folder
    assert not rows_of(folder)
    assert {f["kind"] for f in failures_of(folder)} == {"judge"}
    assert len(failures_of(folder)) == 16


def test_killed_for_real(shrunk, tmp_path):
    """SIGKILL after the first shard. The same command then finishes with the bytes of an undisturbed run."""
    import multiprocessing

    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked process lacks its parent's threads, and would wait for them
    try:
        recipe = shrunk("evolve", limit=12, generate={"shard_size": 2, "max_new_tokens": 24})
        whole = synthgen.generate(recipe, tmp_path / "whole").folder
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=synthgen.generate, args=(recipe, tmp_path / "run"))
        process.start()
        data = tmp_path / "run" / "generated" / "data"
        while not list(data.glob("*.parquet")):
            assert process.is_alive()
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (data.parent / "manifest.json").exists()
        folder = synthgen.generate(recipe, tmp_path / "run").folder
        assert files(folder) == files(whole)
    finally:
        torch.set_num_threads(threads)


def test_upper_bounds_of_requests_hold(shrunk, tmp_path):
    """`plan` gives an upper bound for the number of requests. No strategy sends more requests than this upper bound."""
    for name in ("vote", "evolve", "conversation", "extract", "preference"):
        recipe = shrunk(name, limit=4, **UPDATES.get(name, {}))
        all_jobs = identified(recipe)
        teachers = {name: open_teacher(recipe.teacher) for name in all_jobs.setting.versions}
        count = 0

        def ask(requests, teachers=teachers):
            nonlocal count
            count += len(requests)
            return ask_batch(teachers, None, lambda n: None, requests)

        run = runner(recipe)
        lockstep([run(job) for job in all_jobs.one_by_one()], ask)
        assert 0 < count <= sum(synthgen.plan(recipe).requests.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in MULTI if n not in ("consensus", "disagreement")])
def test_on_the_real_model(name, tmp_path):
    """Runs the shipped recipe with the demo's teacher and few seeds. Prints the numbers and at most two rows."""
    recipe = load_recipe(name)
    recipe = recipe.model_copy(update={"seeds": tuple(s.model_copy(update={"limit": 6}) for s in recipe.seeds)})
    folder = synthgen.generate(recipe, tmp_path / "run").folder
    rows = rows_of(folder)
    print(f"\n{name}: {len(rows)} rows, failures {dict(Counter(f['kind'] for f in failures_of(folder)))}")
    for r in rows[:2]:
        print("   ", [m["content"][:160] for m in r.prompt if m["role"] != "system"], "→", r.text[:160])
    assert rows
    check_logits(folder, rows, k=64) if name == "score" else None
