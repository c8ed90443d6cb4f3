"""Kinds of student: the recipe's section of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from pydantic import model_validator

from synthgen.tables.reference import Reference
from synthgen.tables.section import Count, Section, Share


class Lora(Section):
    """Low-rank adapters: only they are trained, and they are merged into the weights at the end. Keys as peft's."""

    r: Count = 16
    lora_alpha: Count = 32
    lora_dropout: Share = 0.0
    target_modules: tuple[str, ...] = ()
    """Names of the layers that get one; all linear ones when left out."""


class DecoderStudent(Section):
    """A causal language model: some of the teacher's own layers, a checkpoint, or random weights."""

    kind: Literal["decoder"] = "decoder"
    layers: tuple[int, ...] | int | None = None
    """The teacher's layers to keep, by index; a number keeps that many, spread evenly, first and last included. 6."""
    model: str | None = None
    """A checkpoint with the teacher's tokenizer, named like teacher.model."""
    config: dict[str, Any] | None = None
    """Random weights: the teacher's config.json with these keys changed, such as hidden_size."""
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> DecoderStudent:
        given = [key for key in ("layers", "model", "config") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give at most one of 'layers', 'model' and 'config', not {' and '.join(given)}")
        return self


class ClassifierStudent(Section):
    """An MLP on hashed word and character n-grams; runs on numpy alone."""

    kind: Literal["classifier"] = "classifier"
    buckets: Count = 16384
    hidden: Count = 64
    dropout: Share = 0.3


def _one_of(student: Section, *keys: str) -> None:
    given = [key for key in keys if getattr(student, key) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {' and '.join(repr(key) for key in keys)}")


class EncoderStudent(Section):
    """A transformers encoder with a classification head on top, from a checkpoint or of random weights."""

    kind: Literal["encoder"] = "encoder"
    model: str | None = None
    """A checkpoint with its own tokenizer, named like teacher.model; its head is made anew for the recipe's labels."""
    config: dict[str, Any] | None = None
    """Random weights: `model_type`, such as bert, and whichever keys of its config.json are to differ."""
    tokenizer: str | None = None
    """With `config`, whose tokenizer: a hub id or folder; the teacher's when left out."""

    @model_validator(mode="after")
    def _one_origin(self) -> EncoderStudent:
        _one_of(self, "model", "config")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("'config' needs a 'model_type', such as bert")
        if self.model is not None and self.tokenizer is not None:
            raise ValueError("a checkpoint has its own tokenizer: leave out 'tokenizer'")
        return self


class Seq2SeqStudent(Section):
    """An encoder that reads the prompt and a decoder that writes, both in the teacher's tokens."""

    kind: Literal["seq2seq"] = "seq2seq"
    model: str | None = None
    """A checkpoint with the teacher's tokenizer, named like teacher.model."""
    config: dict[str, Any] | None = None
    """Random weights: `model_type`, such as t5, and whichever keys of its config.json are to differ."""

    @model_validator(mode="after")
    def _one_origin(self) -> Seq2SeqStudent:
        _one_of(self, "model", "config")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("'config' needs a 'model_type', such as t5")
        return self


class SentenceStudent(Section):
    """A vector a text: some of the teacher's own layers, a checkpoint, or random weights, pooled as it pools."""

    kind: Literal["sentence"] = "sentence"
    layers: tuple[int, ...] | int | None = None
    """As of a decoder; half of the teacher's when left out."""
    model: str | None = None
    """A checkpoint with its own tokenizer, named like teacher.model."""
    config: dict[str, Any] | None = None
    """Random weights: the teacher's config.json with these keys changed, such as hidden_size."""
    distance: Literal["cosine", "mse"] = "cosine"
    """From the teacher's vector: 1 − cosine, or the mean over the width of squared differences."""

    @model_validator(mode="after")
    def _one_origin(self) -> SentenceStudent:
        given = [key for key in ("layers", "model", "config") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"give at most one of 'layers', 'model' and 'config', not {' and '.join(given)}")
        return self


Student = DecoderStudent | ClassifierStudent | EncoderStudent | Seq2SeqStudent | SentenceStudent


@dataclass(frozen=True)
class Kind:
    """A kind of student.

    `section`: its section of the recipe. `writes_text`: whether it writes completions, token by token.
    `evaluate`: measures a trained student; takes a `distill.evaluation.subject.Subject`, returns an `Evaluation`.
    `exports`: for a model format, by its name in MODEL_FORMATS, the function that writes this kind in it. It is for
    kinds that the format does not know; see `ModelFormat.writes`. `not_exported`: where a student can be had in
    other formats, if not here.
    `library_name` and `how_to_run` are for the model card. `loss_unit` and `loss_note` are for the plot of the loss.
    """

    section: type[Section]
    _: KW_ONLY
    writes_text: bool = False
    evaluate: Reference | None = None
    exports: Mapping[str, Reference] = field(default_factory=dict)
    not_exported: str = ""
    library_name: str = "transformers"
    how_to_run: str = ""
    loss_unit: str = "nats"
    loss_note: str = ""


_ENTROPY = "The loss of the distilled student includes the entropy of the teacher, so it does not fall to zero."

KINDS: dict[str, Kind] = {
    "decoder": Kind(
        DecoderStudent,
        writes_text=True,
        evaluate="distill.evaluation.fidelity:evaluate_decoder",
        how_to_run='`transformers.pipeline("text-generation", model=folder)` runs it',
        loss_unit="nats a token",
        loss_note=_ENTROPY,
    ),
    "seq2seq": Kind(
        Seq2SeqStudent,
        writes_text=True,
        evaluate="distill.evaluation.fidelity:evaluate_seq2seq",
        not_exported="transformers runs its folder as it is",
        how_to_run="`transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)` loads it",
        loss_unit="nats a token",
        loss_note=_ENTROPY,
    ),
    "encoder": Kind(
        EncoderStudent,
        evaluate="distill.evaluation.classifiers:evaluate_encoder",
        how_to_run='`transformers.pipeline("text-classification", model=folder)` runs it',
    ),
    "sentence": Kind(
        SentenceStudent,
        evaluate="distill.evaluation.similarity:evaluate_sentence",
        not_exported="sentence-transformers runs its folder as it is, and exports it: "
        "SentenceTransformer(folder, backend='onnx')",
        library_name="sentence-transformers",
        how_to_run="`sentence_transformers.SentenceTransformer(folder).encode(texts)` runs it",
    ),
    "classifier": Kind(
        ClassifierStudent,
        evaluate="distill.evaluation.classifiers:evaluate_mlp",
        library_name="synthgen-distill",
        how_to_run="`distill.students.classifier.Classifier.load(folder).predict(texts)` runs it, on numpy alone",
    ),
}
