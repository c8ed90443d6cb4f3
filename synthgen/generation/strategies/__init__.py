"""All strategies by name: a new one is a generator, and an entry here.

`strategies` has the ones of one round; `choosing` asks several times and keeps what is best; `asking` makes new
questions first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.generation.jobs import Job, Jobs, answerers, cast, who
from synthgen.generation.rounds import Rounds
from synthgen.generation.strategies import asking, choosing, single
from synthgen.prompts import Prompt
from synthgen.recipe import Recipe, StepsSection
from synthgen.requests import Request
from synthgen.seeds import Seed


@dataclass(frozen=True)
class Strategy:
    """`make` runs a job. `templates` must be in the folder, `question` is the one that shows what a seed asks;
    `most` is the number of requests of a job, at most; `needs` is what it wants of which teacher."""

    make: Callable[[Job], Rounds]
    templates: tuple[str, ...] = ()
    question: str = "user"
    most: Callable[[StepsSection, int], int] = lambda steps, teachers: 1
    needs: Callable[[Job], dict[str, str]] = lambda job: {job.teacher: "sample"}


def _chosen(steps: StepsSection, teachers: int) -> int:
    return steps.candidates * (1 if steps.choose == "reference" else 2)


def _judged(job: Job) -> dict[str, str]:
    wanted = {"judge": "sample", "probability": "classify", "likelihood": "score"}
    choose = job.recipe.steps.choose
    return {job.judge: wanted[choose]} if choose in wanted else {}


STRATEGIES: dict[str, Strategy] = {
    "answer": Strategy(single.answer),
    "rationale": Strategy(single.answer),
    "classify": Strategy(single.classify, needs=lambda job: {job.teacher: "classify"}),
    "embed": Strategy(single.embed, needs=lambda job: {job.teacher: "embed"}),
    "score": Strategy(single.score, needs=lambda job: {job.teacher: "score"}),
    "rationalize": Strategy(choosing.rationalize, ("hint",), most=lambda steps, teachers: 2),
    "vote": Strategy(choosing.vote, most=lambda steps, teachers: steps.candidates),
    "best_of_n": Strategy(choosing.best_of_n, most=_chosen, needs=_judged),
    "preference": Strategy(choosing.preference, most=_chosen, needs=_judged),
    "consensus": Strategy(choosing.consensus, most=lambda steps, teachers: teachers),
    "disagreement": Strategy(choosing.disagreement, most=lambda steps, teachers: teachers),
    "self_instruct": Strategy(asking.self_instruct, ("new",), most=lambda steps, teachers: 2),
    "evolve": Strategy(asking.evolve, most=lambda steps, teachers: 2 * steps.rounds),
    "magpie": Strategy(
        asking.magpie,
        ("turn_system",),
        "turn_system",
        most=lambda steps, teachers: 2,
        needs=lambda job: {job.rewriter: "open_turn"},
    ),
    "personas": Strategy(asking.personas, ("ask",), "ask", most=lambda steps, teachers: 2),
    "paraphrase": Strategy(asking.paraphrase, ("paraphrase",), most=lambda steps, teachers: 2),
    "back_translation": Strategy(asking.back_translation, ("translate", "back"), most=lambda steps, teachers: 3),
    "counterfactual": Strategy(asking.counterfactual, most=lambda steps, teachers: 2),
    "extract": Strategy(asking.extract, ("questions",), "questions", most=lambda steps, teachers: 1 + steps.candidates),
    "conversation": Strategy(asking.conversation, ("user_turn",), most=lambda steps, teachers: 2 * steps.rounds - 1),
}


_JUDGED = frozenset({"best_of_n", "preference"})
_REWRITING = frozenset(
    {"self_instruct", "evolve", "magpie", "personas", "paraphrase", "back_translation", "extract", "conversation"}
)


def many(recipe: Recipe) -> bool:
    """Can a job make several requests?"""
    return STRATEGIES[recipe.strategy].most(recipe.steps, len(recipe.teachers)) > 1


def question(recipe: Recipe, prompt: Prompt) -> Callable[[dict[str, Any]], str]:
    """What a seed asks, for the groups of the split. Raises RecipeError when the strategy's templates are missing."""
    strategy = STRATEGIES[recipe.strategy]
    prompt.need((*strategy.templates, strategy.question), recipe.strategy)
    if recipe.strategy in _JUDGED and recipe.steps.choose in ("judge", "probability"):
        prompt.need(("judge",), recipe.strategy)
    if recipe.strategy == "evolve" and not asking.methods(prompt):
        prompt.need((f"{asking.METHOD}NAME",), recipe.strategy)
    if recipe.strategy == "score":
        return lambda fields: _given(fields, prompt)
    return lambda fields: prompt.text(strategy.question, fields)


def _given(fields: dict[str, Any], prompt: Prompt) -> str:
    """The question of a row that has its own messages, or what user.j2 makes of it."""
    given = fields.get("prompt")
    if isinstance(given, list):
        return "\n".join(str(message.get("content") or "") for message in given)
    return prompt.question(fields)


def first_requests(recipe: Recipe, seeds: Sequence[Seed], prompt: Prompt) -> Iterator[tuple[str, list[Request]]]:
    """For every job its split and the requests of its first round; nothing is sent, and no teacher is loaded."""
    jobs = Jobs(recipe, seeds, prompt, who(recipe))
    for start in range(0, len(jobs), 256):
        for job in jobs.range(start, min(start + 256, len(jobs))):
            rounds = STRATEGIES[recipe.strategy].make(job)
            try:
                yield job.seed.split, next(rounds)
            except StopIteration:
                yield job.seed.split, []
            rounds.close()


def needs(recipe: Recipe, job: Job) -> list[tuple[str, str]]:
    """(teacher's name, capability) for all that the recipe wants, as far as one job shows it."""
    found = [*STRATEGIES[recipe.strategy].needs(job).items()]
    if recipe.strategy not in ("classify", "embed", "score"):
        found += [(name, "sample") for name in answerers(recipe)]
    return [*found, *((name, "score") for name in (recipe.logits.score_by if recipe.logits else ()))]


def roles(recipe: Recipe) -> list[dict[str, str]]:
    """The recipe's teachers with what each does, as the manifest lists them."""
    found = {"generator" if recipe.strategy != "score" else "logits": answerers(recipe)}
    found["logits"] = [*found.get("logits", []), *(recipe.logits.score_by if recipe.logits else ())]
    if recipe.strategy in _JUDGED and recipe.steps.choose != "reference":
        found["judge"] = [recipe.steps.judge or next(iter(cast(recipe)))]
    if recipe.steps.rewriter and recipe.strategy in _REWRITING:
        found["rewriter"] = [recipe.steps.rewriter]
    everybody = cast(recipe)
    return [
        {"role": role, "source": everybody[name].model, "license": everybody[name].license}
        for role, names in found.items()
        for name in names
    ]
