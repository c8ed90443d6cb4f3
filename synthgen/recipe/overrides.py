"""Reads values that replace values of a recipe's file: `--set KEY=VALUE`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from synthgen.errors import RecipeError, UserError
from synthgen.recipe.secrets import HINT as NO_SECRET
from synthgen.recipe.secrets import secret_in
from synthgen.recipe.yaml_text import YamlProblem, load_yaml

HINT = 'write --set KEY=VALUE with a dotted key, such as --set train.learning_rate=1e-4 or --set "seeds.0.limit=10"'


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Parse texts "KEY=VALUE" into {dotted key: value as text}. When a key occurs twice, its last value is used.

    Raises UserError when a text has no key or no "=".
    """
    found: dict[str, str] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise UserError(f"--set {text}: not KEY=VALUE", HINT)
        found.pop(key, None)
        found[key] = value
    return found


def read(settings: Mapping[str, str]) -> dict[str, object]:
    """Parse each value as YAML. Raises RecipeError when a value is not valid YAML."""
    values: dict[str, object] = {}
    for key, text in settings.items():
        if secret_in(text):
            raise RecipeError(f"--set {key}: the value holds a secret, such as an API key", NO_SECRET)
        try:
            _, values[key] = load_yaml(text)
        except YamlProblem as problem:
            reason = problem.text if "not valid YAML" not in problem.text else f"the value is {problem.text}"
            raise RecipeError(f"--set {key}={text}: {reason}", HINT) from None
    return values


def apply(values: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    """Return the raw values of a recipe with some dotted keys set. A section that is missing or null is created.

    Raises RecipeError when a key leads into a value that is neither a mapping nor a list, or to an index that a list
    does not have.
    """
    changed: dict[str, object] = copy.deepcopy(dict(values))
    for key, value in settings.items():
        *parents, last = key.split(".")
        inside: object = changed
        for place, part in enumerate(parents):
            above = ".".join(parents[:place])
            if isinstance(inside, dict) and inside.get(part) is None:
                inside[part] = {}
            inside = _entry(inside, part, key, above)
        if isinstance(inside, list):
            _entry(inside, last, key, ".".join(parents))
            inside[int(last)] = value
        elif isinstance(inside, dict):
            inside[last] = value
        else:
            raise _no_place(key, ".".join(parents))
    return changed


def _entry(inside: object, part: str, key: str, above: str) -> object:
    if isinstance(inside, dict):
        return inside.get(part)
    if isinstance(inside, list):
        if not part.isdecimal() or int(part) >= len(inside):
            raise RecipeError(f"--set {key}: '{above}' is a list with the indexes 0 to {len(inside) - 1}", HINT)
        return inside[int(part)]
    raise _no_place(key, above)


def _no_place(key: str, above: str) -> RecipeError:
    return RecipeError(f"--set {key}: '{above}' is a single value and has no keys", HINT)
