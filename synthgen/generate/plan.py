"""What a recipe would do, before anything is sent: counts, tokens, cost, and one rendered prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from synthgen.generate.budget import PICO, prices
from synthgen.generate.remote import Asked
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe
from synthgen.records import Message
from synthgen.sections import ApiTeacher
from synthgen.seeds import load_seeds
from synthgen.teachers.openai import ApiModel

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
    cost_usd: float | None
    """Estimate: prompts by their characters, completions half as long as they may be; None: price unknown."""
    most_usd: float | None
    """At most, nothing asked twice: a prompt token for every byte, every completion as long as it may be."""
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
    asked = Asked(recipe, seeds, prompt, recipe.teacher.model)
    splits = asked.splits
    api = ApiModel(recipe, recipe.teacher, None, None) if isinstance(recipe.teacher, ApiTeacher) else None
    characters = longest = completions = 0
    for request in (r for start in range(0, len(asked), 1024) for r in asked.range(start, start + 1024)):
        characters += sum(len(m["content"]) for m in request.teacher_prompt)
        call = api.call(request) if api else None
        longest += call.most_prompt if call else 0
        completions += call.most_completion if call else request.sampling["max_new_tokens"]
    first = asked.range(0, 1)[0]
    price = prices(recipe.teacher)
    estimate = most = None
    if price is not None:
        estimate = price.most(characters // _CHARACTERS_PER_TOKEN, completions // 2) / PICO
        most = price.most(longest, completions) / PICO
    return Plan(
        task=recipe.task,
        strategy=recipe.strategy,
        teacher=recipe.teacher.model,
        seeds=len(seeds),
        requests=dict(Counter(splits)),
        shards=len(plan_shards(splits, recipe.generate.shard_size)),
        prompt_tokens=characters // _CHARACTERS_PER_TOKEN,
        completion_tokens=completions,
        cost_usd=estimate,
        most_usd=most,
        prompt=first.teacher_prompt,
        student_prompt=first.prompt,
    )
