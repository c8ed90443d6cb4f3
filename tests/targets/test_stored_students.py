"""Students that learn from stored hidden states, from the recipe to the files."""

from __future__ import annotations

import gc
import json

import pytest
from support.layers import trained
from support.loading import loads_of
from support.small import small_task
from support.training import HELD_OUT, changed, curve_of, training_of
from support.unaudited import train

import synthgen
from distill import arms
from distill.job import Job
from distill.targets import hidden_states as states
from distill.targets.hidden_states import States
from synthgen.errors import RecipeError
from synthgen.lm.weights import Weights

FEW = {"max_steps": 4, "baseline": False, "kd_weight": 0.5, "save_steps": 1}


@pytest.fixture
def loads(monkeypatch) -> list[str]:
    """A list that gets an entry each time that weights are loaded."""
    return loads_of(monkeypatch)


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """A list of the number of texts in each call of the teacher."""
    calls: list[int] = []
    real = states.see

    def see(model, head, prompts, *rest):
        calls.append(len(prompts))
        return real(model, head, prompts, *rest)

    monkeypatch.setattr(states, "see", see)
    return calls


def test_a_student_by_stored_states(small_run, tmp_path, loads, counted):
    out = trained(small_run, tmp_path / "stored", hidden={"stored": True}, eval_steps=2, **FEW)
    recipe, run = small_run(logits={"kind": "topk", "k": 9}, split=HELD_OUT, seeds=16)
    live = trained(small_run, tmp_path / "live", hidden={}, eval_steps=2, **FEW)
    assert curve_of(out, "hidden") == pytest.approx(curve_of(live, "hidden"), rel=5e-3)
    assert (run / "hidden" / "teacher" / "layer-01").is_dir()
    for folder, words in ((out, "of the teacher, stored"), (live, "of the live teacher")):
        assert words in (folder / "README.md").read_text()
        assert words in training_of(folder).learned_from
    counted.clear()
    loads.clear()
    again = trained(small_run, tmp_path / "again", hidden={"stored": True, "loss": "cosine"}, **FEW)
    assert (loads, counted) == ([], []), "another student of the same rows asks nobody"
    assert curve_of(again, "hidden") != curve_of(out, "hidden")
    kept = [record for _, batch in synthgen.corpus.records(run / "curated", split="test") for record in batch]
    there = States(run / "hidden", Weights.open(recipe.teacher))
    asked = [(record.prompt_token_ids, record.token_ids) for record in kept]
    assert there.missing(1, asked) == asked, "held-out rows are not read"


def test_a_student_of_the_teachers_layers_lets_its_weights_go(small_run, tmp_path, monkeypatch):
    loaded, jobs = [], []
    real, real_teacher = arms.fit, Job.teacher.func

    def fit(*arguments, **named):
        gc.collect()
        loaded.append([job.teacher.weights.is_loaded for job in jobs])
        return real(*arguments, **named)

    monkeypatch.setattr(arms, "fit", fit)
    monkeypatch.setattr(Job.teacher, "func", lambda job: jobs.append(job) or real_teacher(job))
    for number, terms in enumerate(({"hidden": {"stored": True}}, {}, {"hidden": {}})):
        jobs.clear()
        loaded.clear()
        trained(small_run, tmp_path / str(number), {"layers": 1}, **terms, **{**FEW, "baseline": True})
        assert loaded == [[terms == {"hidden": {}}]] * 2, "loaded while a student learns"


def test_interrupted_between_two_parts_of_the_states(small_run, tmp_path, monkeypatch):
    """The interruption happens in this process. tests/commands/test_kill.py uses a real SIGKILL."""
    monkeypatch.setattr(states, "_PART", 4)
    train = {**FEW, "hidden": {"stored": True, "layers": {0: 0}}}
    with pytest.raises(KeyboardInterrupt):
        trained(small_run, tmp_path / "cut", cut=2, **train)
    whole = trained(small_run, tmp_path / "whole", **train)
    out = trained(small_run, tmp_path / "cut", **train)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_relations_beside_stored_states_make_no_sense(tmp_path):
    section = {"student": {"kind": "decoder"}, "hidden": {"stored": True}, "relations": {}}
    with pytest.raises(RecipeError, match=r"relations.*asks the live teacher"):
        synthgen.load_recipe(small_task(tmp_path / "task", tmp_path, train=section))


def test_a_datasets_states_outlive_a_fresh_start(small_run, tmp_path, counted):
    recipe, _ = small_run(logits={"kind": "topk", "k": 9}, split=HELD_OUT, seeds=16)
    rows_file = tmp_path / "rows" / "train.jsonl"
    rows_file.parent.mkdir()
    rows = [{"prompt": f"{i}?", "completion": f"{i + 1}", "split": "train"} for i in range(8)]
    rows_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    student = {"kind": "decoder", "config": {"hidden_size": 8}}
    recipe = changed(recipe, **FEW | {"kd_weight": 0, "hidden": {"stored": True}, "student": student})
    recipe = recipe.model_copy(update={"logits": None})
    out = train(recipe, rows_file.parent, tmp_path / "student").folder
    assert sum(counted) == 8
    first = (out / "model.safetensors").read_bytes()
    train(recipe, rows_file.parent, out, fresh=True)
    assert sum(counted) == 8
    assert (out / "model.safetensors").read_bytes() == first
