"""Read a recipe from a file and write it back, resolved."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import ValidationError

from synthgen.errors import RecipeError
from synthgen.recipe.generate import GenerateSection
from synthgen.recipe.locate import explain, parse
from synthgen.recipe.recipe import Recipe
from synthgen.tables.engines import AnyTeacher, ReplayTeacher, TeacherSection, VllmTeacher


def with_limits(recipe: Recipe, usd: float | None, max_failures: str | None) -> Recipe:
    """The recipe with another budget in dollars and another bound on failures. Raises RecipeError."""
    values = recipe.generate.model_dump()
    if usd is not None:
        values["budget"] = {**(values["budget"] or {}), "usd": usd}
    if max_failures is not None:
        values["max_failures"] = max_failures
    try:
        return recipe.model_copy(update={"generate": GenerateSection.model_validate(values)})
    except ValidationError as error:
        problem = error.errors()[0]
        raise RecipeError(f"{problem['loc'][0]}: {problem['msg']}", "see synthgen generate --help") from None


def local_teacher(recipe: Recipe) -> TeacherSection:
    """The teacher as `transformers` loads it, where its layers or its whole distribution are wanted.

    Raises RecipeError for one behind a wire."""
    teacher = recipe.teacher
    if isinstance(teacher, VllmTeacher):
        dtype = "float32" if teacher.dtype == "auto" else teacher.dtype
        return TeacherSection(model=teacher.model, revision=teacher.revision, license=teacher.license, dtype=dtype)
    if not isinstance(teacher, TeacherSection):
        raise RecipeError(f"teacher.engine is '{teacher.engine}'; this needs a teacher in this process")
    return teacher


def shipped(kind: Literal["prompts", "data"]) -> Path:
    """The folder that travels with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / kind
    return inside if inside.is_dir() else package.parent / kind


def find_recipe(name: str | Path) -> Path:
    """Path of a recipe: a file, a folder with recipe.yaml, or the name of a shipped task."""
    path = Path(name)
    for candidate in (path, path / "recipe.yaml", shipped("prompts") / path / "recipe.yaml"):
        if candidate.is_file():
            return candidate
    tasks = sorted(p.parent.name for p in shipped("prompts").glob("*/recipe.yaml"))
    raise RecipeError(f"no recipe at '{name}'", f"give a YAML file, or one of the shipped tasks: {', '.join(tasks)}")


def load_recipe(name: str | Path) -> Recipe:
    """Read, validate and resolve a recipe. Raises RecipeError naming the line and key."""
    path = find_recipe(name)
    node, values = parse(path)
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: a recipe is a mapping of keys to values", "see prompts/README.md for one")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(*explain(path, node, error, Recipe)) from None
    return _resolve(recipe, path.parent.resolve())


def dump_recipe(recipe: Recipe) -> str:
    """The resolved recipe as YAML."""
    values = recipe.model_dump(mode="json")
    return "# Resolved recipe: `synthgen run` on this file repeats the run.\n" + yaml.safe_dump(
        values, sort_keys=False, allow_unicode=True
    )


def _resolve(recipe: Recipe, base: Path) -> Recipe:
    def place(name: str) -> str:
        return str((base / Path(name).expanduser()).resolve())

    def place_of(name: str | None) -> str | None:  # a hub id never begins so
        return place(name) if name and name.startswith((".", "/", "~")) else name

    seeds = tuple(
        s.model_copy(update={"path": place(s.path) if s.path else None, "dataset": place_of(s.dataset)})
        for s in recipe.seeds
    )

    def placed(teacher: AnyTeacher) -> AnyTeacher:
        places = {key: place_of(getattr(teacher, key, None)) for key in ("model", "tokenizer")}
        if isinstance(teacher, ReplayTeacher):
            places = {"path": place(teacher.path)}
        return teacher.model_copy(update={key: value for key, value in places.items() if value})

    train = recipe.train
    if train:
        places = {key: place_of(getattr(train.student, key, None)) for key in ("model", "tokenizer")}
        student = train.student.model_copy(update={key: value for key, value in places.items() if value})
        train = train.model_copy(update={"student": student})
    if train and train.across:
        across = train.across.model_copy(
            update={"run": place(train.across.run), "tokenizer": place_of(train.across.tokenizer)}
        )
        train = train.model_copy(update={"across": across})
    return recipe.model_copy(
        update={
            "train": train,
            "seeds": seeds,
            "prompts": place(recipe.prompts),
            "teacher": placed(recipe.teacher),
            "teachers": {name: placed(teacher) for name, teacher in recipe.teachers.items()},
        }
    )
