"""Makes a row from a reply, and splits the reply's text into rationale and answer."""

from __future__ import annotations

import json
from collections.abc import Mapping

from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import FINISH_REASONS, Message, Record, Score
from synthgen.requests import Query, Request
from synthgen.tables.strategies import STRATEGIES
from synthgen.teachers.base import Reply
from synthgen.verify.final import after_reasoning


def record(recipe: Recipe, query: Query, reply: Reply, prompt: Prompt, scores: Mapping[str, float]) -> Record:
    """Make the row of a successful reply. The row gets the reply's scores, and `scores`, which are the strategy's
    scores.
    """
    request, lineage = query.request, query.lineage
    rationale, answer = _split(recipe, reply)
    measured = [*reply.scores, *((name, float(value)) for name, value in scores.items())]
    usage = reply.usage
    if usage is None and (len(reply.prompt_token_ids) or len(reply.token_ids)):
        usage = {"prompt_tokens": len(reply.prompt_token_ids), "completion_tokens": len(reply.token_ids)}
    return Record(
        id=request.id,
        seed_id=lineage.seed_id,
        parents=list(lineage.parents),
        group_id=lineage.group_id,
        pair_role=lineage.pair_role,
        split=lineage.split,
        task=recipe.task,
        strategy=recipe.strategy,
        prompt_version=prompt.version,
        prompt=list(lineage.prompt),
        completion=[] if request.kind == "embed" else [_message(reply)],
        teacher_prompt=list(request.messages) if request.messages != lineage.prompt else None,
        tools=_tools(request, reply),
        rationale=rationale,
        answer=answer,
        reference=None if lineage.reference is None else list(lineage.reference),
        teacher=request.teacher,
        served_model=reply.served_model,
        sampling=reply.sampling or request.sampling,
        prompt_token_ids=reply.prompt_token_ids,
        token_ids=reply.token_ids,
        label_probs=reply.label_probs,
        finish_reason=reply.finish_reason if reply.finish_reason in FINISH_REASONS else "unknown",
        usage=usage,
        cost_usd=reply.cost_usd,
        sources=list(lineage.sources),
        scores=[Score(name=name, value=value) for name, value in measured],
    )


def _tools(request: Request, reply: Reply) -> str | None:
    """JSON text of the tools that were sent, or None when none were sent."""
    if reply.tools is not None:
        return None if reply.tools == "[]" else reply.tools
    return json.dumps(list(request.tools), ensure_ascii=False) if request.tools else None


def _message(reply: Reply) -> Message:
    message: Message = {"role": "assistant", "content": reply.text}
    if reply.reasoning:
        message["reasoning_content"] = reply.reasoning
    if reply.tool_calls:
        message["tool_calls"] = reply.tool_calls
    return message


def _split(recipe: Recipe, reply: Reply) -> tuple[str | None, str | None]:
    """Return (rationale, answer) of a reply."""
    marker = recipe.generate.answer_marker
    if not (marker and STRATEGIES[recipe.strategy].splits_answer):
        return reply.reasoning, reply.text.strip() if reply.answer is None else reply.answer
    before, answer = split_rationale(reply.text, marker)
    return "\n\n".join(part for part in (reply.reasoning, before) if part) or None, answer


def split_rationale(text: str, marker: str) -> tuple[str | None, str | None]:
    """Return (text before the last marker, first line of the text after this marker). When there is no marker after the
    reasoning in `<think>` tags, return (text, None).
    """
    answering = after_reasoning(text) or ""
    before, found, after = answering.rpartition(marker)
    if not found:
        return text.strip() or None, None
    before = text[: len(text) - len(answering)] + before
    return before.strip() or None, after.strip().split("\n", 1)[0].strip() or None
