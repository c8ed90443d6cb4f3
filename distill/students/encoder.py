"""Encoders with a classification head: stock transformers models on the teacher's class probabilities.

encoder = Encoder.load("runs/demo/student")
encoder.predict(["where is my parcel?"])             # (1, labels) probabilities
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distill import losses
from distill.arms import BASELINE, DISTILLED, Arms, StudentModel, steps_of, train_arms
from distill.data import NO_ROWS, rows, validation_rows
from distill.intervals import Array
from distill.job import Job
from distill.loop import Objective
from distill.students.build import in_words, random_weights
from distill.students.labels import learns_by, prompt_text
from distill.targets.stored import shape_of
from synthgen.errors import CorpusError, RecipeError
from synthgen.lm.load import load_tokenizer, load_weights, pick_device
from synthgen.recipe import TrainSection, local_teacher
from synthgen.results.training import Training
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import EncoderStudent
from synthgen.teachers.encoder import context_of, padded, token_ids

_BATCH = 64  # texts at once when predicting


@dataclass(frozen=True)
class Text:
    """One row to learn from: its tokens and the teacher's probabilities of the labels."""

    ids: list[int]
    probs: Sequence[float]
    kept: bool


class FromProbabilities(Objective[Text]):
    """A classifier on the teacher's probabilities.

    kd_weight · divergence over every row + (1 − kd_weight) · cross-entropy with the teacher's likeliest label over
    the rows that curation kept, each a mean over its own rows of the step. With `labels_alone` (the baseline),
    cross-entropy over every row. `pad` is the padding token.
    """

    def __init__(self, model: PreTrainedModel, pad: int, section: TrainSection, labels_alone: bool = False) -> None:
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
        kd = losses.divergence(z_BL, losses.Dense(p_BL.log()), section.loss, **shape_of(section)).sum() / len(step)
        kept_B = torch.tensor([float(row.kept) for row in rows], device=z_BL.device)
        ce = (ce_B * kept_B).sum() / max(1, sum(row.kept for row in step))
        loss = section.kd_weight * kd + (1 - section.kd_weight) * ce
        parts = {"loss": loss, "distillation": kd, "cross_entropy": ce}
        return loss, {name: float(part.detach()) for name, part in parts.items()}

    def tokens(self, rows: Sequence[Text]) -> int:
        """Tokens read."""
        return sum(len(row.ids) for row in rows)


def train(job: Job) -> Training:
    """Train an encoder and its baseline on the same batches; see `Kind.train`."""
    section, tokenizer = job.section, _tokenizer(job)
    first = _make(job, tokenizer)
    context = context_of(first.config, tokenizer)
    rows, too_long = _texts(job, tokenizer, min(section.max_length, context), "train")
    if not rows:
        raise CorpusError(f"{job.source} {NO_ROWS}", "see the rejected rows: `synthgen show --rejected`")
    validation = validation_rows(section, job.source, lambda: _texts(job, tokenizer, context, "validation")[0])
    curves = train_arms(
        Arms(
            lambda: StudentModel(_make(job, tokenizer)),
            _objectives(section, tokenizer.pad_token_id),
            rows,
            validation,
            tokenizer,
            pick_device(local_teacher(job.recipe).device),
        ),
        job,
    )
    return Training(
        student=describe(_section(job), first.config.model_type),
        learns_by=learns_by(section),
        learned_from="the teacher's label probabilities",
        steps=steps_of(len(rows), section),
        rows=len(rows),
        rows_kept=sum(row.kept for row in rows),
        left_out={"too_long": too_long},
        metrics=curves,
    )


def _section(job: Job) -> EncoderStudent:
    assert isinstance(job.section.student, EncoderStudent)
    return job.section.student


def _tokenizer(job: Job) -> PreTrainedTokenizerBase:
    return tokenizer_of(_section(job), local_teacher(job.recipe).model)


def _make(job: Job, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return encoder(_section(job), tokenizer, job.labels, job.section.seed)


def _texts(job: Job, tokenizer: PreTrainedTokenizerBase, most: int, split: str) -> tuple[list[Text], int]:
    """The rows of a split, which is the one place where such students get them; and how many are too long."""
    return load_texts(job.source, tokenizer, most, split, job.section.share if split == "train" else 1.0)


def _objectives(section: TrainSection, pad: int) -> dict[str, Callable[[nn.Module], Objective[Text]]]:
    arms: dict[str, Callable[[nn.Module], Objective[Text]]] = {
        DISTILLED: lambda model: FromProbabilities(model, pad, section)
    }
    if section.baseline:
        arms[BASELINE] = lambda model: FromProbabilities(model, pad, section, labels_alone=True)
    return arms


def describe(student: EncoderStudent, model_type: str) -> str:
    """What the student was made from, for cards."""
    what = f"{model_type} encoder with a classification head"
    if student.model is not None:
        return f"{what} from the checkpoint {student.model}"
    return f"{what} of random weights: {in_words(student.config or {})}"


def tokenizer_of(student: EncoderStudent, teacher: str) -> PreTrainedTokenizerBase:
    """The student's tokenizer: its checkpoint's, the one that is named, or that of the model `teacher`.

    It pads on the right. Raises TeacherError for one that cannot be loaded, RecipeError for one that cannot pad.
    """
    tokenizer = load_tokenizer(student.model or student.tokenizer or teacher)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise RecipeError(
            "the student's tokenizer has no token to pad with", "name another one in train.student.tokenizer"
        )
    tokenizer.padding_side = "right"
    return tokenizer


def encoder(
    student: EncoderStudent, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], seed: int
) -> PreTrainedModel:
    """The student that a recipe names, before training: the same weights whenever it is called.

    Raises RecipeError for one that cannot be made, TeacherError for a checkpoint that cannot be loaded.
    """
    classes = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(seed)  # a checkpoint's head is new, too
    if student.model is not None:
        section = TeacherSection(model=student.model)
        model = load_weights(section, AutoModelForSequenceClassification, **classes, ignore_mismatched_sizes=True)[
            0
        ].float()
    else:
        model = random_weights(AutoModelForSequenceClassification, student.config or {}, tokenizer, classes)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.train()


def load_texts(
    source: Path, tokenizer: PreTrainedTokenizerBase, most: int, split: str, share: float = 1.0
) -> tuple[list[Text], int]:
    """The rows of a split, and how many were left out for having more tokens than `most`.

    Raises CorpusError when one has no class probabilities.
    """
    records = rows(source, split, share)
    if any(not record.label_probs for record, _ in records):
        raise CorpusError(f"{source} has no class probabilities to learn from", "generate with strategy: classify")
    ids = token_ids(tokenizer, [prompt_text(record) for record, _ in records])
    data = [Text(i, r.label_probs or (), kept) for i, (r, kept) in zip(ids, records, strict=True) if len(i) <= most]
    return data, len(records) - len(data)


@dataclass
class Encoder:
    """A trained encoder and its tokenizer, as stock transformers loads them."""

    labels: list[str]
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Encoder:
        """From the folder that training wrote."""
        if not (Path(folder) / "config.json").exists():
            raise CorpusError(f"'{folder}' holds no student (no config.json)", "train one: `distill train RUN`")
        model = (
            AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
            .to(device)
            .eval()
        )
        names = {int(i): name for i, name in json.loads((Path(folder) / "config.json").read_text())["id2label"].items()}
        return cls(
            [names[i] for i in sorted(names)], model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        )

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


def open_student(folder: str | Path, batch_size: int, device: torch.device) -> Encoder:
    """A trained encoder; see `Kind.open`."""
    return Encoder.load(folder, device)


def untrained(job: Job) -> Encoder:
    """The job's encoder before its first step; see `Kind.untrained`."""
    tokenizer = _tokenizer(job)
    return Encoder(list(job.labels), _make(job, tokenizer).eval(), tokenizer)
