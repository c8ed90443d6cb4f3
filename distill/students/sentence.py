"""Sentence encoders: a smaller model whose pooled vectors are the teacher's.

The teacher is an embedding model; it reads each text once, before the first step. A student of another width learns a
projection (Dense, without bias) as part of itself, so its vectors have the teacher's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoModel

from distill.arms import DISTILLED, Arms, StudentModel, steps_of, train_arms
from distill.data import NO_ROWS, rows, validation_rows
from distill.job import Job
from distill.loop import Objective
from distill.students.build import from_config, from_layers, in_words, layer_map
from distill.students.labels import prompt_text
from synthgen.errors import CorpusError
from synthgen.lm.load import load_weights
from synthgen.recipe import local_teacher
from synthgen.results.training import Training
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import SentenceStudent
from synthgen.teachers.embedding import EmbeddingModel, SentenceEncoder


@dataclass(frozen=True)
class Sentence:
    """One text in the student's tokens, and the teacher's vector of it."""

    ids: list[int]
    vector_D: Tensor


class FromVectors(Objective[Sentence]):
    """A student on its teacher's vectors: the mean over the step's texts of `distance` (see SentenceStudent)."""

    def __init__(self, model: SentenceEncoder, distance: str) -> None:
        super().__init__()
        self.model, self.distance = model, distance

    def forward(self, rows: Sequence[Sentence], step: Sequence[Sentence]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`."""
        own_BD = self.model([row.ids for row in rows]).float()
        taught_BD = torch.stack([row.vector_D for row in rows]).to(own_BD.device)
        if self.distance == "cosine":
            distance_B = 1 - nn.functional.cosine_similarity(own_BD, taught_BD, dim=-1)
        else:
            distance_B = (own_BD - taught_BD).square().mean(-1)
        loss = distance_B.sum() / len(step)
        return loss, {"loss": float(loss.detach())}

    def tokens(self, rows: Sequence[Sentence]) -> int:
        """Tokens read."""
        return sum(len(row.ids) for row in rows)


def sentence(student: SentenceStudent, teacher: SentenceEncoder, seed: int) -> SentenceEncoder:
    """The student that a recipe names, before training: the same weights whenever it is called.

    Raises RecipeError for one that cannot be made, TeacherError for a checkpoint that cannot be loaded.
    """
    tokenizer, context = teacher.tokenizer, teacher.context
    if student.model is not None:
        model, tokenizer, _ = load_weights(TeacherSection(model=student.model), AutoModel)
        model = model.float()
    elif student.config is not None:
        model = from_config(teacher.model.config, student.config, seed, AutoModel)
    else:
        model = from_layers(teacher.model, layers_of(student, teacher), AutoModel)
    if getattr(model, "pooler", None) is not None:
        model.pooler.requires_grad_(False)  # nothing reads it
    torch.manual_seed(seed)
    width, dense = int(model.config.hidden_size), None
    if teacher.dense is not None and student.model is None and width == teacher.model.config.hidden_size:
        dense = nn.Linear(width, teacher.width, bias=teacher.dense.bias is not None)
        dense.load_state_dict(teacher.dense.state_dict())
    elif width != teacher.width:
        dense = nn.Linear(width, teacher.width, bias=False)
    whole = SentenceEncoder(model, tokenizer, teacher.pooling, teacher.normalize, dense, context)
    return whole.train()


def layers_of(student: SentenceStudent, teacher: SentenceEncoder) -> list[int]:
    """The teacher's layers that the student keeps; half of them, if the recipe does not say."""
    depth = int(teacher.model.config.num_hidden_layers)
    return layer_map((depth + 1) // 2 if student.layers is None else student.layers, depth)


def describe(student: SentenceStudent, teacher: SentenceEncoder, model: SentenceEncoder) -> str:
    """What the student `model` was made from, for cards."""
    if student.model is not None:
        origin = f"the checkpoint {student.model}"
    elif student.config is not None:
        origin = f"random weights, the teacher's config but for {in_words(student.config)}"
    else:
        origin = f"the teacher's layers {layers_of(student, teacher)} and its embeddings"
    origin += f"; {model.pooling} pooling{', normalized' if model.normalize else ''}"
    if model.dense is None:
        return origin
    return f"{origin}; a Dense projection from {model.model.config.hidden_size} to {model.width} numbers is part of it"


def train(job: Job) -> Training:
    """Train a sentence encoder on all texts of the train split; see `Kind.train`. It has no baseline."""
    section, student = job.section, _section(job)
    teacher = EmbeddingModel.open(local_teacher(job.recipe))
    first = sentence(student, teacher.model, section.seed)
    job.ui.note("train: the teacher's vectors")
    most = min(section.max_length, first.context)
    texts, too_long = load_sentences(job.source, teacher, first, most, "train", section.share)
    if not texts:
        raise CorpusError(f"{job.source} {NO_ROWS}", "see the rejected rows: `synthgen show --rejected`")
    validation = validation_rows(
        section, job.source, lambda: load_sentences(job.source, teacher, first, most, "validation")[0]
    )
    curves = train_arms(
        Arms(
            lambda: StudentModel(sentence(student, teacher.model, section.seed)),
            {DISTILLED: lambda model: FromVectors(model, student.distance)},
            texts,
            validation,
            first.tokenizer,
            teacher.model.device,
        ),
        job,
    )
    return Training(
        student=describe(student, teacher.model, first),
        learns_by=f"{student.distance} distance from vectors",
        learned_from="the teacher's vectors",
        steps=steps_of(len(texts), section),
        rows=len(texts),
        left_out={"too_long": too_long},
        metrics=curves,
        loss_unit=f"{student.distance} distance",
    )


def _section(job: Job) -> SentenceStudent:
    assert isinstance(job.section.student, SentenceStudent)
    return job.section.student


def load_sentences(
    source: Path, teacher: EmbeddingModel, student: SentenceEncoder, most: int, split: str, share: float = 1.0
) -> tuple[list[Sentence], int]:
    """The texts of a split with the teacher's vectors, which is the one place where such students get them; and how
    many have more tokens than `most`.

    The vectors of one corpus's texts are the same bits whenever they are computed.
    """
    texts = [prompt_text(record) for record, _ in rows(source, split, share)]
    ids = student.tokens(texts, whole=True)
    vectors_ND = teacher.model.vectors(texts, teacher.batch_size)
    data = [Sentence(i, vector_D) for i, vector_D in zip(ids, vectors_ND, strict=True) if len(i) <= most]
    return data, len(texts) - len(data)


def open_student(folder: str | Path, batch_size: int, device: torch.device) -> EmbeddingModel:
    """A trained sentence encoder; see `Kind.open`."""
    section = {"model": str(Path(folder).resolve()), "batch_size": batch_size, "device": device.type}
    return EmbeddingModel.open(TeacherSection.model_validate(section))


def untrained(job: Job) -> SentenceEncoder:
    """The job's sentence encoder before its first step; see `Kind.untrained`."""
    teacher = EmbeddingModel.open(local_teacher(job.recipe)).model
    return sentence(_section(job), teacher, job.section.seed).eval().to(teacher.device)
