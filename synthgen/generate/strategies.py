"""Strategies: how seeds become requests and replies become rows. Each is a small function in a dictionary.

- `answer`: the teacher's completion as it is.
- `rationale`: reasoning, then a marker, then the answer, taken apart.
- `classify`: probabilities of the recipe's labels; the likeliest is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.prompts import Prompt
from synthgen.recipe import Recipe
from synthgen.records import SPLITS, Record, Request, identify
from synthgen.seeds import Seed
from synthgen.teachers import Reply


def requests(recipe: Recipe, seeds: Sequence[Seed], prompt: Prompt, teacher: str) -> list[Request]:
    """All requests of the recipe, ordered by split, then seed, then sample; `teacher` is its manifest key."""
    kind = "classify" if recipe.strategy == "classify" else "sample"
    found: list[Request] = []
    for seed in sorted(seeds, key=lambda s: SPLITS.index(s.split)):  # stable: file order inside a split
        student, asked = prompt.student(seed.fields), prompt.teacher(seed.fields)
        sources = [
            _source(seed.source.source, "seed", seed.source.licence),
            _source(prompt.version, "template", "CC0-1.0"),
            _source(teacher, "generator", recipe.teacher.licence),
        ]
        for index in range(recipe.generate.samples if kind == "sample" else 1):
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
            )
            object.__setattr__(request, "id", identify(request, teacher))
            found.append(request)
    return found


def record(recipe: Recipe, request: Request, reply: Reply, prompt: Prompt, teacher: str) -> Record:
    """The row that a good reply makes."""
    rationale: str | None = None
    answer: str | None = reply.text.strip()
    if recipe.strategy == "rationale":
        rationale, answer = split_rationale(reply.text, recipe.generate.answer_marker or "")
    return Record(
        id=request.id,
        seed_id=request.seed_id,
        parents=list(request.parents),
        split=request.split,
        task=recipe.task,
        strategy=recipe.strategy,
        prompt_version=prompt.version,
        prompt=request.prompt,
        completion=[{"role": "assistant", "content": reply.text}],
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
        usage={"prompt_tokens": len(reply.prompt_token_ids), "completion_tokens": len(reply.token_ids)},
        cost_usd=0.0,
        sources=request.sources,
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
