"""Asks models the held-out questions, and measures their answers, speed and energy.

The functions that take `arguments` run in a separate process (`distill.cost.measure`), so `arguments` must be JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.cost import Measured, counters, joules, milliseconds, model_size
from distill.held_out import HeldOut
from synthgen.records import Message, Sampling
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import Reply

_ALONE = 2  # number of questions that are also answered one at a time, to measure latency


@dataclass(frozen=True)
class Question:
    """A held-out prompt that a model is asked to answer.

    `text` is the question alone, for models that read a single text instead of a conversation. `labels` are the labels
    to choose from, or an empty list when the model writes text.
    """

    id: str
    text: str
    messages: list[Message]
    labels: list[str]
    max_new_tokens: int = 0

    def request(self) -> Request:
        """Return the request to a model: for the probabilities of `labels`, or for a greedy completion if there are no
        labels.
        """
        greedy: Sampling = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": self.max_new_tokens}
        if self.labels:
            return Request("classify", self.messages, labels=tuple(self.labels), text=self.text, id=self.id)
        return Request("sample", self.messages, greedy, text=self.text, id=self.id)


def question(row: HeldOut, *, as_teacher: bool, labels: Sequence[str] = (), max_new_tokens: int = 0) -> Question:
    """Return the question of a row, with the teacher's prompt if `as_teacher` is true, otherwise with the student's."""
    messages = (row.teacher_prompt or row.prompt) if as_teacher else row.prompt
    return Question(row.id, str(row.prompt[-1]["content"]), messages, list(labels), max_new_tokens)


def ask_teacher(arguments: dict[str, Any]) -> Measured:
    """Ask all questions to the model that a `teacher` section names, and time the model. The model writes completions,
    or chooses among labels. Runs in a separate process.
    """
    from synthgen.teachers import open_teacher

    model: Any = open_teacher(TeacherSection.model_validate(arguments["teacher"]))
    asked = [Question(**values).request() for values in arguments["questions"]]
    if asked[0].labels:
        return _timed(model.classify, asked, model.model)
    return _timed(lambda requests: model.sample(requests, None), asked, model.model)


def ask_seq2seq(arguments: dict[str, Any]) -> Measured:
    """Ask an encoder-decoder student all questions, and time its completions. Runs in a separate process."""
    from distill.students.seq2seq import Seq2SeqModel
    from synthgen.lm.load import pick_device

    section = TeacherSection.model_validate(arguments["teacher"])
    model = Seq2SeqModel.open(section.model, section.batch_size, pick_device(section.device))
    asked = [Question(**values).request() for values in arguments["questions"]]
    return _timed(lambda requests: model.sample(requests, None), asked, model.model)


def _timed(act: Callable[[Sequence[Request]], list[Reply]], asked: list[Request], model: Any) -> Measured:
    """Time the answers to all questions together, then to the first `_ALONE` questions one at a time."""
    act([one._replace(sampling={**one.sampling, "max_new_tokens": 2}) for one in asked[:2]])  # warm-up
    before, began = counters(), time.perf_counter()
    replies = act(asked)
    seconds = time.perf_counter() - began
    spent = joules(before, counters())
    alone = []
    for one in asked[:_ALONE]:
        began = time.perf_counter()
        act([one])
        alone.append(time.perf_counter() - began)
    tokens = sum(len(reply.token_ids) for reply in replies)
    return {
        "texts": [reply.text for reply in replies],
        "tokens_per_second": tokens / seconds,
        "rows_per_second": len(replies) / seconds,
        "answer_ms": milliseconds(alone),
        **({"joules_per_token": spent / tokens} if spent and tokens else {}),
        **model_size(model),
    }


def student_section(folder: Path, local: TeacherSection) -> TeacherSection:
    """Return a `teacher` section that names the student in `folder` as its model, so that functions for teachers can
    open the student. Batch size and device are those of the section `local`.
    """
    return TeacherSection(model=str(folder.resolve()), batch_size=local.batch_size, device=local.device)
