"""What students of labels have in common: the text that they read, and how they are asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from distill.intervals import Array
from synthgen.recipe import TrainSection
from synthgen.records import Record


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
        return "cross-entropy on the teacher's most likely labels"
    line = f"{section.kd_weight:g} · {section.loss} from label probabilities"
    return line + (f" + {1 - section.kd_weight:g} · cross-entropy" if section.kd_weight < 1 else "")


def prompt_text(record: Record) -> str:
    """What the student reads: the last user message of the row's prompt."""
    return str(next(m["content"] for m in reversed(record.prompt) if m["role"] == "user"))
