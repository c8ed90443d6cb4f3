"""Kinds of student: the recipe's section of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import model_validator

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
    """A kind of student: its section of the recipe."""

    section: type[Section]
    copies_layers: bool = False
    """Whether it is made from the teacher's own layers: then the teacher is a source of the student's weights."""


KINDS: dict[str, Kind] = {
    "decoder": Kind(DecoderStudent, copies_layers=True),
    "seq2seq": Kind(Seq2SeqStudent),
    "encoder": Kind(EncoderStudent),
    "sentence": Kind(SentenceStudent),
    "classifier": Kind(ClassifierStudent),
}
