"""Reads a recipe from a file, writes it back in resolved form, and changes values of a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml

from synthgen.errors import RecipeError, nearest
from synthgen.files import is_regular
from synthgen.recipe.explain import find
from synthgen.recipe.locate import MEND, Source, parse
from synthgen.recipe.overrides import HINT, apply, parse_settings, read
from synthgen.recipe.places import resolve
from synthgen.recipe.problem import Problem
from synthgen.recipe.root import Recipe
from synthgen.recipe.secrets import HINT as HIDE
from synthgen.recipe.secrets import secret_at
from synthgen.recipe.speakers import NO_TEACHER
from synthgen.tables.engines import ENGINES, TeacherSection

MOST_PROBLEMS = 20
"""The maximum number of problems that one error message shows."""


def load_recipe(name: str | Path, settings: Sequence[str] = ()) -> Recipe:
    """Read a recipe, check it, and make its paths absolute.

    `name` is a file, a folder with recipe.yaml, or the name of a shipped task. `settings` are texts "KEY=VALUE" that
    set dotted keys, as the command-line option --set does. Raises RecipeError, whose message has a line of text for
    each problem: the file, the line number, the key and the allowed values.
    """
    path = find_recipe(name)
    written = parse_settings(settings)
    node, values = parse(path)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values", "prompts/README.md shows an example")
    recipe = _checked(apply(values, read(written)) if written else values, Source(path, node, written))
    return resolve(recipe, path.parent.resolve())


def recipe_of_values(values: Mapping[str, object]) -> Recipe:
    """Build a recipe from its keys and values, and check it. Relative paths are relative to the current folder. Raises
    RecipeError, whose message has one line for each problem.
    """
    return resolve(_checked(dict(values), Source(None, None)), Path.cwd())


def check_recipe(recipe: Recipe) -> Recipe:
    """Check each section and the rules across sections, and return the recipe unchanged. Raises RecipeError, whose
    message has one line for each problem.

    Every command calls this function, because a recipe may have been built or changed in Python. `load_recipe` and
    `with_values` make the same check.
    """
    _checked(_plain(recipe), Source(None, None))
    return recipe


def with_values(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """Return a copy of the recipe with new values for some dotted keys: with_values(recipe, {"train.max_steps": 10}).

    The copy is checked like a recipe from a file. Raises RecipeError with one line for each problem.
    """
    try:
        written = {key: json.dumps(value, default=str) for key, value in values.items()}
    except (ValueError, RecursionError):
        key = next(iter(values))
        raise RecipeError(f"{key}: a value contains itself, or the values are nested too deep") from None
    return _checked(apply(_plain(recipe), values), Source(None, None, written, option=""))


def with_limits(recipe: Recipe, usd: float | None, max_failures: str | None) -> Recipe:
    """Return a copy of the recipe with `usd` as its budget in dollars and `max_failures` as its limit of failures. None
    keeps the recipe's value. Raises RecipeError when a value is not allowed.
    """
    values = {"generate.budget.usd": usd, "generate.max_failures": max_failures}
    given = {key: value for key, value in values.items() if value is not None}
    return with_values(recipe, given) if given else recipe


def _checked(values: dict[str, object], source: Source) -> Recipe:
    """Build the recipe from raw values. Raises RecipeError that lists all problems."""
    hidden = secret_at(values)
    if hidden is not None:  # this is checked first, because the messages about other problems show values
        where = source.where((hidden,))
        where = where.partition("=")[0] if source.overrides else where  # the text after "=" is the secret
        raise RecipeError(f"{where + ': ' if where else ''}{hidden}: the value is a secret, such as an API key", HIDE)
    recipe, problems = find(values)
    if recipe is None or problems:
        hint = HINT if source.option and source.overrides else MEND if source.path else "docs/recipe.md lists every key"
        raise RecipeError(_lines(problems, source), hint)
    return recipe


def _lines(problems: list[Problem], source: Source) -> str:
    """One line for each problem: unknown keys first, then all others in the order of the file."""
    order = sorted(problems, key=lambda problem: (not problem.urgent, source.line(problem.keys)))
    places = [source.where(problem.keys) for problem in order]
    lines = [
        f"{place}: {problem.text}" if place else problem.text for place, problem in zip(places, order, strict=True)
    ]
    more = len(lines) - MOST_PROBLEMS
    return "\n".join([*lines[:MOST_PROBLEMS], *([f"and {more} more problems"] if more > 0 else [])])


def local_teacher(recipe: Recipe) -> TeacherSection:
    """The section with which transformers loads the teacher, for callers that need the teacher's layers or full
    distributions.

    Raises RecipeError when the recipe has no teacher, when the teacher is not local, or when transformers cannot load
    its weights."""
    if recipe.teacher is None:
        raise RecipeError(*NO_TEACHER)
    weights = ENGINES[recipe.teacher.engine].weights
    if weights is None:
        raise RecipeError(
            f"teacher.engine is '{recipe.teacher.engine}'; "
            "this command needs a local teacher whose weights transformers can load"
        )
    return weights(recipe.teacher)


def has_local_teacher(recipe: Recipe) -> bool:
    """Whether transformers can load the recipe's teacher in this process; see `local_teacher`."""
    return recipe.teacher is not None and ENGINES[recipe.teacher.engine].weights is not None


def shipped(kind: Literal["prompts", "data"]) -> Path:
    """The folder `kind` of the files that are shipped with synthgen. In an installed package this folder is inside the
    package; in a git checkout it is next to the package.
    """
    package = Path(__file__).parent.parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def find_recipe(name: str | Path) -> Path:
    """The path of a recipe: a file, a folder with recipe.yaml, or the name of a shipped task. Raises RecipeError."""
    path = Path(name)
    for candidate in (path, path / "recipe.yaml", shipped("prompts") / path / "recipe.yaml"):
        if candidate.is_file():
            return candidate
    tasks = sorted(p.parent.name for p in shipped("prompts").glob("*/recipe.yaml"))
    folder = path.parent
    beside = sorted(str(p) for p in folder.iterdir() if _may_be_meant(p)) if folder.is_dir() else []
    guess = nearest(str(path), [*tasks, *beside])
    raise RecipeError(
        f"no recipe at '{name}'{guess if 'did you mean' in guess else ''}",
        f"give a YAML file, or one of the shipped tasks: {', '.join(tasks)}",
    )


def _may_be_meant(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") or (path / "recipe.yaml").is_file()


def schema_comment(schema: str | Path) -> str:
    """The first line of a recipe file. The line names the JSON Schema, so that editors can check the recipe."""
    return f"# yaml-language-server: $schema={schema}\n"


RESOLVED = "# Resolved recipe"
"""The beginning of a comment that marks a file as the resolved recipe of a run."""


def is_resolved(path: Path) -> bool:
    """Whether a file is the resolved recipe of a run, which `dump_recipe` writes."""
    if not is_regular(path):
        return False
    with path.open("rb") as file:
        head = file.read(4096).decode(errors="replace")
    return any(line.startswith(RESOLVED) for line in head.splitlines()[:3])


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    return (
        schema_comment(shipped("data") / "recipe.schema.json")
        + f"{RESOLVED}: `synthgen run` on this file repeats the run.\n"
        + yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)
    )


def _plain(recipe: Recipe) -> dict[str, object]:
    """The recipe's values as YAML can store them. `teacher` is left out when the recipe has no teacher. `teacher` is
    also left out when it equals the first of `teachers`, because validation fills in the key.
    """
    values: dict[str, object] = recipe.model_dump(mode="json")
    if recipe.teacher is None or (recipe.teachers and recipe.teacher == next(iter(recipe.teachers.values()))):
        del values["teacher"]
    return values
