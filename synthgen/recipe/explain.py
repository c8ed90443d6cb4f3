"""Describes what is wrong with a recipe's values. The description of each problem names the key, its value, and the
values that are allowed.

Pydantic finds problems within a section, and `check` finds problems across sections. `find` runs Pydantic and `check`
on the raw values of a recipe, so that the user sees all problems in one message.
"""

from __future__ import annotations

import copy
import reprlib
from collections.abc import Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from synthgen.errors import close, nearest
from synthgen.recipe import old_keys
from synthgen.recipe.check import broken_rules
from synthgen.recipe.problem import Problem
from synthgen.recipe.root import Recipe
from synthgen.tables.section import Section, chooser_of, sections_in

# Pydantic error type → the sentence that replaces Pydantic's message. Pydantic names Python types; these sentences use
# the words of YAML.
_WANTED = {
    "tuple_type": "it must be a list",
    "dict_type": "it must be a mapping of keys to values",
    "model_type": "it must be a mapping of keys to values",
    "model_attributes_type": "it must be a mapping of keys to values",
    "too_short": "the list is too short",
    "invalid-json-value": "it must be text, a number, true, false, null, a list or a mapping",
}
_MISSING = {
    "seeds.*.license": "key '{key}' is missing: add it, or set `license:` once at the top of the recipe",
    "teacher": "key 'teacher' is missing: add it, or name several teachers under 'teachers'",
}
"""Messages for missing keys that need more than the message "key '{key}' is missing"."""
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60

Values = dict[str, object]
Loc = tuple[int | str, ...]
Sections = dict[str, type[Section]]


def find(values: Values) -> tuple[Recipe | None, list[Problem]]:
    """Return (recipe, problems) for raw values. The recipe is None when any section is invalid."""
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems = [*_of_sections(values, error)]
        return None, problems + _of_rules(values, error, problems) or [Problem(" ".join(str(error).split()), ("",))]
    return recipe, broken_rules(recipe)


def _of_sections(values: Values, error: ValidationError) -> Iterator[Problem]:
    """Yield the problems that Pydantic found within single sections, one for each key."""
    found: dict[str, list[ErrorDetails]] = {}
    every = error.errors()
    for details in every:
        loc = _in_values(values, details)
        inside = [other for other in every if other["loc"][: len(details["loc"])] == details["loc"]]
        # if the only entry of a list is invalid, Pydantic also reports that the list is too short
        if loc is None or (details["type"] == "too_short" and len(inside) > 1):
            continue
        found.setdefault(".".join(map(str, loc)), []).append(details)
    # For a wrong entry of a union, Pydantic reports both the entry and keys inside it. Only the problems of the inner
    # keys are kept.
    keys = [key for key in found if not any(other.startswith(f"{key}.") for other in found)]
    meant = {new for key in keys for new in [_meant(values, key)] if found[key][0]["type"] == "extra_forbidden" and new}
    for key in keys:
        kind = found[key][0]["type"]
        if kind == "missing" and key in meant:  # only the unknown key that misspells this key is reported
            continue
        yield Problem(_sentence(values, key, found[key]), (key,), named=False, urgent=kind == "extra_forbidden")


def _sentence(values: Values, key: str, found: list[ErrorDetails]) -> str:
    details = found[0]
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden":
        return _unknown(values, key)
    if kind == "missing":
        return _of_missing(key).format(key=key)
    if kind == "unknown_name":
        new = old_keys.OLD_VALUES.get((key, str(value)))
        return f"{key}: '{value}' is now '{new}'" if new else f"key '{key}' is {_SHORT.repr(value)}; {details['msg']}"
    if kind == "invalid_key":
        return f"unknown key '{key}': it is not text"
    if kind == "rule":
        return f"{key or 'recipe'}: {details['msg']}"
    if kind == "value_error":
        return f"{key or 'recipe'}: {details['ctx']['error']}"
    wanted = [_WANTED.get(d["type"], d["msg"][0].lower() + d["msg"][1:]) for d in found]
    defaults = "; `{}` takes the default of each key" if value is True and _WANTED["model_type"] in wanted else ""
    return f"key '{key}' is {_SHORT.repr(value)}: {', or '.join(dict.fromkeys(wanted))}{defaults}"


def _of_missing(key: str) -> str:
    parts = key.split(".")
    for pattern, sentence in _MISSING.items():
        wanted = pattern.split(".")
        if len(wanted) == len(parts) and all(p in ("*", q) for p, q in zip(wanted, parts, strict=True)):
            return sentence
    return "key '{key}' is missing"


def _unknown(values: Values, key: str) -> str:
    """The message for an unknown key. The message names the key's current name, a similar key, or the section in which
    the key is allowed.
    """
    above, _, name = key.rpartition(".")
    renamed = old_keys.sentence(key)
    if renamed:
        return renamed
    chosen, others, chooser = _sections_at(values, above)
    known = _keys(chosen)
    if not close(name, known):
        for entry, section in others.items():
            if name in section.model_fields:
                return f"unknown key '{key}'; it belongs to {chooser}: {entry}"
            if close(name, section.model_fields):
                return f"unknown key '{key}'{nearest(name, section.model_fields)} ({chooser}: {entry})"
        elsewhere = [k for k in _all_keys() if k.rpartition(".")[2] == name]
        if elsewhere:
            return f"unknown key '{key}'; did you mean {' or '.join(repr(k) for k in elsewhere[:3])}?"
    return f"unknown key '{key}'{nearest(name, known)}"


def _meant(values: Values, key: str) -> str | None:
    """The existing key that the user most likely meant by the unknown key `key`; None if there is no similar key."""
    above, _, name = key.rpartition(".")
    near = close(name, _keys(_sections_at(values, above)[0]))
    return old_keys.new_name(key) or (f"{above}.{near[0]}".lstrip(".") if near else None)


def _of_rules(values: Values, error: ValidationError, problems: list[Problem]) -> list[Problem]:
    """The broken rules between sections, for a recipe that also has invalid values.

    The invalid values are removed before the rules are checked. Broken rules that concern a section with invalid values
    are left out. When the remaining values are not a valid recipe, the result is empty.
    """
    rest = copy.deepcopy(values)
    for details in error.errors():
        loc = _in_values(values, details)
        if loc is not None:
            _take_out(rest, loc)
    try:
        recipe = Recipe.model_validate(rest)
    except ValidationError:
        return []
    wrong = {key.partition(".")[0] for problem in problems for key in problem.keys}
    wrong |= {meant.partition(".")[0] for problem in problems for meant in [_meant(values, problem.keys[0])] if meant}
    wrong |= {"teacher", "teachers"} if wrong & {"teacher", "teachers"} else set()
    return [p for p in broken_rules(recipe) if not wrong & {key.partition(".")[0] for key in p.keys}]


def _take_out(values: object, loc: Loc) -> None:
    for part in loc[:-1]:
        values = _child(values, part)
    if isinstance(values, dict):
        values.pop(loc[-1], None)


def _child(values: object, part: int | str) -> object:
    """The entry of `values` (a mapping or a list) that one part of a dotted key names; None if there is no such entry.
    Parts are compared as text, because a key of YAML may be a number or null.
    """
    if isinstance(values, dict):
        return next((value for key, value in values.items() if str(key) == str(part)), None)
    if isinstance(values, list | tuple) and isinstance(part, int) and part < len(values):
        return values[part]
    return None


def _in_values(values: Values, details: ErrorDetails) -> Loc | None:
    """The location of Pydantic's error in the raw values: the error's `loc` without the names that Pydantic adds for
    branches of a union.

    If validation copied the value from another key, the recipe does not contain the value at this location, and the
    result is None. The key from which the value was copied then has an error of its own.
    """
    kept: list[int | str] = []
    inside: object = values
    # the part "[key]" marks errors about a mapping's key
    loc = tuple(part for part in details["loc"] if part != "[key]")
    for place, part in enumerate(loc):
        there = str(part) in map(str, inside) if isinstance(inside, dict) else _child(inside, part) is not None
        last = place == len(loc) - 1
        if there:
            kept.append(part)
            inside = _child(inside, part)
        elif last and isinstance(inside, dict):
            if details["type"] not in ("missing", "rule", "value_error", "invalid_key"):
                return None
            kept.append(part)
        elif place == 0:
            return None
    return tuple(kept)


def _sections_at(values: object, above: str) -> tuple[Sections, Sections, str]:
    """Describe the section at the dotted key `above`.

    Returns three values. The first value maps the name of the chosen table entry to the section's class. The second
    value maps the names of the table's other entries to their section classes. The third value is the key that chooses
    the entry, such as `engine`. When the key that chooses the entry does not have the name of an entry as its value,
    the first value holds all possible classes.
    """
    every: Sections = {"": Recipe}
    chosen, chooser = every, None
    for part in above.split(".") if above else []:
        values = _child(values, int(part) if part.isdecimal() else part)
        fields = [s.model_fields[part] for s in chosen.values() if part in s.model_fields]
        if fields:
            every = {name: s for field in fields for name, s in sections_in(field).items()}
            chooser = next((c for field in fields for c in [chooser_of(field)] if c), None)
        name = str(values.get(chooser.key, chooser.default)) if chooser and isinstance(values, dict) else ""
        chosen = {name: every[name]} if name in every else every
    return chosen, {n: s for n, s in every.items() if n not in chosen}, chooser.key if chooser else ""


def _keys(sections: Sections) -> list[str]:
    return sorted({key for section in sections.values() for key in section.model_fields})


def _all_keys() -> list[str]:
    """Every dotted key that a recipe may have. Indexes of lists and names that the user chooses are left out of these
    keys.
    """
    found: list[str] = []
    waiting: list[tuple[str, type[Section]]] = [("", Recipe)]
    while waiting:
        above, section = waiting.pop(0)
        for key, field in section.model_fields.items():
            found.append(f"{above}{key}")
            waiting += [(f"{above}{key}.", inner) for inner in sections_in(field).values()]
    return [*dict.fromkeys(found)]
