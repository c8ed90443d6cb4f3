"""Rationales as a task of their own, dropped, or before the answer; and rows that no command here made."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.small import small_task, small_teacher
from test_train import Cut

import synthgen
from distill import evaluate, train
from distill.data import load
from distill.students.decoder import read_metrics
from distill.targets.rationale import StepByStep, expand, explaining, rationale_tokens, shape
from distill.targets.stored import FromShards
from synthgen import corpus
from synthgen.errors import CorpusError, GateDenied, RecipeError, UserError
from synthgen.recipe import RationaleSection, TrainSection
from synthgen.records import to_table
from synthgen.teachers.transformers import LocalModel

MARKER = "#"


def seeds_with_reasons(folder: Path, rows: int) -> Path:
    """Completions that hold a rationale, a marker and an answer; one has no marker."""
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
    return recipe, run, LocalModel.open(recipe.teacher)


def section_of(recipe, **rationale) -> TrainSection:
    return recipe.train.model_copy(update={"rationale": RationaleSection(**rationale)})


def data_of(made, section: TrainSection, **more):
    _recipe, run, teacher = made
    return load(run / "curated", teacher.render, 256, shape=shape(section, teacher, MARKER), **more)


def text(teacher: LocalModel, tokens) -> str:
    return teacher.tokenizer.decode(tokens)


def test_two_tasks_from_a_row(made):
    recipe, _, teacher = made
    data = data_of(made, section_of(recipe, mode="step_by_step", explain="Why: "))
    for row in data.examples:
        asked, said = text(teacher, row.prompt), text(teacher, row.completion)
        if not row.also:
            assert said.startswith("no idea")  # without a marker there is no answer to learn
            continue
        (label,) = row.also
        number = int(asked.partition("Why: ")[2].partition(" +")[0])
        assert said.rstrip() == f"as {number} + 1"
        assert text(teacher, label.completion) == f"{number + 1}<|im_end|>"
        assert text(teacher, label.prompt) == asked.replace("Why: ", "")
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
    assert {text(teacher, e.completion).replace("<|im_end|>", "").isdigit() for e in data.examples} == {True}
    assert all(e.target is None and not e.also for e in data.examples)


def test_a_rejected_answer_is_not_taught(made):
    recipe, run, teacher = made
    row = next(e for e in data_of(made, section_of(recipe, mode="step_by_step")).examples if e.also)
    record = next(r for _, rs in corpus.records(run / "curated") for r in rs if r.id == row.id)
    for mode, left in (("step_by_step", ()), ("dropped", None)):
        found = shape(section_of(recipe, mode=mode), teacher, MARKER)(record, replace(row, kept=False))
        assert (found and found.also) == left


def test_each_task_is_a_mean_over_its_own_tokens(made):
    recipe, _, teacher = made
    section = section_of(recipe, mode="step_by_step", weight=0.3)
    data = data_of(made, section)
    rows = data.examples[:6]
    objective = StepByStep(teacher.model, data.meta, section)
    loss, parts = objective(rows, rows)
    labels = [e for e in expand(rows) if e.task == "label"]
    reasons = [e for e in expand(rows) if e.task == "rationale"]
    ce = FromShards(teacher.model, data.meta, section, labels_alone=True)(labels, labels)[0]
    kd = FromShards(teacher.model, data.meta, section)(reasons, reasons)[0]
    assert parts["label"] == pytest.approx(float(ce.detach()), rel=1e-5)
    assert parts["rationale"] == pytest.approx(float(kd.detach()), rel=1e-5)
    assert float(loss.detach()) == pytest.approx(0.3 * float(ce.detach()) + 0.7 * float(kd.detach()), rel=1e-5)
    assert objective.tokens(rows) == sum(len(e.completion) for e in labels + reasons)


def test_parts_of_a_step_add_up(made):
    recipe, _, teacher = made
    section = section_of(recipe, mode="step_by_step")
    data = data_of(made, section)
    rows = data.examples[:5]
    objective = StepByStep(teacher.model, data.meta, section)
    gradients = []
    for parts in ([rows], [rows[:2], rows[2:3], rows[3:]]):
        teacher.model.zero_grad()
        total = sum(objective(some, rows)[0] for some in parts)
        total.backward()
        gradients.append((float(total), teacher.model.model.embed_tokens.weight.grad.clone()))
    teacher.model.zero_grad()
    assert gradients[0][0] == pytest.approx(gradients[1][0], rel=1e-5)
    assert torch.allclose(gradients[0][1], gradients[1][1], atol=1e-6)


def test_the_rationale_ends_before_the_last_marker(made):
    *_, teacher = made
    for said in ("a # b # 1", "a # 1", "# 1", "nothing", "a \n# 1"):
        tokens = teacher.tokenizer(said, add_special_tokens=False)["input_ids"]
        found = text(teacher, tokens[: rationale_tokens(teacher, tokens, MARKER)])
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
    whole = train(recipe, run, tmp_path / "whole", teacher=teacher)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, tmp_path / "cut", teacher=teacher, ui=Cut(3))
    cut = train(recipe, run, tmp_path / "cut", teacher=teacher)
    assert (whole / "model.safetensors").read_bytes() == (cut / "model.safetensors").read_bytes()
    card = (whole / "README.md").read_text()
    assert {"step_by_step": "; step by step: answers 0.5", "dropped": "rationales dropped"}[mode] in card
    assert (whole / "baseline").exists() == (mode == "step_by_step")
    found = evaluate(recipe, run, whole, teacher=teacher)
    assert found.table["distilled"]["kl"].mean > 0


# Rows that no command here made


def dataset(folder: Path, rows, name: str = "rows.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tokens_alone(recipe, **changes):
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"kd_weight": 0.0, **changes})})


def test_any_rows_with_prompt_and_completion_train(made, tmp_path):
    recipe, _, teacher = made
    rows = [{"prompt": f"{i} and {chr(97 + i)}", "completion": f"so {i}"} for i in range(20)]
    rows += [{"prompt": [{"role": "user", "content": "x"}], "completion": [{"role": "assistant", "content": "y"}]}]
    folder = dataset(tmp_path / "rows", [*rows, rows[0]])
    student = train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher)
    adopted = student / "corpus"
    facts = corpus.verify(adopted)
    assert facts["counts"]["kept"] == 21
    assert facts["counts"]["copies_left_out"] == 1
    found = [r for _, records in corpus.records(adopted) for r in records]
    assert {r.text for r in found} == {f"so {i}" for i in range(20)} | {"y"}
    assert all(teacher.tokenizer.decode(r.token_ids) == r.text + "<|im_end|>" for r in found)
    assert {r.split for r in found} == {"train", "test"}
    training = json.loads((student / "training.json").read_text())
    assert training["rows"] == sum(r.split == "train" for r in found)
    assert "rows (unknown)" in (student / "README.md").read_text()
    assert "cross-entropy on the completions' tokens" in (student / "README.md").read_text()
    assert [row["loss"] for row in read_metrics(student)]
    found = evaluate(tokens_alone(recipe), folder, student, teacher=teacher)
    assert found.table["distilled"]["kl"].mean > 0
    before = (student / "model.safetensors").read_bytes()
    train(tokens_alone(recipe), folder, student, teacher=teacher, fresh=True)
    assert (student / "model.safetensors").read_bytes() == before


def test_a_run_of_tokens_alone_needs_no_logits(made, tmp_path):
    recipe, run, teacher = made
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(copy / "generated" / "logits")
    with pytest.raises(CorpusError, match="has no logits beside it") as caught:
        train(recipe, copy, teacher=teacher)
    assert "train.kd_weight: 0" in caught.value.hint
    student = train(tokens_alone(recipe), copy, tmp_path / "student", teacher=teacher)
    kept = sum(len(r) for _, r in corpus.records(copy / "curated", "data", "train"))
    assert json.loads((student / "training.json").read_text())["rows"] == kept
    assert not (student / "baseline").exists(), "it would be the same student"


@pytest.mark.parametrize(
    ("row", "says", "kind"),
    [
        ({"question": "a", "answer": "b"}, "no prompt .*; the row has answer, question", RecipeError),
        ({"prompt": "a"}, "no completion", RecipeError),
        ({"prompt": "a", "completion": [{"role": "assistant"}]}, "not one message of text", CorpusError),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_learned_from(made, tmp_path, row, says, kind):
    recipe, _, teacher = made
    folder = dataset(tmp_path / "rows", [{"prompt": "p", "completion": "c"}, row])
    with pytest.raises(kind, match=says) as caught:
        train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher)
    assert "line 2" in str(caught.value)
    assert caught.value.hint
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c"}) + "\n" + "{")
    with pytest.raises(RecipeError, match="line 2"):
        train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher)
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "p q", "completion": "c"}) + "\n")
    train(tokens_alone(recipe), folder, tmp_path / "student", teacher=teacher)


def test_a_dataset_needs_a_place_for_its_student(made, tmp_path):
    recipe, _, teacher = made
    folder = dataset(tmp_path / "rows", [{"prompt": "p", "completion": "c"}])
    with pytest.raises(UserError, match="is a dataset, not a run") as caught:
        train(tokens_alone(recipe), folder, teacher=teacher)
    assert "-o" in caught.value.hint


def test_rows_without_tokens(made, tmp_path):
    """What an API teacher writes has no tokens of the student's."""
    _recipe, run, teacher = made
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    for path in (copy / "curated" / "data").glob("*.parquet"):
        records = corpus.from_rows(corpus._read(path).to_pylist())
        import pyarrow.parquet as pq

        schema = pq.read_schema(path)
        for record in records:
            object.__setattr__(record, "token_ids", None)
        pq.write_table(to_table(records).replace_schema_metadata(schema.metadata), path)
    with pytest.raises(CorpusError, match="has no tokens: its teacher sent none"):
        load(copy / "curated", teacher.render, 256, labels_alone=True)


def test_a_run_that_holds_nothing_yet_is_no_dataset(made, tmp_path):
    recipe, _, teacher = made
    (tmp_path / "run").mkdir()
    for name in ("recipe.yaml", "log.jsonl"):
        (tmp_path / "run" / name).write_text("{}\n")
    (tmp_path / "empty").mkdir()
    for folder in ("run", "empty"):
        with pytest.raises(CorpusError, match="there is no corpus in"):
            train(recipe, tmp_path / folder, teacher=teacher)


def test_an_audit_that_says_no_holds_for_the_rows_of_its_run(made, tmp_path):
    """Naming the folder of a run's rows is no way around its audit."""
    recipe, run, teacher = made
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    denied = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"license": "CC-BY-NC-4.0"})})
    assert synthgen.audit(denied, copy).status == "DENY"
    with pytest.raises(GateDenied, match="says DENY"):
        train(tokens_alone(recipe), copy / "curated" / "data", tmp_path / "student", teacher=teacher)
    student = train(
        tokens_alone(recipe), copy / "curated" / "data", tmp_path / "student", teacher=teacher, override_audit=True
    )
    assert "training was forced with `--override-audit`" in (student / "README.md").read_text()


def test_answers_alone_have_stored_states_of_their_own(made, tmp_path):
    """Of the same rows, the same teacher and the same layer, but of other tokens."""
    recipe, run, _ = made
    found = {}
    for mode in ("dropped", "then_answer"):
        for stored in (True, False):
            values = recipe.train.model_dump(mode="json", exclude_none=True) | {
                "student": {"kind": "decoder", "config": {"num_hidden_layers": 1}},
                **{"rationale": {"mode": mode}, "hidden": {"stored": stored}, "max_steps": 2, "baseline": False},
            }
            changed = recipe.model_copy(update={"train": TrainSection.model_validate(values)})
            out = train(changed, run, tmp_path / f"{mode}-{stored}")
            found[mode, stored] = [row["hidden"] for row in read_metrics(out)]
        assert found[mode, True] == pytest.approx(found[mode, False], rel=5e-3)
    assert found["dropped", True] != pytest.approx(found["then_answer", True], rel=5e-3)
