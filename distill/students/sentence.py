"""Sentence encoders: smaller models that learn to produce the teacher's pooled vectors.

The teacher is an embedding model. The teacher reads each text once, before the first training step. If the student's
width differs from the width of the teacher's vectors, the student gets a linear projection (a Dense module) to the
width of these vectors. The projection is trained and saved as a part of the student.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from distill.arms import DISTILLED, Arms, StudentModel, steps_of, train_arms
from distill.data import Choice, validation_rows
from distill.job import Job
from distill.loop import Objective
from distill.streaming.columns import PROMPT
from distill.streaming.mapped import Mapped
from distill.streaming.stream import cache_folder, open_stream
from distill.streaming.tokencache import Floats, Reader, Row, Stored
from distill.students.build import from_config, in_words, layer_map
from distill.students.labels import texts_of, tokenizer_identity
from distill.students.layers import from_layers
from synthgen import durable
from synthgen.recipe import local_teacher
from synthgen.results.training import Training
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import SentenceStudent
from synthgen.teachers.embedding import EmbeddingModel, SentenceEncoder, encoder_class, load_encoder


@dataclass(frozen=True)
class Sentence:
    """One text in the student's tokens, and the teacher's vector of the text."""

    ids: list[int]
    vector_D: Tensor


class FromVectors(Objective[Sentence]):
    """The mean, over the step's texts, of the distance between the student's and the teacher's vectors.

    `distance` is `SentenceStudent.distance`.
    """

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
        """The number of tokens that the student reads."""
        return sum(len(row.ids) for row in rows)


def sentence(student: SentenceStudent, teacher: SentenceEncoder, seed: int) -> SentenceEncoder:
    """Build the untrained student of a recipe, with the same weights at every call.

    Raises RecipeError when the student cannot be built, and TeacherError when a checkpoint cannot be loaded.
    """
    tokenizer, context = teacher.tokenizer, teacher.context
    if student.model is not None:
        model, tokenizer, _ = load_encoder(TeacherSection(model=student.model))
        model = model.float()
    elif student.config is not None:
        model = from_config(teacher.model.config, student.config, seed, encoder_class(teacher.model.config))
    else:
        model = from_layers(teacher.model, layers_of(student, teacher))
    if getattr(model, "pooler", None) is not None:
        model.pooler.requires_grad_(False)  # the pooler's output is not used
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
    """The teacher's layers that the student keeps. By default, the student keeps half of the teacher's layers."""
    depth = int(teacher.model.config.num_hidden_layers)
    return layer_map((depth + 1) // 2 if student.layers is None else student.layers, depth)


def describe(student: SentenceStudent, teacher: SentenceEncoder, model: SentenceEncoder) -> str:
    """Describe what the student `model` was made from, for the model card."""
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
    """Train a sentence encoder on all texts of the train split, without a baseline. See `Kind.train`."""
    section, student = job.section, _section(job)
    teacher = EmbeddingModel.open(local_teacher(job.recipe))
    first = sentence(student, teacher.model, section.seed)
    job.ui.note("train: the teacher computes its vectors")
    most = min(section.max_length, first.context)
    cache = cache_folder(job.source, job.folder)
    texts = read_sentences(job.source, teacher, first, cache, Choice(most, share=section.share, targets=False))
    held_out = Choice(most, "validation", targets=False)
    validation = validation_rows(
        section, job.source, lambda: read_sentences(job.source, teacher, first, cache, held_out)
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
        left_out=texts.stream.left_out,
        metrics=curves,
        loss_unit=f"{student.distance} distance",
    )


def _section(job: Job) -> SentenceStudent:
    assert isinstance(job.section.student, SentenceStudent)
    return job.section.student


def read_sentences(
    source: Path, teacher: EmbeddingModel, student: SentenceEncoder, cache: Path, choice: Choice
) -> Mapped[Sentence]:
    """Open the texts of a split with the teacher's vectors. No other function reads rows for sentence encoders.

    Tokens and vectors are stored in `cache`, so each vector is computed once.
    """

    def vectors(rows: Sequence[Row]) -> list[Floats]:
        return list(teacher.model.vectors(texts_of(rows), teacher.batch_size).numpy())

    reader = Reader(
        durable.digest([tokenizer_identity(student.tokenizer), teacher.identity]),
        (PROMPT,),
        lambda rows: student.tokens(texts_of(rows), whole=True),
        values=vectors,
    )
    stream = open_stream(source, reader, cache, choice)

    def whole(stored: Stored) -> Sentence:
        return Sentence(stored.example.prompt, torch.from_numpy(stored.values.copy()))

    return Mapped(stream, whole, lambda stored: Sentence([], torch.empty(0)))


def open_student(folder: str | Path, batch_size: int, device: torch.device) -> EmbeddingModel:
    """Open a trained sentence encoder. See `Kind.open`."""
    section = {"model": str(Path(folder).resolve()), "batch_size": batch_size, "device": device.type}
    return EmbeddingModel.open(TeacherSection.model_validate(section))


def untrained(job: Job) -> SentenceEncoder:
    """Build the job's sentence encoder as it is before the first training step. See `Kind.untrained`."""
    teacher = EmbeddingModel.open(local_teacher(job.recipe)).model
    return sentence(_section(job), teacher, job.section.seed).eval().to(teacher.device)
