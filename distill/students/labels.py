"""What students of labels have in common: the text that they read, and how they are asked."""

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


class Predicts(Protocol):
    """A student that gives probabilities of `labels`; `parameters` is how many numbers it has."""

    labels: list[str]

    @property
    def parameters(self) -> int: ...

    def predict(self, texts: Sequence[str]) -> Array:
        """Probabilities, (texts, labels)."""


def learns_by(section: TrainSection) -> str:
    """The objective of a student of label probabilities in one line, for cards."""
    if section.kd_weight == 0:
        return "cross-entropy on the teacher's likeliest labels"
    line = f"{section.kd_weight:g} · {section.loss} from label probabilities"
    return line + (f" + {1 - section.kd_weight:g} · cross-entropy" if section.kd_weight < 1 else "")


def last_question(prompt: Sequence[Message]) -> str:
    """What the student reads: the last user message of a prompt."""
    return str(next(m["content"] for m in reversed(prompt) if m["role"] == "user"))


def texts_of(rows: Sequence[Row]) -> list[str]:
    """What the student reads of each row."""
    return [last_question(row.prompt) for row in rows]


def label_probs(rows: Sequence[Row]) -> list[Floats]:
    """The teacher's probabilities of the labels for each row. Raises CorpusError for a row that has none."""
    if not all(row.label_probs for row in rows):
        raise CorpusError("the corpus has no class probabilities to learn from", "generate with strategy: classify")
    return [np.asarray(row.label_probs, np.float32) for row in rows]


def labels_reader(tokenize: Callable[[Sequence[str]], Sequence[Sequence[int]]], identity: object) -> Reader:
    """Reads a row as the ids that `tokenize` makes of its text, and the probabilities of its labels.

    `identity`, a JSON value, tells `tokenize` from others.
    """
    return Reader(
        durable.digest(identity), (PROMPT, LABEL_PROBS), lambda rows: tokenize(texts_of(rows)), values=label_probs
    )


def tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> list[object]:
    """What decides the ids that a tokenizer makes of a text. Earlier calls, which set truncation, do not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = {"truncation": None, "padding": None}
    body = json.loads(backend.to_str()) | state if backend is not None else sorted(tokenizer.get_vocab().items())
    return [durable.digest(body), type(tokenizer).__name__, tokenizer.pad_token_id, transformers.__version__]
