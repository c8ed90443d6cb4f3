"""Strategies of one round, and the record that a reply makes. `catalogue` lists all strategies.

- `answer`: the teacher's completion as it is.
- `rationale`: reasoning, then a marker, then the answer, taken apart.
- `classify`: probabilities of the recipe's labels; the likeliest is the answer.
- `embed`: the text alone, for a student of sentences: its teacher is asked while the student is trained.
- `score`: the distributions along completions that the seeds bring.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from synthgen.generate.rounds import Rounds, failure
from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import Message, Record, Request
from synthgen.teachers import Reply

if TYPE_CHECKING:
    from synthgen.generate.job import Job


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


def record(recipe: Recipe, request: Request, reply: Reply, prompt: Prompt, teacher: str) -> Record:
    """The row that a good reply makes."""
    rationale: str | None = reply.reasoning
    answer: str | None = reply.text.strip()
    said: Message = {"role": "assistant", "content": reply.text}
    said |= {"reasoning_content": reply.reasoning} if reply.reasoning else {}
    said |= {"tool_calls": reply.tool_calls} if reply.tool_calls else {}
    if recipe.generate.answer_marker and recipe.strategy not in ("answer", "classify"):
        before, answer = split_rationale(reply.text, recipe.generate.answer_marker)
        rationale = "\n\n".join(part for part in (reply.reasoning, before) if part) or None
    return Record(
        id=request.id,
        seed_id=request.seed_id,
        parents=list(request.parents),
        split=request.split,
        task=recipe.task,
        strategy=recipe.strategy,
        prompt_version=prompt.version,
        prompt=request.prompt,
        completion=[] if request.kind == "embed" else [said],
        teacher_prompt=request.teacher_prompt if request.teacher_prompt != request.prompt else None,
        rationale=rationale,
        answer=answer,
        reference=request.reference,
        teacher=teacher,
        sampling=request.sampling,
        prompt_token_ids=reply.prompt_token_ids,
        token_ids=reply.token_ids,
        label_probs=reply.label_probs,
        finish_reason=reply.finish_reason,
        usage=reply.usage or {"prompt_tokens": len(reply.prompt_token_ids), "completion_tokens": len(reply.token_ids)},
        cost_usd=reply.cost_usd,
        sources=request.sources,
        scores=[{"name": name, "value": value} for name, value in reply.scores],
    )


def split_rationale(text: str, marker: str) -> tuple[str | None, str | None]:
    """(what stands before the last marker, the line after it); (text, None) when the marker is missing."""
    before, found, after = text.rpartition(marker)
    if not found:
        return text.strip() or None, None
    return before.strip() or None, after.strip().split("\n", 1)[0].strip() or None
