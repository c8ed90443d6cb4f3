"""Decoder students: causal language models from the teacher's layers, from a checkpoint, or with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from distill.arms import StudentModel
from distill.job import Job
from distill.students import completions, online
from distill.students.build import from_config, in_words, layer_map, with_adapter
from distill.students.layers import from_layers
from synthgen.lm.files import ModelFiles
from synthgen.lm.load import load_model
from synthgen.lm.weights import Weights
from synthgen.results.training import Training
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import KINDS, DecoderStudent
from synthgen.teachers.transformers import LocalModel

DEFAULT_LAYERS = 6


def train(job: Job) -> Training:
    """Train a decoder and its baseline on the same batches. See `Kind.train`."""
    teach = online.train if job.section.online else completions.train
    student = _section(job)
    depth = job.teacher.weights.layers if KINDS[student.kind].copies_teacher(student) else 0
    return teach(job, lambda longest: _make(job), describe(student, depth))


def _section(job: Job) -> DecoderStudent:
    assert isinstance(job.section.student, DecoderStudent)
    return job.section.student


def _make(job: Job) -> StudentModel:
    return decoder(_section(job), lambda: job.teacher.weights, job.section.seed)


def decoder(student: DecoderStudent, teacher: Callable[[], Weights], seed: int) -> StudentModel:
    """Build the untrained student of a recipe, with the same weights at every call.

    `teacher` returns the teacher's weights. The function `teacher` is called only if the student copies layers of the
    teacher or has the teacher's config. Raises RecipeError when the student cannot be built.
    """
    if student.model is not None:
        model = load_model(ModelFiles.find(student.model), "float32").float()
    elif student.config is not None:
        model = from_config(teacher().config, student.config, seed)
    else:
        model = from_layers(teacher().model, layers_of(student, teacher().layers))
    model.train()
    if student.lora is None:
        return StudentModel(model)
    return with_adapter(model, student.lora, seed, _base(student, teacher))


def _base(student: DecoderStudent, teacher: Callable[[], Weights]) -> tuple[str, str | None] | None:
    """(name, revision) of the checkpoint whose weights the untrained student has. None when the student has no
    checkpoint's weights.

    A local folder is named by its whole path, so that peft finds it from any folder.
    """
    files = ModelFiles.find(student.model) if student.model is not None else None
    if student.model is None and student.config is None:
        weights = teacher()
        whole = layers_of(student, weights.layers) == list(range(weights.layers))
        files = weights.files if whole else None
    if files is None:
        return None
    name, arguments = files.whole()
    return (name, arguments.get("revision")) if files.place is None else (str(Path(name).resolve()), None)


def layers_of(student: DecoderStudent, depth: int) -> list[int]:
    """The teacher's layers that the student keeps; the teacher has `depth` layers. Raises RecipeError for an unknown
    layer.
    """
    return layer_map(DEFAULT_LAYERS if student.layers is None else student.layers, depth)


def describe(student: DecoderStudent, depth: int) -> str:
    """Describe what the student was made from, for the model card. `depth` is the number of layers of a teacher whose
    layers the student keeps.
    """
    if student.model is not None:
        origin = f"the checkpoint {student.model}"
    elif student.config is not None:
        origin = f"random weights, the teacher's config but for {in_words(student.config)}"
    else:
        origin = f"the teacher's layers {layers_of(student, depth)}, its embeddings and output"
    return origin if student.lora is None else f"{origin}; low-rank adapters (r = {student.lora.r}), merged"


def open_student(folder: str | Path, batch_size: int, device: torch.device) -> LocalModel:
    """Open a trained decoder. See `Kind.open`."""
    section = {"model": str(Path(folder).resolve()), "batch_size": batch_size, "device": device.type}
    return LocalModel.open(TeacherSection.model_validate(section))


def untrained(job: Job) -> LocalModel:
    """Build the job's decoder as it is before the first training step. See `Kind.untrained`.

    Low-rank adapters are left out, because they add exactly zero before the first step: peft begins with B = 0.
    """
    student = _section(job).model_copy(update={"lora": None})
    model = decoder(student, lambda: job.teacher.weights, job.section.seed).model
    return LocalModel.of(model.eval().to(job.device), job.tokens, job.runs.batch_size)
