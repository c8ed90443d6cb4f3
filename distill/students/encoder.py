"""Encoders with a classification head: stock transformers models on the teacher's class probabilities.

encoder = Encoder.load("runs/demo/student")
encoder.predict(["where is my parcel?"])             # (1, labels) probabilities
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill import losses
from distill.data import batch_rows, rows
from distill.intervals import Array
from distill.loop import Objective
from distill.students.build import Student, describe_origin, random_weights
from distill.students.classifier import prompt_text
from distill.students.decoder import steps_of, train_arms
from synthgen.errors import CorpusError, RecipeError, UserError
from synthgen.lm.load import load_tokenizer, load_weights, pick_device
from synthgen.recipe import Recipe, TrainSection, local_teacher
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import EncoderStudent
from synthgen.teachers.encoder import context_of, padded, token_ids
from synthgen.ui import UI

_BATCH = 64  # texts at once when predicting


@dataclass(frozen=True)
class Text:
    """One row to learn from: its tokens and the teacher's probabilities of the labels."""

    ids: list[int]
    probs: Sequence[float]
    kept: bool


class FromProbabilities(Objective):
    """A classifier on the teacher's probabilities.

    kd_weight · divergence over every row + (1 − kd_weight) · cross-entropy with the teacher's likeliest label over
    the rows that curation kept, each a mean over its own rows of the step. With `labels_alone` (the baseline),
    cross-entropy over every row.
    """

    def __init__(self, model: Any, pad: int, section: TrainSection, labels_alone: bool = False) -> None:
        super().__init__()
        self.model, self.pad, self.section, self.labels_alone = model, pad, section, labels_alone

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`."""
        section = self.section
        z_BL = self.model(**padded([row.ids for row in rows], self.pad, self.model.device)).logits
        p_BL = torch.tensor([list(row.probs) for row in rows], device=z_BL.device)
        ce_B = losses.cross_entropy(z_BL, p_BL.argmax(-1))
        if self.labels_alone or section.kd_weight == 0:
            ce = ce_B.sum() / len(step)
            return ce, {"loss": float(ce.detach()), "cross_entropy": float(ce.detach())}
        shape: dict[str, Any] = {k: v for k, v in (("beta", section.beta), ("alpha", section.alpha)) if v is not None}
        kd = losses.divergence(z_BL, losses.Dense(p_BL.log()), section.loss, **shape).sum() / len(step)
        kept_B = torch.tensor([float(row.kept) for row in rows], device=z_BL.device)
        ce = (ce_B * kept_B).sum() / max(1, sum(row.kept for row in step))
        loss = section.kd_weight * kd + (1 - section.kd_weight) * ce
        parts = {"loss": loss, "distillation": kd, "cross_entropy": ce}
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def tokens(self, rows: Sequence[Text]) -> int:
        """Tokens read."""
        return sum(len(row.ids) for row in rows)


def encoder(student: EncoderStudent, teacher: TeacherSection, labels: Sequence[str], seed: int) -> tuple[Any, Any]:
    """(model, tokenizer) of the student that a recipe names, before training: the same weights whenever called.

    Raises RecipeError for one that cannot be, TeacherError for a checkpoint or tokenizer that cannot be loaded.
    """
    classes = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(seed)  # a checkpoint's head is new, too
    if student.model is not None:
        section = TeacherSection(model=student.model)
        changes = {**classes, "ignore_mismatched_sizes": True}
        model, tokenizer, _ = load_weights(section, AutoModelForSequenceClassification, **changes)
        model = model.float()
        _padding(tokenizer)
    else:
        tokenizer = load_tokenizer(student.tokenizer or teacher.model)
        _padding(tokenizer)
        model = random_weights(AutoModelForSequenceClassification, student.config or {}, tokenizer, classes)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.train(), tokenizer


def _padding(tokenizer: Any) -> None:
    """A tokenizer that pads on the right."""
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise RecipeError(
            "the student's tokenizer has no token to pad with", "name another one in train.student.tokenizer"
        )
    tokenizer.padding_side = "right"


def train_encoder(recipe: Recipe, source: Path, made: dict[str, Any], folder: Path, ui: UI) -> dict[str, Any]:
    """Both arms on the same batches; returns what training.json says."""
    section = recipe.train
    assert section is not None
    student, labels = section.student, made["labels"]
    assert isinstance(student, EncoderStudent)
    first, tokenizer = encoder(student, local_teacher(recipe), labels, section.seed)
    context = context_of(first.config, tokenizer)
    data, too_long = load_texts(source, tokenizer, min(section.max_length, context), "train", section.share)
    if not data:
        raise CorpusError(f"{source} has no rows to train on", "look at the rejects: `synthgen show --rejected`")
    validation = load_texts(source, tokenizer, context, "validation")[0] if section.eval_steps else []
    if section.eval_steps and not validation:
        raise UserError(f"train.eval_steps is set, and {source} has no validation rows", "set split.validation")
    device = pick_device(local_teacher(recipe).device)
    pad = tokenizer.pad_token_id
    steps = steps_of(len(data), section)
    arms = {"distilled": lambda model: FromProbabilities(model, pad, section)}
    if section.baseline:
        arms["cross-entropy"] = lambda model: FromProbabilities(model, pad, section, labels_alone=True)
    curves = train_arms(
        arms,
        lambda: Student(encoder(student, local_teacher(recipe), labels, section.seed)[0]),
        lambda step: [data[i] for i in batch_rows(step, len(data), section.batch_size, section.seed)],
        section,
        steps,
        folder,
        device,
        tokenizer,
        ui,
        validation,
    )
    return {
        "kind": "encoder",
        "student": describe_origin(student, f"{first.config.model_type} encoder with a classification head"),
        "steps": steps,
        "rows": len(data),
        "rows kept by curation": sum(row.kept for row in data),
        "rows left out": {"longer than max_length": too_long},
        "metrics": curves,
    }


def load_texts(source: Path, tokenizer: Any, most: int, split: str, share: float = 1.0) -> tuple[list[Text], int]:
    """The rows of a split, and how many were left out for having more tokens than `most`.

    Raises CorpusError when one has no class probabilities.
    """
    found = rows(source, split, share)
    if any(not record.label_probs for record, _ in found):
        raise CorpusError(f"{source} has no class probabilities to learn from", "generate with strategy: classify")
    ids = token_ids(tokenizer, [prompt_text(record) for record, _ in found])
    data = [Text(i, r.label_probs or (), kept) for i, (r, kept) in zip(ids, found, strict=True) if len(i) <= most]
    return data, len(found) - len(data)


@dataclass
class Encoder:
    """A trained encoder and its tokenizer, as stock transformers loads them."""

    labels: list[str]
    model: Any
    tokenizer: Any

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Encoder:
        """From the folder that training wrote."""
        if not (Path(folder) / "config.json").exists():
            raise CorpusError(f"'{folder}' holds no student (no config.json)", "train one: `distill train RUN`")
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).to(device).eval()
        names = {int(i): name for i, name in json.loads((Path(folder) / "config.json").read_text())["id2label"].items()}
        return cls([names[i] for i in sorted(names)], model, AutoTokenizer.from_pretrained(folder))

    @property
    def parameters(self) -> int:
        """Numbers in the model."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.inference_mode()
    def predict(self, texts: Sequence[str]) -> Array:
        """Probabilities, (texts, labels); texts that are too long are cut."""
        ids = token_ids(self.tokenizer, texts, context_of(self.model.config, self.tokenizer))
        out = np.zeros((len(texts), len(self.labels)))
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for begin in range(0, len(order), _BATCH):
            places = order[begin : begin + _BATCH]
            batch = padded([ids[i] for i in places], self.tokenizer.pad_token_id, self.model.device)
            out[places] = self.model(**batch).logits.double().softmax(-1).cpu().numpy()
        return out


def untrained(recipe: Recipe, labels: list[str]) -> Encoder:
    """The recipe's student before its first step."""
    assert recipe.train is not None
    assert isinstance(recipe.train.student, EncoderStudent)
    model, tokenizer = encoder(recipe.train.student, local_teacher(recipe), labels, recipe.train.seed)
    return Encoder(labels, model.eval(), tokenizer)
