"""Rationales that are a separate task, that are dropped, or that come before the answer."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.measuring import measured_here
from support.rows import load
from support.small import small_task, small_teacher
from support.training import Cut, changed, curve_of
from support.unaudited import train

import synthgen
from distill import evaluate
from distill.data import Choice
from distill.targets.rationale import StepByStep, expand, explaining, rationale_tokens, shape
from distill.targets.stored import FromStored, FromTokens
from synthgen import corpus
from synthgen.lm.model import LanguageModel
from synthgen.lm.tokens import Tokens
from synthgen.recipe import RationaleSection, TrainSection

MARKER = "#"


def seeds_with_reasons(folder: Path, rows: int) -> Path:
    """Completions with a rationale, a marker and an answer. One completion has no marker."""
    lines = [
        {"id": f"q{i}", "question": f"{i} + 1?", "completion": f"as {i} + 1 {MARKER} {i + 1}" if i else "no idea"}
        for i in range(rows)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "reasons.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(recipe, run, teacher) of scored completions with rationales."""
    folder = tmp_path_factory.mktemp("rationale")
    path = seeds_with_reasons(folder / "task", 24)
    source = {"path": str(path), "source": "tests", "license": "CC0-1.0", "id": "id", "group": "id"}
    task = small_task(
        folder / "task",
        small_teacher(folder / "teacher"),
        seeds=1,
        strategy="score",
        generate={"shard_size": 8, "answer_marker": MARKER},
        logits={"kind": "topk", "k": 9},
        curate={"answer": False, "truncated": False, "repetition": None, "length": None, "duplicates": False},
    )
    values = task.read_text()
    recipe = synthgen.load_recipe(task)
    assert values
    recipe = recipe.model_copy(
        update={"seeds": (recipe.seeds[0].model_copy(update=source | {"reference": None}),)}, deep=False
    )
    run = folder / "run"
    synthgen.generate(recipe, run)
    synthgen.curate(recipe, run)
    return recipe, run, LanguageModel.open(recipe.teacher)


def section_of(recipe, **rationale) -> TrainSection:
    return recipe.train.model_copy(update={"rationale": RationaleSection(**rationale)})


def data_of(made, section: TrainSection, labels_alone: bool = False):
    _recipe, run, teacher = made
    choice = Choice(256, labels_alone=labels_alone)
    return load(run / "curated", teacher.tokens.render, choice, shape(section, teacher.tokens, MARKER))


def text(tokens: Tokens, ids) -> str:
    return tokens.tokenizer.decode(ids)


def test_two_tasks_from_a_row(made):
    recipe, _, teacher = made
    data = data_of(made, section_of(recipe, mode="step_by_step", explain="Why: "))
    for row in data.examples:
        asked, said = text(teacher.tokens, row.prompt), text(teacher.tokens, row.completion)
        if not row.also:
            assert said.startswith("no idea")  # the completion without a marker, which has no answer to learn
            continue
        (label,) = row.also
        number = int(asked.partition("Why: ")[2].partition(" +")[0])
        assert said.rstrip() == f"as {number} + 1"
        assert text(teacher.tokens, label.completion) == f"{number + 1}<|im_end|>"
        assert text(teacher.tokens, label.prompt) == asked.replace("Why: ", "")
        assert label.target is None
        assert len(row.target) == len(row.completion)
        assert (row.task, label.task) == ("rationale", "label")
    assert sum(bool(row.also) for row in data.examples) > 10


def test_stored_distributions_stay_with_their_tokens(made):
    recipe, _, _ = made
    whole = {e.id: e for e in data_of(made, recipe.train).examples}
    for row in data_of(made, section_of(recipe, mode="step_by_step")).examples:
        n = len(row.completion)
        assert row.completion == whole[row.id].completion[:n]
        assert (row.target.ids == whole[row.id].target.ids[:n]).all()


def test_dropped_teaches_answers_alone(made):
    recipe, _, teacher = made
    section = section_of(recipe, mode="dropped")
    data = data_of(made, section, labels_alone=True)
    assert {text(teacher.tokens, e.completion).replace("<|im_end|>", "").isdigit() for e in data.examples} == {True}
    assert all(e.target is None and not e.also for e in data.examples)


def test_a_rejected_answer_is_not_taught(made):
    recipe, run, teacher = made
    row = next(e for e in data_of(made, section_of(recipe, mode="step_by_step")).examples if e.also)
    record = next(r for _, rs in corpus.records(run / "curated") for r in rs if r.id == row.id)
    for mode, left in (("step_by_step", ()), ("dropped", None)):
        found = shape(section_of(recipe, mode=mode), teacher.tokens, MARKER)(record, replace(row, kept=False))
        assert (found and found.also) == left


def test_each_task_is_a_mean_over_its_own_tokens(made):
    recipe, _, teacher = made
    section = section_of(recipe, mode="step_by_step", weight=0.3)
    data = data_of(made, section)
    rows = data.examples[:6]
    objective = StepByStep(teacher.weights.model, section, data.meta)
    loss, parts = objective(rows, rows)
    labels = [e for e in expand(rows) if e.task == "label"]
    reasons = [replace(e, also=()) for e in expand(rows) if e.task == "rationale"]
    ce = FromTokens(teacher.weights.model, section)(labels, labels)[0]
    kd = FromStored(teacher.weights.model, section, data.meta)(reasons, reasons)[0]
    assert parts["label"] == pytest.approx(float(ce.detach()), rel=1e-5)
    assert parts["rationale"] == pytest.approx(float(kd.detach()), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(0.3 * float(ce.detach()) + 0.7 * float(kd.detach()), rel=1e-5)
    assert objective.tokens(rows) == sum(len(e.completion) for e in labels + reasons)


def test_parts_of_a_step_add_up(made):
    recipe, _, teacher = made
    section = section_of(recipe, mode="step_by_step")
    data = data_of(made, section)
    rows = data.examples[:5]
    objective = StepByStep(teacher.weights.model, section, data.meta)
    gradients = []
    for parts in ([rows], [rows[:2], rows[2:3], rows[3:]]):
        teacher.weights.model.zero_grad()
        total = sum(objective(some, rows)[0] for some in parts)
        total.backward()
        gradients.append((float(total), teacher.weights.model.model.embed_tokens.weight.grad.clone()))
    teacher.weights.model.zero_grad()
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-6)


def test_the_rationale_ends_before_the_last_marker(made):
    *_, teacher = made
    for said in ("a # b # 1", "a # 1", "# 1", "nothing", "a \n# 1"):
        ids = teacher.tokens.ids(said)
        found = text(teacher.tokens, ids[: rationale_tokens(teacher.tokens, ids, MARKER)])
        assert found.rstrip() == (said.rpartition(MARKER)[0] or ("" if MARKER in said else said)).rstrip()


def test_the_word_goes_before_the_last_user_message():
    prompt = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    asked = explaining(prompt, RationaleSection(explain="Why: "))
    assert [m["content"] for m in asked] == ["a", "b", "Why: c"]
    assert [m["content"] for m in prompt] == ["a", "b", "c"]


@pytest.mark.parametrize("mode", ["step_by_step", "dropped"])
def test_trains_resumes_and_is_measured(made, tmp_path, mode):
    recipe, run, teacher = made
    recipe = recipe.model_copy(update={"train": section_of(recipe, mode=mode)})
    whole = train(recipe, run, tmp_path / "whole", teacher=teacher).folder
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, tmp_path / "cut", teacher=teacher, ui=Cut(3))
    cut = train(recipe, run, tmp_path / "cut", teacher=teacher).folder
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    card = (whole / "README.md").read_text()
    assert {"step_by_step": "; step by step: answers 0.5", "dropped": "rationales dropped"}[mode] in card
    assert (whole / "baseline").exists() == (mode == "step_by_step")
    with measured_here():
        found = evaluate(recipe, run, whole, teacher=teacher)
    assert found.table["distilled"]["kl"].mean > 0


def test_answers_alone_have_stored_states_of_their_own(made, tmp_path):
    """Both modes use the same rows, teacher and layer, but different tokens, so each needs its own stored states."""
    recipe, run, _ = made
    run = Path(shutil.copytree(run, tmp_path / "run"))
    found = {}
    for mode in ("dropped", "then_answer"):
        for stored in (True, False):
            settings = {
                "student": {"kind": "decoder", "config": {"num_hidden_layers": 1}},
                **{"rationale": {"mode": mode}, "hidden": {"stored": stored}, "max_steps": 2, "baseline": False},
            }
            student = train(changed(recipe, **settings), run, tmp_path / f"{mode}-{stored}")
            found[mode, stored] = curve_of(student.folder, "hidden")
        assert found[mode, True] == pytest.approx(found[mode, False], rel=5e-3)
    assert found["dropped", True] != pytest.approx(found["then_answer", True], rel=5e-3)
