"""What is wrong with a recipe, in one line: file, line, key, value, what is allowed.

Pydantic knows what is wrong and YAML's node tree knows where; this lays the one over the other.
"""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from synthgen.errors import RecipeError, nearest

_MEND = "mend that line of the recipe"
# Pydantic speaks of Python's types; a recipe has YAML's.
_WANTED = {
    "tuple_type": "a list is wanted",
    "dict_type": "a mapping of keys to values is wanted",
    "model_type": "a mapping of keys to values is wanted",
    "model_attributes_type": "a mapping of keys to values is wanted",
    "too_short": "the list is too short",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def parse(path: Path) -> tuple[Any, Any]:
    """(node tree, values) of a YAML file. Raises RecipeError with the line."""
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason})", "a recipe is a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise RecipeError(f"{path}{where}: not valid YAML: {problem}", _MEND) from None
    _refuse_twins(path, node, set())
    return node, values


def _refuse_twins(path: Path, node: Any, seen: set[int]) -> None:
    """Raise RecipeError for a key that stands twice in one mapping: YAML would silently take the last."""
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key.value, str) and key.value in lines:
                raise RecipeError(
                    f"{path}, line {line}: key '{key.value}' is already set at line {lines[key.value]}",
                    "keep one of them",
                )
            lines[str(key.value)] = line
            _refuse_twins(path, value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twins(path, value, seen)


def explain(path: Path, node: Any, error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """Message and hint for the first problem, an unknown key before others; and how many more keys have one."""
    problems: dict[str, list[tuple[tuple[int | str, ...], Any]]] = {}
    for found in error.errors():
        loc = _in_yaml(node, found["loc"])
        if found["type"].startswith("union_tag"):
            loc = (*loc, found["ctx"]["discriminator"].strip("'"))
        problems.setdefault(".".join(map(str, loc)) or "recipe", []).append((loc, found))
    kinds = {key: found[0][1]["type"] for key, found in problems.items()}
    # A list whose only entry is wrong is also reported as too short, and as not the other branch of its union.
    keys = [key for key in kinds if not any(other.startswith(f"{key}.") for other in kinds)]
    key = next((key for key in keys if kinds[key] == "extra_forbidden"), keys[0])
    loc, problem = problems[key][0]
    if kinds[key] == "extra_forbidden":
        message = f"unknown key '{key}'{nearest(str(loc[-1]), _known(model, loc[:-1]))}"
    elif kinds[key] in ("missing", "union_tag_not_found"):
        message = f"key '{key}' is missing"
    elif kinds[key] == "union_tag_invalid":
        message = f"key '{key}' is {problem['ctx']['tag']!r}: it should be one of {problem['ctx']['expected_tags']}"
    elif kinds[key] == "value_error":
        message = f"{key}: {problem['ctx']['error']}"
    else:
        wanted = [_WANTED.get(p["type"], p["msg"][0].lower() + p["msg"][1:]) for _, p in problems[key]]
        message = f"key '{key}' is {_SHORT.repr(problem['input'])}: {', or '.join(dict.fromkeys(wanted))}"
    more = f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""
    return f"{path}, line {_line(node, loc)}: {message}{more}", _MEND


def _child(node: Any, part: int | str) -> tuple[Any, Any] | None:
    """(node that names `part` of `node`, its value), if YAML has it."""
    if isinstance(node, yaml.MappingNode):
        return next(((k, v) for k, v in node.value if k.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def _in_yaml(node: Any, loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """`loc` without the names that pydantic gives to the branches of a union."""
    kept: list[int | str] = []
    for place, part in enumerate(loc):
        found = _child(node, part)
        missing = isinstance(node, yaml.MappingNode) and place == len(loc) - 1
        if found is not None or missing:
            kept.append(part)
            node = found[1] if found else None
    return tuple(kept)


def _line(node: Any, loc: tuple[int | str, ...]) -> int:
    """Line of the innermost key of `loc` that the YAML has."""
    line = int(node.start_mark.line) + 1
    for part in loc:
        found = _child(node, part)
        if found is None:
            return line
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def _known(model: type[BaseModel], parents: tuple[int | str, ...]) -> list[str]:
    """Keys allowed inside the section at `parents`."""
    sections = [model]
    for name in parents:
        if isinstance(name, str):
            fields = [s.model_fields[name] for s in sections if name in s.model_fields]
            sections = [section for field in fields for section in _sections(field.annotation)]
    return sorted({name for section in sections for name in section.model_fields})


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """Every section that a field of this type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
