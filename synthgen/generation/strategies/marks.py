"""Reads a judge's mark from its reply.

A mark is read only from a place where a template can ask for it. The whole reply, its first line or its last line may
be just the mark. Any line may hold the name of the mark and the mark, such as "Score: 7". Numbers in sentences, and
lines that a judge quotes from its instructions, such as "1 = bad" or "Score: 1-10", are not read as marks. When a reply
has different marks, no mark is read.
"""

from __future__ import annotations

import re

from synthgen.teachers.structured import parsed_json

WORST, BEST = 1, 10  # the lowest and the highest mark that a judge may give

_VALUE = r"(?P<value>\d{1,2}(?:\.\d{1,2})?)(?:\s?/\s?10|\s(?:out\s)?of\s10)?"
_ALONE = re.compile(_VALUE, re.ASCII)
_NAME = r"(?:(?:my|the|your|final|overall|total)\s){0,2}(?:score|mark|rating|grade)"
_NAMED = re.compile(rf"{_NAME}(?:\sis:?|\s?[:=])\s?{_VALUE}", re.ASCII)
_FENCE = re.compile(r"```\w*\n(.*?)\n?```", re.DOTALL)


def mark(text: str) -> float | None:
    """The mark in a judge's reply, from 1 to 10, or None when the reply has no mark or different marks."""
    if (fenced := _FENCE.fullmatch(text.strip())) is not None:
        text = fenced[1]
    if text.lstrip().startswith("{"):
        return _in_range({value for value in _of_object(text)})
    lines = [line for line in map(_plain, text.splitlines()) if line]
    found = {float(match["value"]) for line in lines if (match := _NAMED.fullmatch(line.removesuffix(".")))}
    for line in {*lines[:1], *lines[-1:]}:
        # In a reply of several lines, "1." is the beginning of a list.
        if match := _ALONE.fullmatch(line.removesuffix(".") if len(lines) == 1 else line):
            found.add(float(match["value"]))
    return _in_range(found)


def _in_range(found: set[float]) -> float | None:
    """The only mark in `found`, if it is in the range of marks."""
    value = found.pop() if len(found) == 1 else None
    return value if value is not None and WORST <= value <= BEST else None


def _plain(line: str) -> str:
    """The line in lower case, without Markdown characters and brackets, and with single spaces."""
    bare = re.sub(r"[*_`]|\[\[?|\]\]?|\\boxed\{|[{}]", "", line).casefold()
    return " ".join(re.sub(r"^\s*(?:#+|[-•])\s+", "", bare).split())


def _of_object(text: str) -> list[float]:
    """The marks in a reply that is a JSON object, such as {"score": 7}."""
    try:
        value = parsed_json(text)
    except ValueError:
        return []
    pairs = value.items() if isinstance(value, dict) else ()
    named = [one for key, one in pairs if re.fullmatch(_NAME, " ".join(key.casefold().replace("_", " ").split()))]
    return [float(one) for one in named if isinstance(one, float | int) and not isinstance(one, bool)]
