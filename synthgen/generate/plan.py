"""What a recipe would do, before anything is sent: counts, tokens, cost, and one rendered prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from synthgen.generate.strategies import requests
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe
from synthgen.records import Message
from synthgen.seeds import load_seeds

_CHARACTERS_PER_TOKEN = 4  # English prose; stated beside every estimate made with it


@dataclass(frozen=True)
class Plan:
    """`prompt_tokens` is an estimate from characters; `completion_tokens` is the most there can be."""

    task: str
    strategy: str
    teacher: str
    seeds: int
    requests: dict[str, int]
    shards: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    prompt: list[Message] = field(repr=False)
    student_prompt: list[Message] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return dict(self.__dict__)


def plan(recipe: Recipe) -> Plan:
    """Read seeds and templates and count; the teacher is not loaded and nothing is sent."""
    from synthgen.corpus import plan_shards

    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, prompt.question)
    asked = requests(recipe, seeds, prompt, recipe.teacher.model)
    characters = sum(len(m["content"]) for r in asked for m in r.teacher_prompt)
    return Plan(
        task=recipe.task,
        strategy=recipe.strategy,
        teacher=recipe.teacher.model,
        seeds=len(seeds),
        requests=dict(Counter(r.split for r in asked)),
        shards=len(plan_shards([r.split for r in asked], recipe.generate.shard_size)),
        prompt_tokens=characters // _CHARACTERS_PER_TOKEN,
        completion_tokens=sum(r.sampling["max_new_tokens"] for r in asked),
        cost_usd=0.0,  # a local model; an engine that costs money brings its prices
        prompt=asked[0].teacher_prompt,
        student_prompt=asked[0].prompt,
    )
