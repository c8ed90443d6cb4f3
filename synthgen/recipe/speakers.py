"""The teachers whose completions become rows, and the teachers whose distributions are stored with the rows."""

from __future__ import annotations

from synthgen.recipe.root import Recipe
from synthgen.tables.engines import AnyTeacher
from synthgen.tables.strategies import STRATEGIES


def speakers(recipe: Recipe) -> list[str]:
    """The names (in `recipe.teachers`) of teachers whose completions become rows or whose distributions are stored;
    [""] for a single teacher. Names that match no teacher are left out.
    """
    if not recipe.teachers:
        return [""]
    return [name for name in [*answering(recipe), *scoring(recipe)] if name in recipe.teachers]


def answering(recipe: Recipe) -> list[str]:
    """The names (in `recipe.teachers`) of teachers whose completions become rows; [] for a single teacher."""
    if STRATEGIES[recipe.strategy].answered_by == "every":
        return [*recipe.teachers]
    return [*recipe.mixture] or [*recipe.teachers][:1]


def scoring(recipe: Recipe) -> tuple[str, ...]:
    """The names of additional teachers that score the rows with their distributions."""
    return recipe.logits.score_by if recipe.logits else ()


def speaking(recipe: Recipe) -> list[tuple[str, AnyTeacher]]:
    """The (key in the recipe, section) pairs of all teachers that `speakers` names."""
    if not recipe.teachers:
        return [("teacher", recipe.teacher)]
    return [(f"teachers.{name}", recipe.teachers[name]) for name in dict.fromkeys(speakers(recipe))]
