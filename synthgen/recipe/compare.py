"""Compares two recipes: which values differ, and which values affect the output."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from synthgen import durable
from synthgen.recipe.root import Recipe
from synthgen.recipe.train import TRAIN_MAY_CHANGE
from synthgen.tables.engines import ENGINES

_GENERATE_MAY_CHANGE = ("budget", "max_failures")
_NOT_OF_ROWS = ("description", "notes", "license", "audit", "train", "evaluate")
"""Keys that affect neither the rows nor the time that the rows take."""


def digest_of_rows(recipe: Recipe) -> str:
    """A hash of the values that change the rows, or that change how long generation and curation take."""
    values = _without(recipe.model_dump(mode="json"), _NOT_OF_ROWS)
    return durable.digest({**values, "seeds": [_without(seeds, ("private",)) for seeds in values["seeds"]]})


def deciding(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values that affect the output. These values are left out: values that only set the speed, an
    address, or the point at which a run stops; the intended use, because every command that needs it judges it again;
    the paths of seeds and templates, because their content is compared by hashes (`Claim`); and whether seeds are
    private, because only the audit reads this. Other paths inside the folder of the templates are relative to this
    folder. So a recipe and its run can be moved together.
    """
    values = recipe.model_dump(mode="json")
    base = values.pop("prompts")
    del values["audit"]
    for key in ("teacher", "teachers"):
        values[key] = _relative(values[key], base)
    values["seeds"] = [_without(seeds, ("path", "private")) for seeds in values["seeds"]]
    if recipe.teacher:
        values["teacher"] = _without(values["teacher"], ENGINES[recipe.teacher.engine].may_change)
    values["teachers"] = {
        name: _without(values["teachers"][name], ENGINES[teacher.engine].may_change)
        for name, teacher in recipe.teachers.items()
    }
    values["generate"] = _without(values["generate"], _GENERATE_MAY_CHANGE)
    if values["train"] is not None:
        values["train"] = _without(values["train"], TRAIN_MAY_CHANGE)
        values["train"]["student"] = _without(values["train"]["student"], ("license",))
    return values


def _relative(value: object, base: str) -> object:
    """A copy of `value` in which each path inside the folder `base` is relative to `base`, such as ./models/mine."""
    if isinstance(value, dict):
        return {key: _relative(inner, base) for key, inner in value.items()}
    if isinstance(value, str) and base.startswith("/") and value.startswith(f"{base}/"):
        return f"./{value[len(base) + 1 :]}"
    return value


def _without(values: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


_FREE = ("config", "extra", "json_schema", "fields")
_ORDERED = ("teachers", "mixture")  # the order decides who answers and judges by default, and what a mixture draws


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "", free: bool = False) -> list[str]:
    """A text 'key: old → new' for each value that differs. In the dotted key, an entry of a list is named by its index.

    A key that only one recipe has does not count as a difference if its value means off (null, false or empty). A
    recipe of an older version of synthgen lacks keys that the version did not know, and the version behaved as if these
    keys were off. Mappings whose keys the user chooses (`_FREE`) are compared without this exception: a key that only
    one recipe has is always a difference. In the mappings `_ORDERED`, another order of the keys is a difference too.
    """
    lines: list[str] = []
    for key in [*old, *(k for k in new if k not in old)]:
        a, b = old.get(key), new.get(key)
        if (
            not free
            and not (key in old and key in new)
            and all(value is False or value in (None, "", [], {}) for value in (a, b))
        ):
            continue
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            a, b = ({str(place): value for place, value in enumerate(side)} for side in (a, b))
        if isinstance(a, dict) and isinstance(b, dict):
            if key in _ORDERED and not free and [k for k in a if k in b] != [k for k in b if k in a]:
                lines.append(f"order of {prefix}{key}: {', '.join(a)} → {', '.join(b)}")
            lines += differences(a, b, f"{prefix}{key}.", free or key in _FREE)
        elif a != b:
            lines.append(f"{prefix}{key}: {a!r} → {b!r}")
    return lines
