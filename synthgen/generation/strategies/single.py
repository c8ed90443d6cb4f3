"""Strategies with one round of requests.

- `answer`: the teacher's completion, unchanged. The strategy `rationale` uses the same function, but its completions
  are split into rationale and answer.
- `classify`: the probabilities of the recipe's labels. The most probable label is the answer.
- `embed`: only the seed's text, for a student that embeds sentences. The teacher embeds the text during training.
- `score`: the teacher's distributions over the tokens of completions that are in the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping

from synthgen.generation.jobs import Job
from synthgen.generation.rounds import Outcome, Rounds, failure, unfinished
from synthgen.generation.setting import LeftOut
from synthgen.prompts import Prompt
from synthgen.records import Message
from synthgen.requests import Query
from synthgen.sources import given_sources
from synthgen.teachers.base import Reply


def answer(job: Job) -> Rounds:
    """Ask for one completion."""
    query = job.answer()
    [reply] = yield [query]
    return [_outcome(job, query, reply)]


def classify(job: Job) -> Rounds:
    """Ask for the probabilities of the recipe's labels."""
    query = job.classify(job.asked(), job.recipe.generate.labels, job.teacher, prompt=job.student())
    [reply] = yield [query]
    return [unfinished(query, reply) or job.row(query, reply)]


def embed(job: Job) -> Rounds:
    """Make a row from the seed's text if the text fits into the embedding model's context."""
    query = job.embed(job.student(), job.teacher)
    [reply] = yield [query]
    return [_outcome(job, query, reply)]


def score(job: Job) -> Rounds:
    """Ask for the distributions over the seed's `completion`, which is text or messages. The prompt is the seed's
    `prompt` (messages), or else the prompt that the templates render.

    A seed may also be a row of another corpus. If the seed has the fields `teacher_prompt` and `token_ids`, these
    fields are used. The seed's sources, which name who wrote the completion, become sources of the new row.
    """
    sources = given_sources(job.fields.get("sources"))
    if any(job.setting.removed.has_source(one["id"], one["role"]) for one in sources):
        raise LeftOut
    given, asked_before = job.fields.get("completion"), job.fields.get("teacher_prompt")
    messages = messages_of(given) or [Message(role="assistant", content=given if isinstance(given, str) else None)]
    student = messages_of(job.fields.get("prompt"))
    asked = messages_of(asked_before) or student or job.asked()
    text = messages[0].get("content") if len(messages) == 1 else None
    token_ids = job.fields.get("token_ids")
    query = job.score(
        asked,
        text if isinstance(text, str) else "",
        token_ids if isinstance(token_ids, list) else (),
        job.teacher,
        prompt=student or job.student(),
        target=True,
        role="logits",
    )
    if not isinstance(text, str) or messages[0].get("role") != "assistant" or messages[0].get("tool_calls"):
        return [failure(query, "completion", "the seed's completion is not one message of text by the assistant")]
    [reply] = yield [query]
    if reply.failure:
        return [failure(query, *reply.failure)]
    return [job.row(query, reply, sources=sources)]


def given_question(fields: Mapping[str, object], prompt: Prompt) -> str:
    """The question of a seed: the text of the seed's own messages, or else the text that user.j2 renders."""
    messages = messages_of(fields.get("prompt"))
    return "\n".join(str(m.get("content") or "") for m in messages) if messages else prompt.question(fields)


def messages_of(value: object) -> list[Message]:
    """The messages in `value`, a field of a seed. Keys with null values are left out. Empty when the field does not
    hold messages.
    """
    if not (isinstance(value, list) and all(isinstance(message, dict) for message in value)):
        return []
    return [{key: part for key, part in message.items() if part is not None} for message in value]  # type: ignore[misc]


def _outcome(job: Job, query: Query, reply: Reply) -> Outcome:
    return failure(query, *reply.failure) if reply.failure else job.row(query, reply)
