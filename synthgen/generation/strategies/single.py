"""Strategies of one round, and the record that a reply makes. `catalog` lists all strategies.

- `answer`: the teacher's completion as it is.
- `rationale`: reasoning, then a marker, then the answer, taken apart.
- `classify`: probabilities of the recipe's labels; the likeliest is the answer.
- `embed`: the text alone, for a student of sentences: its teacher is asked while the student is trained.
- `score`: the distributions along completions that the seeds bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from synthgen.generation.rounds import Rounds, failure
from synthgen.records import Message

if TYPE_CHECKING:
    from synthgen.generation.jobs import Job


def answer(job: Job) -> Rounds:
    """One completion."""
    request = job.answer()
    [reply] = yield [request]
    return [failure(request, *reply.failure) if reply.failure else job.row(request, reply)]


def classify(job: Job) -> Rounds:
    """Probabilities of the recipe's labels."""
    labels = job.recipe.generate.labels
    request = job.classify(job.asked(), labels, job.teacher, prompt=job.student(), reference=job.seed.reference)
    [reply] = yield [request]
    return [failure(request, *reply.failure) if reply.failure else job.row(request, reply)]


def embed(job: Job) -> Rounds:
    """The text, if it fits the model."""
    request = job.embed(job.student(), job.teacher)
    [reply] = yield [request]
    return [failure(request, *reply.failure) if reply.failure else job.row(request, reply)]


def score(job: Job) -> Rounds:
    """The distributions along the seed's `completion`: text or messages; `prompt` is messages, or what user.j2 renders.

    A corpus made here can be scored again: its `teacher_prompt` and `token_ids` are used."""
    fields = job.fields
    given = fields.get("completion")
    messages: list[Message] = given if isinstance(given, list) else [{"role": "assistant", "content": given}]
    student = plain(fields["prompt"]) if isinstance(fields.get("prompt"), list) else job.student()
    sent = fields.get("teacher_prompt")
    if isinstance(sent, list):
        asked = plain(sent)
    else:
        asked = student if isinstance(fields.get("prompt"), list) else job.asked()
    text = messages[0].get("content") if len(messages) == 1 else None
    request = job.score(
        asked,
        text if isinstance(text, str) else "",
        fields.get("token_ids") or (),
        job.teacher,
        target=True,
        prompt=student,
        reference=job.seed.reference,
    )
    if not isinstance(text, str) or messages[0].get("role") != "assistant" or messages[0].get("tool_calls"):
        return [failure(request, "completion", "the seed's completion is not one message of text by the assistant")]
    request.sources[2]["role"] = "logits"  # the completion is the seed's
    [reply] = yield [request]
    return [failure(request, *reply.failure) if reply.failure else job.row(request, reply)]


def plain(messages: Sequence[Message]) -> list[Message]:
    """Messages of a file without their empty parts."""
    return [{key: value for key, value in message.items() if value is not None} for message in messages]
