"""Evaluations with a live teacher compute no model twice, and `max_rows` does not limit the prompts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.training import LOOSE
from support.unaudited import train
from transformers import AutoModelForCausalLM

from distill.evaluation import distance, fidelity
from distill.evaluation.distance import AS_STUDENT, same_model
from distill.evaluation.evaluate import evaluate
from distill.evaluation.subject import Subject
from distill.students import decoder
from synthgen.results.statement import FEWEST
from synthgen.results.training import FILE, read_training
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI


@pytest.fixture(scope="module")
def itself(small_run, tmp_path_factory):
    """A student with all of the teacher's layers and with adapters, so that it equals its teacher before the training.
    Attributes: recipe, run, folder.
    """
    recipe, run = small_run(
        seeds=12,
        generate={"num_generations": 1, "max_new_tokens": 8, "shard_size": 64},
        logits={"kind": "sampled", "draws": 20},
        curate=LOOSE,
        train={
            "student": {"kind": "decoder", "layers": 2, "lora": {"r": 2}},
            "num_train_epochs": 2,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "baseline": False,
        },
    )
    folder = train(recipe, run, tmp_path_factory.mktemp("itself") / "student").folder
    return SimpleNamespace(recipe=recipe, run=run, folder=folder)


def job_of(itself) -> Any:
    training = read_training(itself.folder / FILE)
    return Subject(itself.recipe, training, itself.run / "curated", itself.folder, None, UI(quiet=True)).job()


def test_adapters_add_nothing_before_the_first_step(itself):
    """`untrained` leaves the adapters out. The model with untrained adapters gives exactly the same output."""
    job = job_of(itself)
    plain, adapted = decoder.untrained(job).model, decoder._make(job).model.eval()
    assert any("lora" in name for name, _ in adapted.named_modules())
    assert not any("lora" in name for name, _ in plain.named_modules())
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        assert torch.equal(plain(ids).logits, adapted(ids).logits)


def test_models_are_the_same_only_with_equal_bits_configs_and_modes(itself):
    teacher = LocalModel.open(itself.recipe.teacher).model
    folder = str(itself.recipe.teacher.model)

    def other(**keys: Any) -> Any:
        return LocalModel.of(AutoModelForCausalLM.from_pretrained(folder, **keys).eval(), None, 1).model  # type: ignore[arg-type]

    assert same_model(teacher, teacher)
    assert same_model(teacher, other())
    assert not same_model(teacher, other(dtype=torch.bfloat16))
    assert not same_model(teacher, other().train())
    assert not same_model(teacher, other(rms_norm_eps=1e-3)), "equal weights, another function"
    changed = other()
    with torch.no_grad():
        next(iter(changed.parameters()))[0, 0] += 1e-6
    assert not same_model(teacher, changed)


@pytest.fixture
def here(monkeypatch):
    """Measures speed without separate processes. Each model gives an empty answer to each question."""
    monkeypatch.setattr(fidelity, "apart", lambda function, model, asked: ({}, [""] * len(asked)))


def evaluation(itself, **settings: Any) -> Any:
    section = itself.recipe.evaluate.model_copy(update=settings)
    return evaluate(itself.recipe.model_copy(update={"evaluate": section}), itself.run, itself.folder, fresh=True)


def test_the_untrained_student_and_its_teacher_are_computed_once(itself, here, monkeypatch):
    calls: Counter[int] = Counter()
    real = distance.completion_logits

    def counted(model, *given):
        calls[id(model)] += 1
        return real(model, *given)

    monkeypatch.setattr(distance, "completion_logits", counted)
    once = evaluation(itself)
    assert sorted(calls.values()) == [1, 1], "the teacher under the student's prompt, and the distilled student"
    calls.clear()
    monkeypatch.setattr(fidelity, "same_model", lambda one, other: False)
    twice = evaluation(itself)
    assert sorted(calls.values()) == [1, 1, 1]
    assert list(once.table) == list(twice.table)
    for measure, value in once.table["untrained"].items():
        assert value == twice.table["untrained"][measure], measure
    own = once.table[AS_STUDENT]
    assert own.items() <= once.table["untrained"].items()
    assert own["kl"] != once.table["distilled"]["kl"]
    assert [s.texts["untrained"] for s in once.samples] == [s.texts["untrained"] for s in twice.samples]


def test_the_number_of_rows_does_not_limit_the_prompts(itself, here):
    whole, short = evaluation(itself), evaluation(itself, max_rows=2)
    assert short.rows == 2 < whole.rows
    assert short.counts["prompts_answered"] == whole.counts["prompts_answered"] == whole.counts["seeds"]
    assert evaluation(itself, max_rows=2, max_prompts=1).counts["prompts_answered"] == 1
    assert short.table["distilled"]["accuracy"] == whole.table["distilled"]["accuracy"]


def test_the_headline_says_when_there_are_too_few_groups_for_a_verdict(itself, monkeypatch):
    """The loss statement gives no verdict on so few groups. The headline, which stands above it, must not seem to."""
    groups = evaluation(itself).statement.entries[0].groups
    assert 1 < groups < FEWEST
    found = evaluation(itself)
    assert f"of {groups} groups. With fewer than {FEWEST} groups, intervals are too narrow" in found.headline
    assert found.headline in (itself.folder / "README.md").read_text()
    monkeypatch.setattr("distill.evaluation.evaluate.FEWEST", groups)
    assert "groups" not in evaluation(itself).headline


def test_the_headline_counts_only_prompts_with_a_reference(itself, monkeypatch):
    """Every second prompt has no reference, so no share of right answers is about it."""
    training = read_training(itself.folder / FILE)
    subject = Subject(itself.recipe, training, itself.run / "curated", itself.folder, None, UI(quiet=True))
    whole = Subject.held_out
    rows = {row.seed_id: row for row in whole(subject)}
    known = {name: ["x"] if number % 2 else [] for number, name in enumerate(rows)}
    assert 0 < sum(map(bool, known.values())) < len(known)
    monkeypatch.setattr(
        Subject,
        "held_out",
        lambda self, *limit: [replace(row, reference=known[row.seed_id]) for row in whole(self, *limit)],
    )
    monkeypatch.setattr(fidelity, "apart", lambda function, model, asked: ({}, ["x"] * len(asked)))
    found = fidelity.evaluate_live(subject, "unused")
    count = sum(map(bool, known.values()))
    assert f"the student's answers to {count} held-out prompts with a known answer are right" in found.headline
    assert found.counts["prompts_answered"] == len(rows)
