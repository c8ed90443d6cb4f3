"""What a recipe would do, before anything is sent: counts, tokens, cost, and one rendered prompt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from synthgen.corpus import plan_shards
from synthgen.errors import RecipeError
from synthgen.generation import strategies
from synthgen.generation.budget import PICO, prices
from synthgen.generation.jobs import cast
from synthgen.prompts import load_prompt
from synthgen.recipe import Recipe, check_models, check_recipe
from synthgen.records import Message
from synthgen.seeds import load_seeds
from synthgen.tables.engines import ApiTeacher
from synthgen.teachers.openai import ApiModel

_CHARACTERS_PER_TOKEN = 4  # English prose; stated beside every estimate made with it


@dataclass(frozen=True)
class Plan:
    """`requests` and `completion_tokens` are the most there can be; `prompt_tokens` is an estimate from characters.

    Of a strategy of several rounds only the first can be read beforehand: later ones are taken to be as long.
    """

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
    check_models(check_recipe(recipe))
    prompt = load_prompt(recipe.prompts, recipe.task)
    seeds = load_seeds(recipe.seeds, recipe.split, strategies.question(recipe, prompt))
    sections, steps, g = cast(recipe), recipe.steps, recipe.generate
    apis = {n: ApiModel(recipe, s, None, None) for n, s in sections.items() if isinstance(s, ApiTeacher)}
    known = {name: prices(section) for name, section in sections.items()}
    most = strategies.STRATEGIES[recipe.strategy].most(steps, len(recipe.teachers))
    longest = max(g.max_new_tokens, steps.max_new_tokens) if most > 1 else g.max_new_tokens
    splits: list[str] = []
    characters = completions = 0
    estimate: int | None = 0
    bound: int | None = 0
    first = None
    for split, asked in strategies.first_requests(recipe, seeds, prompt):
        splits.append(split)
        for request in asked:
            first = first or request
            times = most / len(asked)
            call = apis[request.teacher].call(request) if request.teacher in apis else None
            sent = sum(len(m["content"] or "") for m in request.teacher_prompt)
            made = longest if request.kind == "sample" else call.most_completion if call else 0
            characters += round(sent * times)
            completions += round(made * times)
            price = known[request.teacher]
            if price is None or estimate is None or bound is None:
                estimate = bound = None
                continue
            estimate += round(price.most(sent // _CHARACTERS_PER_TOKEN, made // 2) * times)
            bound += round(price.most(call.most_prompt if call else 0, made) * times)
    if first is None:
        raise RecipeError(f"strategy '{recipe.strategy}' asks nothing about these seeds", "do they have what it needs?")
    return Plan(
        task=recipe.task,
        strategy=recipe.strategy,
        teacher=", ".join(section.model for section in sections.values()),
        seeds=len(seeds),
        requests={split: count * most for split, count in Counter(splits).items()},
        shards=len(plan_shards(splits, g.shard_size)),
        prompt_tokens=characters // _CHARACTERS_PER_TOKEN,
        completion_tokens=completions,
        cost_usd=None if estimate is None else estimate / PICO,
        most_usd=None if bound is None else bound / PICO,
        prompt=first.teacher_prompt,
        student_prompt=first.prompt,
    )
