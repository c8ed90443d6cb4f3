"""What a recipe would do, before anything is sent: counts, tokens, cost, and one rendered prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from synthgen.corpus import plan_shards
from synthgen.errors import RecipeError
from synthgen.generate import catalogue
from synthgen.generate.job import cast
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe
from synthgen.records import Message
from synthgen.seeds import load_seeds

_CHARACTERS_PER_TOKEN = 4  # English prose; stated beside every estimate made with it


@dataclass(frozen=True)
class Plan:
    """`requests` and `completion_tokens` are the most there can be; `prompt_tokens` is an estimate from characters."""

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
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, catalogue.question(recipe, prompt))
    strategy, steps, g = catalogue.STRATEGIES[recipe.strategy], recipe.steps, recipe.generate
    most = strategy.most(steps, len(recipe.teachers))
    longest = max(g.max_new_tokens, steps.max_new_tokens if most > 1 else 0)
    splits: list[str] = []
    characters = completion_tokens = 0
    first = None
    for split, asked in catalogue.first_requests(recipe, seeds, prompt):
        splits.append(split)
        if not asked:
            continue
        first = first or asked[0]
        sent = sum(len(m["content"]) for r in asked for m in r.teacher_prompt)
        characters += sent * most // len(asked)  # later rounds are taken to be as long as the first
        completion_tokens += longest * most if asked[0].kind == "sample" else 0
    if first is None:
        raise RecipeError(f"strategy '{recipe.strategy}' asks nothing about these seeds", "do they have what it needs?")
    return Plan(
        task=recipe.task,
        strategy=recipe.strategy,
        teacher=", ".join(section.model for section in cast(recipe).values()),
        seeds=len(seeds),
        requests={split: count * most for split, count in Counter(splits).items()},
        shards=len(plan_shards(splits, g.shard_size)),
        prompt_tokens=characters // _CHARACTERS_PER_TOKEN,
        completion_tokens=completion_tokens,
        cost_usd=0.0,  # a local model; an engine that costs money brings its prices
        prompt=first.teacher_prompt,
        student_prompt=first.prompt,
    )
