"""Answers of several parts: "3 and 5", "(1, 2)", "[0, 1)", "{2, 3}", "x = 2 or x = 3"."""

from __future__ import annotations

import re
from typing import NamedTuple

from synthgen.verify.quantities import Quantity, whole
from synthgen.verify.texts import words_of

_MOST = 50
_SPACED = re.compile(r"\s*[,;]\s+(?:(?:and|or|&)\s+)?|\s*;\s*|\s+(?:and|&)\s+")
_TIGHT = re.compile(r"\s*[,;]\s*(?:(?:and|or|&)\s+)?|\s+(?:and|&)\s+")
_OR = re.compile(r"\s+or\s+")
_ASSIGNED = re.compile(r"([A-Za-z])\s*(?:=|∈)\s*(?=[^\s=])")
_OPEN, _CLOSE = "([{", ")]}"


class Items(NamedTuple):
    """The parts of an answer. `brackets` is the pair of brackets around them or ''. `ordered` is false for a set and
    for the values of one variable. If the parts are the values of a variable, `name` is the variable's name, otherwise
    ''.
    """

    brackets: str
    parts: tuple[str, ...]
    ordered: bool
    name: str = ""


def items(line: str) -> Items | None:
    """The parts of a line in plain form. None if the line has fewer than two parts, more than 50 parts, or parts in
    brackets.
    """
    text = line.strip()
    text = text if text.endswith("..") else text.rstrip(".")
    text, variable = _assigned(text)
    brackets = ""
    if len(text) > 2 and text[0] in _OPEN and text[-1] in _CLOSE:
        brackets, text = text[0] + text[-1], text[1:-1]
    if any(char in text for char in _OPEN + _CLOSE):
        return None
    if " or " in text:
        if not variable or any(not _ASSIGNED.match(part) for part in _OR.split(text)[1:]):
            return None
        text = _OR.sub(", ", text)
    splitter = _SPACED if ", " in text or "; " in text else _TIGHT
    parts = [part.strip() for part in splitter.split(text, maxsplit=_MOST)]
    if not 2 <= len(parts) <= _MOST or not all(parts):
        return None
    if variable:
        named = [_assigned(part) for part in parts[1:]]
        if any(name not in ("", variable) for _, name in named):
            return None
        parts = [parts[0], *(part for part, _ in named)]
    return Items(brackets, tuple(parts), not variable and brackets != "{}", variable)


def _assigned(text: str) -> tuple[str, str]:
    """Split "x = 3" into ("3", "x")."""
    found = _ASSIGNED.match(text)
    return (text[found.end() :], found[1]) if found else (text, "")


def same(one: Items, other: Items) -> bool:
    """Whether two answers have the same parts, in the same brackets and the same order. The order does not matter if
    one of the answers has no order.
    """
    if one.name and other.name and one.name != other.name:
        return False
    if one.brackets != other.brackets or len(one.parts) != len(other.parts):
        return False
    theirs = [_read(part) for part in other.parts]
    for part in (_read(part) for part in one.parts):
        if one.ordered and other.ordered:
            if not _equal(part, theirs.pop(0)):
                return False
            continue
        at = next((n for n, candidate in enumerate(theirs) if _equal(part, candidate)), None)
        if at is None:
            return False
        del theirs[at]
    return True


def numeric(found: Items) -> bool:
    """Whether every part is a number."""
    return all(whole(part) for part in found.parts)


def _read(part: str) -> Quantity | tuple[str, ...]:
    return whole(part) or words_of(part)


def _equal(one: Quantity | tuple[str, ...], other: Quantity | tuple[str, ...]) -> bool:
    if isinstance(one, Quantity) and isinstance(other, Quantity):
        return one.same(other)
    return one == other
