"""Strategies: how seeds become requests and replies become rows. Each is a small function in a dictionary.

- `answer`: the teacher's completion as it is.
- `rationale`: reasoning, then a marker, then the answer, taken apart.
- `classify`: probabilities of the recipe's labels; the likeliest is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import SPLITS, Record, Request, identify
from synthgen.seeds import Seed
from synthgen.teachers import Reply


def in_order(seeds: Sequence[Seed]) -> list[Seed]:
    """Seeds by split, in file order inside each: the order of their requests."""
    return sorted(seeds, key=lambda s: SPLITS.index(s.split))


def requests(recipe: Recipe, seeds: Sequence[Seed], prompt: Prompt, teacher: str) -> list[Request]:
    """All requests of the recipe, ordered by split, then seed, then sample; `teacher` is its manifest key."""
    return [request for seed in in_order(seeds) for request in of_seed(recipe, seed, prompt, teacher)]


def per_seed(recipe: Recipe) -> int:
    """How many requests a seed makes."""
    return 1 if recipe.strategy == "classify" else recipe.generate.samples


def of_seed(recipe: Recipe, seed: Seed, prompt: Prompt, teacher: str) -> list[Request]:
    """The requests of one seed, a function of it alone."""
    kind = "classify" if recipe.strategy == "classify" else "sample"
    student, asked = prompt.student(seed.fields), prompt.teacher(seed.fields)
    tools = seed.fields.get("tools") if recipe.teacher.engine == "openai" else None
    sources = [
        _source(seed.source.source, "seed", seed.source.licence),
        _source(prompt.version, "template", "CC0-1.0"),
        _source(teacher, "generator", recipe.teacher.licence),
    ]
    found: list[Request] = []
    for index in range(per_seed(recipe)):
        request = Request(
            kind=kind,
            seed_id=seed.id,
            split=seed.split,
            prompt=student,
            teacher_prompt=asked,
            sampling=_sampling(recipe, kind, index),
            sources=sources,
            reference=seed.reference,
            labels=recipe.generate.labels if kind == "classify" else (),
            tools=tuple(tools) if isinstance(tools, list) else (),
        )
        object.__setattr__(request, "id", identify(request, teacher))
        found.append(request)
    return found


def record(recipe: Recipe, request: Request, reply: Reply, prompt: Prompt, teacher: str) -> Record:
    """The row that a good reply makes."""
    rationale: str | None = reply.reasoning
    answer: str | None = reply.text.strip()
    said: dict[str, Any] = {"role": "assistant", "content": reply.text}
    said |= {"reasoning_content": reply.reasoning} if reply.reasoning else {}
    said |= {"tool_calls": reply.tool_calls} if reply.tool_calls else {}
    if recipe.strategy == "rationale":
        before, answer = split_rationale(reply.text, recipe.generate.answer_marker or "")
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
        completion=[said],
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


def _source(name: str, role: str, terms: str) -> dict[str, object]:
    return {"id": name, "role": role, "terms": terms, "terms_date": None, "tools": [], "account": None}


def _sampling(recipe: Recipe, kind: str, index: int) -> dict[str, object]:
    g = recipe.generate
    if kind == "classify":
        return {"temperature": None, "top_p": None, "max_new_tokens": 0, "seed": g.seed, "sample_index": 0}
    return {
        "temperature": g.temperature,
        "top_p": g.top_p,
        "max_new_tokens": g.max_new_tokens,
        "seed": g.seed,
        "sample_index": index,
    }
