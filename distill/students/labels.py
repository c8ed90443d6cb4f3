"""The common parts of students that choose a label: the interface, and the text that they read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import transformers
from transformers import PreTrainedTokenizerBase

from distill.intervals import Array
from distill.streaming.columns import LABEL_PROBS, PROMPT
from distill.streaming.tokencache import Floats, Reader, Row
from synthgen import durable
from synthgen.errors import CorpusError
from synthgen.recipe import TrainSection
from synthgen.records import Message

_SUM = 0.01  # how far the sum of a row's probabilities may be from 1


class Predicts(Protocol):
    """A student that predicts probabilities of `labels`. `parameters` is the student's number of parameters."""

    labels: list[str]

    @property
    def parameters(self) -> int: ...

    def predict(self, texts: Sequence[str]) -> Array:
        """Return the label probabilities, (texts, labels)."""


def learns_by(section: TrainSection) -> str:
    """Describe in one line the objective of a student that learns label probabilities, for the model card."""
    if section.kd_weight == 0:
        return "cross-entropy on the teacher's most likely labels"
    line = f"{section.kd_weight:g} · {section.loss} from label probabilities"
    return line + (f" + {1 - section.kd_weight:g} · cross-entropy" if section.kd_weight < 1 else "")


def last_question(prompt: Sequence[Message]) -> str:
    """Return the text that the student reads: the last user message of a prompt."""
    return str(next(m["content"] for m in reversed(prompt) if m["role"] == "user"))


def texts_of(rows: Sequence[Row]) -> list[str]:
    """Return the text that the student reads, for each row."""
    return [last_question(row.prompt) for row in rows]


def label_probs(rows: Sequence[Row]) -> list[Floats]:
    """Return the teacher's label probabilities of each row. Raises CorpusError when a row has no probabilities, or
    numbers that are none.
    """
    if not all(row.label_probs for row in rows):
        raise CorpusError("the corpus has no class probabilities to learn from", "generate with strategy: classify")
    found = [np.asarray(row.label_probs, np.float32) for row in rows]
    for row, probs in zip(rows, found, strict=True):
        if not (abs(float(probs.sum()) - 1) <= _SUM and probs.min() >= 0):  # NaN fails both comparisons
            raise CorpusError(
                f"row {row.id}: its class probabilities are not numbers from 0 that add up to 1",
                "generate the row again, or remove it",
            )
    return found


def labels_reader(tokenize: Callable[[Sequence[str]], Sequence[Sequence[int]]], identity: object) -> Reader:
    """Return a reader that stores two things for each row: the token ids of its text, and the teacher's label
    probabilities.

    `tokenize` converts texts to ids. `identity` is a JSON value that changes whenever `tokenize` would return other
    ids.
    """
    return Reader(
        durable.digest(identity), (PROMPT, LABEL_PROBS), lambda rows: tokenize(texts_of(rows)), values=label_probs
    )


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """Return a JSON value that changes whenever the tokenizer would return other ids.

    Truncation and padding are ignored, because earlier calls may have set them.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = {"truncation": None, "padding": None}
    body = json.loads(backend.to_str()) | state if backend is not None else sorted(tokenizer.get_vocab().items())
    return [durable.digest(body), type(tokenizer).__name__, tokenizer.pad_token_id, transformers.__version__]
