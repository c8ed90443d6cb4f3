"""The teachers whose completions become rows, and the teachers whose distributions are stored with the rows."""

from __future__ import annotations

from synthgen.recipe.root import Recipe
from synthgen.tables.engines import AnyTeacher
from synthgen.tables.strategies import STRATEGIES

NO_TEACHER = (
    "key 'teacher' is missing: add it, or name several teachers under 'teachers'",
    "only commands on the rows of a data set need no teacher",
)
"""Message and hint for a command that needs a teacher, when the recipe has none."""


def speakers(recipe: Recipe) -> list[str]:
    """The names (in `recipe.teachers`) of the teachers whose completions become rows or whose distributions are stored.
    Names that match no teacher are left out. The result is [""] if the recipe has only `teacher`.
    """
    if not recipe.teachers:
        return [""]
    return [name for name in [*answering(recipe), *scoring(recipe)] if name in recipe.teachers]


def answering(recipe: Recipe) -> list[str]:
    """The names (in `recipe.teachers`) of the teachers whose completions become rows. The result is [] if the recipe
    has only `teacher`.
    """
    if STRATEGIES[recipe.strategy].answered_by == "every":
        return [*recipe.teachers]
    return [*recipe.mixture] or [*recipe.teachers][:1]


def scoring(recipe: Recipe) -> tuple[str, ...]:
    """The names of the teachers in `logits.score_by`, whose distributions at the tokens of each row are stored in
    addition to the distributions of the answering teacher.
    """
    return recipe.logits.score_by if recipe.logits else ()


def speaking(recipe: Recipe) -> list[tuple[str, AnyTeacher]]:
    """Pairs (dotted key in the recipe, section at this key) for all teachers whose names `speakers` returns."""
    if not recipe.teachers:
        return [("teacher", recipe.teacher)] if recipe.teacher else []
    return [(f"teachers.{name}", recipe.teachers[name]) for name in dict.fromkeys(speakers(recipe))]
