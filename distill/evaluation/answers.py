"""Lets students that write text answer held-out prompts, and compares the answers with references.

Both evaluations of such students use this module: the one with a live teacher (`fidelity`) and the one with recorded
answers (`recorded`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Protocol

import numpy as np
import torch
from transformers import PreTrainedModel

from distill.cost import measure, row_of
from distill.evaluation.asking import Question
from distill.held_out import HeldOut
from distill.intervals import interval
from distill.job import Job
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.results.measures import Interval, Row
from synthgen.tables.engines import TeacherSection
from synthgen.tables.reference import resolve
from synthgen.tables.students import KINDS
from synthgen.teachers.base import Reply
from synthgen.verify import matches_any

ASK_TEACHER = "distill.evaluation.asking:ask_teacher"
ASK_SEQ2SEQ = "distill.evaluation.asking:ask_seq2seq"


class Writer(Protocol):
    """A student that writes text. The functions `open` and `untrained` of its kind return such an object."""

    @property
    def model(self) -> PreTrainedModel: ...

    def sample(self, requests: Sequence[Request], spec: None) -> list[Reply]:
        """Return one reply for each request."""


def writers(job: Job, batch_size: int, device: torch.device) -> dict[str, Callable[[], Writer]]:
    """For each model to compare, a function that opens it: the untrained student, and the trained models in the
    student's folder.
    """
    kind = KINDS[job.section.student.kind]
    assert kind.untrained is not None
    assert kind.open is not None
    found: dict[str, Callable[[], Writer]] = {"untrained": partial(resolve(kind.untrained), job)}
    folders = {
        "cross-entropy": job.folder / "baseline",
        "distilled": job.folder,
        "teacher, trained too": job.folder / "teacher",
    }
    for name, folder in folders.items():
        if (folder / "model.safetensors").exists():
            found[name] = partial(resolve(kind.open), folder, batch_size, device)
    return found


def apart(function: str, model: TeacherSection, asked: Sequence[Question]) -> tuple[Row, list[str]]:
    """Ask a model in a separate process. Returns (row of the model's measures, answers of the model)."""
    arguments = {"teacher": model.model_dump(mode="json"), "questions": [asdict(q) for q in asked]}
    measured = measure(function, arguments)
    texts = measured.pop("texts")
    return row_of(measured), texts


def marker_of(recipe: Recipe, *, as_teacher: bool) -> str | None:
    """The marker before the answer in the texts of the teacher or of the student. None when the whole text is the
    answer.
    """
    rationale = recipe.train.rationale if recipe.train else None
    answers_alone = not as_teacher and rationale is not None and rationale.mode != "then_answer"
    return None if answers_alone else recipe.generate.answer_marker


def answer_in(text: str, marker: str | None) -> str | None:
    """The answer that a text gives: the first line after the last marker, or the whole text without a marker. None when
    there is a marker, and the text does not have it.
    """
    if not marker:
        return text
    return text.rpartition(marker)[2].strip().split("\n", 1)[0] if marker in text else None


def is_right(text: str, marker: str | None, accepted: Sequence[str]) -> float:
    """1.0 when the answer in a text agrees with one of the accepted answers, otherwise 0.0."""
    return float(matches_any(answer_in(text, marker), accepted))


def accuracy(
    marker: str | None, rows: Sequence[HeldOut], texts: Sequence[str], clusters: Sequence[str], seed: int
) -> Interval | None:
    """The share of right answers with its interval, or None when no row has a reference. `clusters` are the rows'
    groups.
    """
    checked = [(row, text, c) for row, text, c in zip(rows, texts, clusters, strict=True) if row.reference]
    if not checked:
        return None
    right = [is_right(text, marker, row.reference or []) for row, text, _ in checked]
    return interval(np.array(right), np.ones(len(right)), [c for *_, c in checked], seed)
