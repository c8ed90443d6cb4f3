"""Sentence encoders: a smaller model whose pooled vectors are the teacher's.

The teacher is an embedding model, and is asked here, once for each text, before the first step. A student of another
width learns a projection (Dense, without bias) beside itself, and keeps it: its vectors are then the teacher's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from distill.data import batch_rows, rows
from distill.loop import Objective
from distill.students.build import Student, from_config, from_layers, layer_map
from distill.students.classifier import prompt_text
from distill.students.decoder import steps_of, train_arms
from synthgen.errors import CorpusError, UserError
from synthgen.lm.load import load_weights
from synthgen.recipe import Recipe, local_teacher
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import SentenceStudent
from synthgen.teachers.embedding import EmbeddingModel, SentenceEncoder
from synthgen.ui import UI


@dataclass(frozen=True)
class Sentence:
    """One text in the student's tokens, and the teacher's vector of it."""

    ids: list[int]
    vector_D: Tensor


class FromVectors(Objective):
    """A student on its teacher's vectors: the mean over the step's texts of `distance` (see SentenceStudent)."""

    def __init__(self, model: SentenceEncoder, distance: str) -> None:
        super().__init__()
        self.model, self.distance = model, distance

    def forward(self, rows: Sequence[Sentence], step: Sequence[Sentence]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`."""
        mine_BD = self.model([row.ids for row in rows]).float()
        theirs_BD = torch.stack([row.vector_D for row in rows]).to(mine_BD.device)
        if self.distance == "cosine":
            distance_B = 1 - nn.functional.cosine_similarity(mine_BD, theirs_BD, dim=-1)
        else:
            distance_B = (mine_BD - theirs_BD).square().mean(-1)
        loss = distance_B.sum() / len(step)
        return loss, {"loss": float(loss.detach())}

    def tokens(self, rows: Sequence[Sentence]) -> int:
        """Tokens read."""
        return sum(len(row.ids) for row in rows)


def sentence(student: SentenceStudent, teacher: SentenceEncoder, seed: int) -> SentenceEncoder:
    """The student that a recipe names, before training: the same weights whenever it is called.

    Raises RecipeError for one that cannot be, TeacherError for a checkpoint that cannot be loaded.
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
    made = SentenceEncoder(model, tokenizer, teacher.pooling, teacher.normalize, dense, context)
    return made.train()


def layers_of(student: SentenceStudent, teacher: SentenceEncoder) -> list[int]:
    """The teacher's layers that the student keeps; half of them, if the recipe does not say."""
    depth = int(teacher.model.config.num_hidden_layers)
    return layer_map((depth + 1) // 2 if student.layers is None else student.layers, depth)


def describe(student: SentenceStudent, teacher: SentenceEncoder, made: SentenceEncoder) -> str:
    """What the student was made from, for cards."""
    if student.model is not None:
        text = f"the checkpoint {student.model}"
    elif student.config is not None:
        text = "random weights, the teacher's config but for " + ", ".join(
            f"{k} {v}" for k, v in student.config.items()
        )
    else:
        text = f"the teacher's layers {layers_of(student, teacher)} and its embeddings"
    text += f"; {made.pooling} pooling{', normalized' if made.normalize else ''}"
    narrow = int(made.model.config.hidden_size)
    return (
        text if made.dense is None else f"{text}; a projection (Dense) of its {narrow} numbers to {made.width} is kept"
    )


def train_sentence(recipe: Recipe, source: Path, folder: Path, ui: UI) -> dict[str, Any]:
    """Train on all texts of the train split; returns what training.json says."""
    section = recipe.train
    assert section is not None
    student = section.student
    assert isinstance(student, SentenceStudent)
    teacher = EmbeddingModel.open(local_teacher(recipe))
    first = sentence(student, teacher.model, section.seed)
    ui.note("train: the teacher's vectors")
    most = min(section.max_length, first.context)
    data, too_long = load_sentences(source, teacher, first, most, "train", section.share)
    if not data:
        raise CorpusError(f"{source} has no texts to train on", "look at the rejects: `synthgen show --rejected`")
    validation = load_sentences(source, teacher, first, most, "validation")[0] if section.eval_steps else []
    if section.eval_steps and not validation:
        raise UserError(f"train.eval_steps is set, and {source} has no validation rows", "set split.validation")
    steps = steps_of(len(data), section)
    curves = train_arms(
        {"distilled": lambda model: FromVectors(model, student.distance)},
        lambda: Student(sentence(student, teacher.model, section.seed)),
        lambda step: [data[i] for i in batch_rows(step, len(data), section.batch_size, section.seed)],
        section,
        steps,
        folder,
        teacher.model.device,
        first.tokenizer,
        ui,
        validation,
    )
    return {
        "kind": "sentence",
        "student": describe(student, teacher.model, first),
        "distance": student.distance,
        "steps": steps,
        "rows": len(data),
        "rows left out": {"longer than max_length": too_long},
        "metrics": curves,
    }


def load_sentences(
    source: Path, teacher: EmbeddingModel, student: SentenceEncoder, most: int, split: str, share: float = 1.0
) -> tuple[list[Sentence], int]:
    """The texts of a split with the teacher's vectors, and how many were left out for having more tokens than `most`.

    A vector is a function of the texts alone: of those of one corpus it is the same bits whenever it is made.
    """
    texts = [prompt_text(record) for record, _ in rows(source, split, share)]
    ids = student.tokens(texts, whole=True)
    vectors_ND = teacher.model.vectors(texts, teacher.batch_size)
    data = [Sentence(i, vector_D) for i, vector_D in zip(ids, vectors_ND, strict=True) if len(i) <= most]
    return data, len(texts) - len(data)
