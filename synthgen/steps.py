"""The recipe's strategy: its names, its section `steps`, and what must go together with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synthgen.errors import nearest
from synthgen.sections import Count, Section

Strategy = Literal[
    "answer",
    "rationale",
    "classify",
    "embed",
    "score",
    "rationalise",
    "vote",
    "best_of_n",
    "preference",
    "consensus",
    "disagreement",
    "self_instruct",
    "evolve",
    "magpie",
    "personas",
    "paraphrase",
    "back_translation",
    "counterfactual",
    "extract",
    "conversation",
]


class StepsSection(Section):
    """What strategies of several steps need besides; prompts/README.md says which strategy uses what."""

    candidates: Count = 4
    """Completions asked for a seed, at most (vote, best_of_n, preference); new questions at most (extract)."""
    rounds: Count = 2
    """Rewritings one after another (evolve); turns of the user (conversation)."""
    shown: Count = 4
    """Seeds that self_instruct shows as examples."""
    choose: Literal["judge", "probability", "likelihood", "reference"] = "judge"
    """What best_of_n and preference go by: the judge's mark; its probability of 'yes'; the mean log-probability of
    the completion's tokens under it; or whether the answer matches the reference."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Of rewriting steps; judges answer greedily."""
    max_new_tokens: Count = 96
    """Of rewriting and judging steps."""
    judge: str | None = None
    """Name of the teacher that judges; the first one unless given."""
    rewriter: str | None = None
    """Name of the teacher that writes new questions; the one that answers unless given."""


def speakers(recipe: Any) -> list[str]:
    """Names, in `recipe.teachers`, of those whose completions become rows or whose distributions are kept; [""] for
    a single teacher. A name that nobody has is left to `check`. (`recipe` is a Recipe, which imports this module.)"""
    if not recipe.teachers:
        return [""]
    everybody = recipe.strategy in ("consensus", "disagreement")
    names = [*recipe.teachers] if everybody else [*recipe.mixture] or [*recipe.teachers][:1]
    return [name for name in [*names, *(recipe.logits.score_by if recipe.logits else ())] if name in recipe.teachers]


def check(recipe: Any) -> None:
    """Raise ValueError when strategy, teachers and steps do not go together."""
    marked = ("rationale", "rationalise")
    if recipe.strategy in marked and not recipe.generate.answer_marker:
        raise ValueError(f"strategy '{recipe.strategy}' needs generate.answer_marker")
    if recipe.strategy in ("best_of_n", "preference") and recipe.steps.candidates < 2:
        raise ValueError(f"strategy '{recipe.strategy}' needs two or more steps.candidates")
    if recipe.strategy == "preference" and recipe.train:
        raise ValueError("no student here learns from preference pairs; leave 'train' out")
    _check_names(recipe)
    by = recipe.logits.score_by if recipe.logits else ()
    if recipe.strategy == "score" and (recipe.logits is None or by or len(recipe.mixture) > 1):
        raise ValueError("strategy 'score' needs a 'logits' section, and one teacher")
    if recipe.strategy in ("consensus", "disagreement"):
        if len(recipe.teachers) < 2:
            raise ValueError(f"strategy '{recipe.strategy}' needs two or more 'teachers'")
        if by or recipe.mixture:
            raise ValueError(f"strategy '{recipe.strategy}' asks every teacher: no 'mixture', no logits.score_by")
    if by and recipe.strategy in ("classify", "embed"):
        raise ValueError(f"logits.score_by: strategy '{recipe.strategy}' has no completions to score")


def _check_names(recipe: Any) -> None:
    """Raise ValueError for a teacher that nobody has named, or that is to score its own tokens."""
    by = recipe.logits.score_by if recipe.logits else ()
    named = [("mixture", name) for name in recipe.mixture] + [("logits.score_by", name) for name in by]
    named += [("steps.judge", name) for name in (recipe.steps.judge,) if name]
    named += [("steps.rewriter", name) for name in (recipe.steps.rewriter,) if name]
    for key, name in named:
        if name not in recipe.teachers:
            raise ValueError(f"{key} names the teacher '{name}'{nearest(name, recipe.teachers)}")
    if set(by) & set(recipe.mixture or list(recipe.teachers)[:1]):
        raise ValueError("logits.score_by names a teacher that answers; its distributions are kept anyway")
