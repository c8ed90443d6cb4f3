"""The row that a reply makes, and how a completion is split into rationale and answer."""

from __future__ import annotations

from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import Message, Record
from synthgen.requests import Request
from synthgen.teachers.base import Reply


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
