"""Encoders with a classification head: standard transformers models that learn the teacher's label probabilities.

encoder = Encoder.load("runs/demo/student")
encoder.predict(["where is my parcel?"])             # (1, labels) probabilities
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distill import losses
from distill.arms import BASELINE, DISTILLED, Arms, StudentModel, steps_of, train_arms
from distill.data import Choice, validation_rows
from distill.intervals import Array
from distill.job import Job
from distill.loop import Objective
from distill.streaming.mapped import Mapped
from distill.streaming.stream import cache_folder, open_stream
from distill.students.build import in_words, random_weights
from distill.students.labels import labels_reader, learns_by, tokenizer_identity
from distill.targets.stored import shape_of
from synthgen.errors import CorpusError, RecipeError
from synthgen.lm.load import load_tokenizer, load_weights, load_whole
from synthgen.recipe import TrainSection, local_teacher
from synthgen.results.training import Training
from synthgen.tables.engines import TeacherSection
from synthgen.tables.students import KINDS, EncoderStudent
from synthgen.teachers.encoder import context_of, padded, token_ids

_BATCH = 64  # number of texts in a batch in `predict`


@dataclass(frozen=True)
class Text:
    """One training row: its token ids, the teacher's label probabilities, and whether it counts as kept."""

    ids: list[int]
    probs: Sequence[float]
    kept: bool


class FromProbabilities(Objective[Text]):
    """The loss of a classifier on the teacher's label probabilities.

    The loss is kd_weight · divergence + (1 − kd_weight) · cross-entropy. The divergence is a mean over all rows of the
    step. Cross-entropy with the teacher's likeliest label is a mean over the kept rows of the step. With `labels_alone`
    (the baseline), or with kd_weight 0, the loss is the mean cross-entropy over all rows. `pad` is the id of the
    padding token.
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
        """The number of tokens that the student reads."""
        return sum(len(row.ids) for row in rows)


def train(job: Job) -> Training:
    """Train an encoder and its baseline on the same batches. See `Kind.train`."""
    section, tokenizer = job.section, _tokenizer(job)
    first = _make(job, tokenizer)
    context = context_of(first.config, tokenizer)
    choice = Choice(min(section.max_length, context), share=section.share, targets=False)
    rows = read_texts(job.source, tokenizer, cache_folder(job.source, job.folder), choice)
    held_out = Choice(context, "validation", targets=False)
    validation = validation_rows(
        section, job.source, lambda: read_texts(job.source, tokenizer, cache_folder(job.source, job.folder), held_out)
    )
    curves = train_arms(
        Arms(
            lambda: StudentModel(_make(job, tokenizer)),
            _objectives(section, tokenizer.pad_token_id),
            rows,
            validation,
            tokenizer,
            job.device,
        ),
        job,
    )
    return Training(
        student=describe(_section(job), first.config.model_type),
        learns_by=learns_by(section),
        learned_from="the teacher's label probabilities",
        steps=steps_of(len(rows), section),
        rows=len(rows),
        rows_kept=rows.stream.kept_count,
        left_out=rows.stream.left_out,
        metrics=curves,
    )


def _section(job: Job) -> EncoderStudent:
    assert isinstance(job.section.student, EncoderStudent)
    return job.section.student


def _tokenizer(job: Job) -> PreTrainedTokenizerBase:
    student = _section(job)
    needs = KINDS[student.kind].needs_teacher(student)
    return tokenizer_of(student, local_teacher(job.recipe).model if needs else "")


def _make(job: Job, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return encoder(_section(job), tokenizer, job.labels, job.section.seed)


def _objectives(section: TrainSection, pad: int) -> dict[str, Callable[[nn.Module], Objective[Text]]]:
    arms: dict[str, Callable[[nn.Module], Objective[Text]]] = {
        DISTILLED: lambda model: FromProbabilities(model, pad, section)
    }
    if section.baseline:
        arms[BASELINE] = lambda model: FromProbabilities(model, pad, section, labels_alone=True)
    return arms


def describe(student: EncoderStudent, model_type: str) -> str:
    """Describe what the student was made from, for the model card."""
    what = f"{model_type} encoder with a classification head"
    if student.model is not None:
        return f"{what} from the checkpoint {student.model}"
    return f"{what} of random weights: {in_words(student.config or {})}"


def tokenizer_of(student: EncoderStudent, teacher: str) -> PreTrainedTokenizerBase:
    """Load the student's tokenizer: that of its checkpoint, the tokenizer that the recipe names, or the teacher's.

    `teacher` is the name of the teacher's model; "" when the student has its own tokenizer. The tokenizer pads on the
    right. Raises TeacherError when the tokenizer cannot be loaded, and RecipeError when it has no token to pad with.
    """
    tokenizer = load_tokenizer(student.model or student.tokenizer or teacher)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.sep_token or tokenizer.unk_token
    if tokenizer.pad_token_id is None:
        raise RecipeError(
            "the student's tokenizer has no token to pad with", "name another tokenizer in train.student.tokenizer"
        )
    tokenizer.padding_side = "right"
    return tokenizer


def encoder(
    student: EncoderStudent, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], seed: int
) -> PreTrainedModel:
    """Build the untrained student of a recipe, with the same weights at every call.

    Raises RecipeError when the student cannot be built, and TeacherError when a checkpoint cannot be loaded.
    """
    classes = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
    torch.manual_seed(seed)  # a checkpoint also gets a new classification head with random weights
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


def read_texts(source: Path, tokenizer: PreTrainedTokenizerBase, cache: Path, choice: Choice) -> Mapped[Text]:
    """Open the rows of a split. No other function reads rows for encoder classifiers. Tokens are stored in `cache`.

    Raises CorpusError when a row has no label probabilities, or when no row is left.
    """
    reader = labels_reader(lambda texts: token_ids(tokenizer, texts), tokenizer_identity(tokenizer))
    stream = open_stream(source, reader, cache, choice)
    return Mapped(
        stream,
        lambda stored: Text(stored.example.prompt, stored.values.tolist(), stored.example.kept),
        lambda stored: Text([], (), stored.example.kept),
    )


@dataclass
class Encoder:
    """A trained encoder and its tokenizer, as transformers loads them."""

    labels: list[str]
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> Encoder:
        """Load an encoder from the folder that training wrote. Raises CorpusError when there is no config.json."""
        if not (Path(folder) / "config.json").exists():
            raise CorpusError(f"'{folder}' holds no student (no config.json)", "train one: `distill train RUN`")
        model = load_whole(str(folder), "float32", AutoModelForSequenceClassification)
        names = {int(number): str(name) for number, name in (model.config.id2label or {}).items()}
        return cls([names[i] for i in sorted(names)], model.to(device).eval(), load_tokenizer(str(folder)))

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        return sum(p.numel() for p in self.model.parameters())

    @torch.inference_mode()
    def predict(self, texts: Sequence[str]) -> Array:
        """Return the label probabilities, (texts, labels). Texts that are too long are truncated."""
        ids = token_ids(self.tokenizer, texts, context_of(self.model.config, self.tokenizer))
        out = np.zeros((len(texts), len(self.labels)))
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        for begin in range(0, len(order), _BATCH):
            places = order[begin : begin + _BATCH]
            batch = padded([ids[i] for i in places], self.tokenizer.pad_token_id, self.model.device)
            out[places] = self.model(**batch).logits.double().softmax(-1).cpu().numpy()
        return out


def open_student(folder: str | Path, batch_size: int, device: torch.device) -> Encoder:
    """Open a trained encoder. See `Kind.open`."""
    return Encoder.load(folder, device)


def untrained(job: Job) -> Encoder:
    """Build the job's encoder as it is before the first training step. See `Kind.untrained`."""
    tokenizer = _tokenizer(job)
    return Encoder(list(job.labels), _make(job, tokenizer).eval(), tokenizer)
