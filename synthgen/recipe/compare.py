"""Which values of two recipes differ, and which of them decide what is made."""

from __future__ import annotations

from typing import Any

from synthgen.recipe.recipe import Recipe
from synthgen.recipe.train import HOW

_HOW = {
    "teacher": (
        *("api_key_env", "rpm", "tpm", "max_in_flight", "timeout", "attempts"),
        *("tensor_parallel_size", "data_parallel_size", "gpu_memory_utilization", "max_num_seqs"),
    ),
    "generate": ("budget", "max_failures"),
    "train": HOW,
}


def deciding(recipe: Recipe) -> dict[str, Any]:
    """The recipe's values that decide what is made."""
    values = recipe.model_dump(mode="json")
    for section, keys in _HOW.items():
        if values[section] is None:
            continue
        values[section] = {key: value for key, value in values[section].items() if key not in keys}
    values["teachers"] = {
        name: {key: value for key, value in teacher.items() if key not in _HOW["teacher"]}
        for name, teacher in values["teachers"].items()
    }
    return values


_FREE = ("config", "extra", "json_schema", "fields")


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "", free: bool = False) -> list[str]:
    """'key: old → new' for every leaf that differs; a list's entries are numbered.

    A key that one side does not know, and that is off on the other (null, false, empty), is no difference: an older
    version wrote that side, and did what the newer does without it. Not so where keys are not ours (`_FREE`).
    """
    found: list[str] = []
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
            found += differences(a, b, f"{prefix}{key}.", free or key in _FREE)
        elif a != b:
            found.append(f"{prefix}{key}: {a!r} → {b!r}")
    return found
