"""Locates a key of a recipe: its line in the YAML file, or the option that set it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from synthgen.errors import RecipeError
from synthgen.recipe.secrets import HINT, secret_in
from synthgen.recipe.yaml_text import YamlProblem, load_yaml

MEND = "change the line of the recipe that the message names; docs/recipe.md lists every key"


@dataclass(frozen=True)
class Source:
    """The source of a recipe's values: a YAML file (`path`) with its node tree (`node`), and `overrides`, which replace
    values of the file.

    `overrides` maps a dotted key to its value as text. `option` is the text that messages show before KEY=VALUE.
    """

    path: Path | None
    node: yaml.Node | None
    overrides: Mapping[str, str] = field(default_factory=dict)
    option: str = "--set "

    def where(self, keys: Sequence[str]) -> str:
        """ "FILE, line N" or "--set KEY=VALUE" for the first of these keys that is present.

        If none of the keys is present, returns a line for the first key: the line of the innermost section around this
        key that the file contains. Returns '' if the recipe has no file.
        """
        for key in keys:
            override = next((o for o in self.overrides if key == o or key.startswith(f"{o}.")), None)
            if override is not None:
                return self._written(override)
            line, whole = _line(self.node, key)
            if whole and self.path is not None:
                return f"{self.path}, line {line}"
        above = keys[0].rpartition(".")[0]
        places = [keys[0], *([above] if above and not _line(self.node, above)[1] else [])]
        inside = next((o for place in places for o in self.overrides if o.startswith(f"{place}.")), None)
        if inside is not None:
            return self._written(inside)
        return f"{self.path}, line {_line(self.node, keys[0])[0]}" if self.path else ""

    def line(self, keys: Sequence[str]) -> int:
        """The line number in the file for the first of these keys, for sorting; 0 for a value that an override set."""
        file, _, line = self.where(keys).rpartition(", line ")
        return int(line) if self.path is not None and file == str(self.path) else 0

    def _written(self, key: str) -> str:
        return f"{self.option}{key}={self.overrides[key]}"


def parse(path: Path) -> tuple[yaml.Node | None, object]:
    """Return (node tree, values) of a YAML file. Raises RecipeError, which names the line, when the YAML is invalid."""
    try:
        text = path.read_text(encoding="utf-8")
        node, values = load_yaml(text)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text ({error.reason})", "a recipe is a YAML file") from None
    except YamlProblem as problem:
        where = f", line {problem.line}" if problem.line else ""
        raise RecipeError(f"{path}{where}: {problem.text}", MEND) from None
    if secret_in(text):
        raise RecipeError(f"{path}, line {_line_of_secret(text)}: this line holds a secret, such as an API key", HINT)
    _refuse_twins(path, node, set())
    return node, values


def _line_of_secret(text: str) -> int:
    """The line in which the first secret of a text begins. A secret may go on in the next lines."""
    lines = text.splitlines(keepends=True)
    last = bisect_left(range(len(lines)), True, key=lambda n: secret_in("".join(lines[: n + 1])))
    return last + 1 - bisect_left(range(last), True, key=lambda n: secret_in("".join(lines[last - n : last + 1])))


def _refuse_twins(path: Path, node: yaml.Node | None, seen: set[int]) -> None:
    """Raise RecipeError when a key occurs twice in one mapping, because YAML would silently take the last one."""
    if id(node) in seen:  # this is a YAML alias whose mapping was checked before
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key.value, str) and key.value in lines:
                raise RecipeError(
                    f"{path}, line {line}: key '{key.value}' is already set at line {lines[key.value]}",
                    "keep one of the two lines",
                )
            lines[str(key.value)] = line
            _refuse_twins(path, value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_twins(path, value, seen)


def _line(node: yaml.Node | None, key: str) -> tuple[int, bool]:
    """Follow a dotted key into the YAML as far as the YAML contains it. Return (line of the last name that was found,
    whether the whole key was found).
    """
    line = node.start_mark.line + 1 if node is not None else 1
    parts = key.split(".") if key else []
    while parts:
        found = _child(node, parts)
        if found is None:
            return line, False
        named, node, parts = found
        line = named.start_mark.line + 1
    return line, True


def _child(node: yaml.Node | None, parts: list[str]) -> tuple[yaml.Node, yaml.Node, list[str]] | None:
    """Find the entry of `node` with which a dotted key begins. The entry's name is the first of `parts`, or the first
    few of `parts` joined by dots, because a teacher's name may contain dots. Return (node of the name, node of the
    value, the remaining parts).
    """
    if isinstance(node, yaml.MappingNode):
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[:count])
            for key, value in node.value:
                if key.value == name:
                    return key, value, parts[count:]
    if isinstance(node, yaml.SequenceNode) and parts[0].isdecimal() and int(parts[0]) < len(node.value):
        value = node.value[int(parts[0])]
        return value, value, parts[1:]
    return None
