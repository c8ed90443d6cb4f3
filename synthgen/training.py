"""Sections of the recipe about the student: what it is, how it learns, what is measured."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from synthgen.divergences import Divergence
from synthgen.sections import Count, Section, Share


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


class TrainSection(Section):
    """How the student learns: kd_weight · divergence from the stored distribution + (1 − kd_weight) · cross-entropy."""

    student: Annotated[Student, Field(discriminator="kind")] = DecoderStudent()
    kd_weight: Share = 0.9
    loss: Divergence = "forward_kl"
    """The divergence; with logits of kind 'sampled', forward_kl alone is defined (and the same as cross_entropy)."""
    beta: Share | None = None
    """jsd: 0 is forward, 1 reverse KL; 0.5 when left out."""
    alpha: Annotated[float, Field(ge=0, lt=1)] | None = None
    """skew_kl, skew_reverse_kl: share of the other distribution mixed in; 0.1 when left out."""
    epochs: Count = 1
    max_steps: Count | None = None
    batch_size: Count = 16
    """Rows an optimizer step."""
    micro_batch: Count | None = None
    """Rows at once in memory; a step is summed over them, with the same result. All of them when left out."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Share = 0.1
    max_length: Count = 512
    """Rows with more tokens than this (prompt and completion) are left out, and counted."""
    seed: int = 0
    checkpoint_every: Count = 50
    """Steps."""
    keep_checkpoints: Count = 1
    """The newest so many; all go when the student is there."""
    validate_every: Count | None = None
    """Steps between measurements of the loss on the validation split."""
    patience: Count | None = None
    """Stop when so many measurements in a row brought nothing better, and take the best weights."""
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also report each step to these, through accelerate; what they write lies in the student's folder."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time, the same gradients."""
    baseline: bool = True
    """Also train the same student on cross-entropy alone, on the same batches."""
    dtype: Literal["float32", "bfloat16"] = "float32"

    @model_validator(mode="after")
    def _meant(self) -> TrainSection:
        if self.patience and not self.validate_every:
            raise ValueError("'patience' counts measurements: set 'validate_every' too")
        for key, users in (("beta", ("jsd",)), ("alpha", ("skew_kl", "skew_reverse_kl"))):
            if getattr(self, key) is not None and self.loss not in users:
                raise ValueError(f"'{key}' belongs to loss {' and '.join(users)}, and loss is '{self.loss}'")
        return self


class EvaluateSection(Section):
    """What is measured on the held-out split."""

    max_rows: Count | None = None
    """Rows for the full-vocabulary comparison."""
    max_prompts: Count | None = None
    """Prompts answered greedily for accuracy and speed."""
    max_new_tokens: Count = 64
    seed: int = 0
