"""Whose completions become the rows of a recipe, and whose distributions are kept beside them."""

from __future__ import annotations

from synthgen.recipe.root import Recipe
from synthgen.tables.engines import AnyTeacher
from synthgen.tables.strategies import STRATEGIES


def speakers(recipe: Recipe) -> list[str]:
    """Names, in `recipe.teachers`, of those whose completions become rows or whose distributions are kept; [""] for a
    single teacher. A name that no teacher has is left out."""
    if not recipe.teachers:
        return [""]
    return [name for name in [*answering(recipe), *scoring(recipe)] if name in recipe.teachers]


def answering(recipe: Recipe) -> list[str]:
    """Names, in `recipe.teachers`, of those whose completions become rows; [] for a single teacher."""
    if STRATEGIES[recipe.strategy].answered_by == "every":
        return [*recipe.teachers]
    return [*recipe.mixture] or [*recipe.teachers][:1]


def scoring(recipe: Recipe) -> tuple[str, ...]:
    """Names of the further teachers that give distributions on the rows."""
    return recipe.logits.score_by if recipe.logits else ()


def speaking(recipe: Recipe) -> list[tuple[str, AnyTeacher]]:
    """(key in the recipe, section) of the same."""
    if not recipe.teachers:
        return [("teacher", recipe.teacher)]
    return [(f"teachers.{name}", recipe.teachers[name]) for name in dict.fromkeys(speakers(recipe))]
