"""Classifiers and sentence encoders trained on the device: losses as on the CPU, gradient checkpointing, resuming."""

from __future__ import annotations

import math

import pytest
import torch
from support.small import small_encoder, sorting_task
from support.training import Cut, metrics_of, student_of
from support.unaudited import train
from test_encoder_student import TINY

import synthgen
from distill import evaluate
from distill.students.encoder import Encoder
from synthgen.recipe import TrainSection
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.embedding import EmbeddingModel

STUDENTS = {
    "encoder": {"kind": "encoder", "config": TINY | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}},
    "sentence": {"kind": "sentence", "config": {"hidden_size": 8, "num_hidden_layers": 1, "hidden_dropout_prob": 0.0,
                                                "attention_probs_dropout_prob": 0.0}},
}  # fmt: skip
STRATEGIES = {"encoder": {}, "sentence": {"strategy": "embed", "generate": {"shard_size": 16}}}
FAST = {"batch_size": 16, "num_train_epochs": 8, "max_steps": 6, "save_steps": 2, "learning_rate": 3e-3}
KINDS = list(STUDENTS)


@pytest.fixture(scope="module")
def sorted_(tmp_path_factory, device):
    """A function that returns (recipe, run) for a kind of student, a device of the teacher, and keys of `train`."""
    folder, done = tmp_path_factory.mktemp("gpu-sorting"), {}

    def make(kind: str, where: str = device.type, **changes):
        if kind not in done:
            teacher = small_encoder(folder / f"teacher-{kind}", headless=kind == "sentence")
            section = {"model": str(teacher), "license": "Apache-2.0", "batch_size": 16, "device": device.type}
            values = {"teacher": section, "train": {"student": STUDENTS[kind], **FAST}, **STRATEGIES[kind]}
            recipe = synthgen.load_recipe(sorting_task(folder / f"task-{kind}", teacher, 90, **values))
            synthgen.generate(recipe, folder / kind)
            synthgen.curate(recipe, folder / kind)
            done[kind] = recipe
        recipe = done[kind]
        section = TrainSection.model_validate(recipe.train.model_dump(exclude_none=True) | changes)
        teacher = recipe.teacher.model_copy(update={"device": where})
        return recipe.model_copy(update={"train": section, "teacher": teacher}), folder / kind

    return make


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_has_the_metrics_of_the_cpu(sorted_, tmp_path, kind, dtype):
    metrics = metrics_of(student_of(*sorted_(kind, dtype=dtype), tmp_path / "device"))
    expected = metrics_of(student_of(*sorted_(kind, "cpu", dtype=dtype), tmp_path / "cpu"))
    assert len(metrics) == 6
    assert all(math.isfinite(row["loss"]) for row in metrics)
    near = {"abs": 1e-4} if dtype == "float32" else {"rel": 3e-2}
    for key in expected[0].keys() - {"grad_norm"}:
        assert metrics[0][key] == pytest.approx(expected[0][key], **near), key
    assert metrics[-1]["loss"] == pytest.approx(expected[-1]["loss"], rel=0.05 if dtype == "float32" else 0.15)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_loss(sorted_, tmp_path, kind):
    a, b = (
        metrics_of(student_of(*sorted_(kind, gradient_checkpointing=on, baseline=False), tmp_path / str(on)))
        for on in (False, True)
    )
    assert a[0]["loss"] == b[0]["loss"]
    assert [row["loss"] for row in a] == pytest.approx([row["loss"] for row in b], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_student_has_the_same_bytes(sorted_, tmp_path, kind):
    dropped = {key: 0.3 for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")}
    student = STUDENTS[kind] | {"config": STUDENTS[kind]["config"] | dropped}
    recipe, run = sorted_(kind, student=student, baseline=False)
    whole = student_of(recipe, run, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run, tmp_path / "cut", ui=Cut(3))
    resumed = student_of(recipe, run, tmp_path / "cut")
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name


def test_trained_students_load_on_the_device(sorted_, tmp_path, device):
    texts = ["where is my parcel", "lost", "the app crashes twice"]
    folder = student_of(*sorted_("encoder", baseline=False), tmp_path / "encoder")
    a, b = (Encoder.load(folder, where).predict(texts) for where in (device.type, "cpu"))
    assert abs(a - b).max() < 1e-4
    folder = student_of(*sorted_("sentence"), tmp_path / "sentence")
    a, b = (
        EmbeddingModel.open(TeacherSection(model=str(folder), device=where)).model.vectors(texts)
        for where in (device.type, "cpu")
    )
    assert torch.allclose(a, b, atol=1e-4)


def test_a_sentence_encoder_is_measured(sorted_, tmp_path):
    recipe, run = sorted_("sentence")
    found = evaluate(recipe, run, student_of(recipe, run, tmp_path / "student"))
    assert found.table["distilled"]["rows_per_second"] > 0
    assert math.isfinite(found.table["distilled"]["spearman"].mean)
