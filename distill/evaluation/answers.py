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

from distill.cost import MEASURES as COSTS
from distill.cost import measure, row_of
from distill.evaluation.asking import Question
from distill.held_out import HeldOut
from distill.intervals import Array
from distill.job import Job
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.results.measures import Measure, Row
from synthgen.tables.engines import TeacherSection
from synthgen.tables.reference import resolve
from synthgen.tables.students import KINDS
from synthgen.teachers.base import Reply
from synthgen.verify import matches_any

ASK_TEACHER = "distill.evaluation.asking:ask_teacher"
ASK_SEQ2SEQ = "distill.evaluation.asking:ask_seq2seq"

OF_ANSWERS = {
    "parameters": COSTS["parameters"],
    "weights_bytes": COSTS["weights_bytes"],
    "peak_rss_bytes": COSTS["peak_rss_bytes"],
    "answer_ms": Measure("one answer, ms", "milliseconds", True, "cost"),
    "rows_per_second": Measure("answers a second", "rate", False, "cost"),
    "tokens_per_second": Measure("tokens a second", "rate", False, "cost"),
    "joules_per_token": Measure("joules a token", "significant", True, "cost"),
}
"""The measures of cost of a model that writes answers."""


class Writer(Protocol):
    """A student that writes text. The functions `open` and `untrained` of a kind of student return such a student."""

    @property
    def model(self) -> PreTrainedModel: ...

    def sample(self, requests: Sequence[Request], spec: None) -> list[Reply]:
        """Return one reply for each request."""


def writers(job: Job, batch_size: int, device: torch.device) -> dict[str, Callable[[], Writer]]:
    """For each model to compare, a function that opens the model. The models are the untrained student, and the trained
    models in the student's folder.
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
        if any(folder.glob("model*.safetensors")):
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
    a marker is given, and the text does not contain it.
    """
    if not marker:
        return text
    return text.rpartition(marker)[2].strip().split("\n", 1)[0] if marker in text else None


def right(answers: Sequence[str | None], rows: Sequence[HeldOut]) -> Array:
    """Return (R,): 1 where an answer agrees with a reference of its row, 0 where it does not agree or is None. NaN
    where the row has no reference.
    """
    pairs = zip(answers, rows, strict=True)
    return np.array(
        [float(matches_any(answer, row.reference)) if row.reference else np.nan for answer, row in pairs], float
    )
