"""Finds the values in one text: personal data and secrets, each with its place.

    for hit in hits_in("Write to ann@example.org.", {"at"}):
        hit.start, hit.stop, hit.entity        # 9, 24, "email"

In a text that is JSON, each string and number is searched by itself, and its key counts as a word before it. A string
that itself holds JSON, such as the arguments of a tool call, is searched in the same way.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from synthgen.curation.privacy.patterns import ENTITIES, FORMS, HINTS, Form
from synthgen.tables.curation_settings import Entity

_PLACES = {name: re.compile("|".join(patterns)) for name, patterns in HINTS.items()}
_NEAR = 100  # ranges of a hint are joined if fewer than this many characters lie between them
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*', re.DOTALL)
_COLON = re.compile(r"\s*:")
_CAPITAL_INSIDE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_PAIR = r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_CHARACTER = re.compile(rf"{_PAIR}|\\u[0-9a-fA-F]{{4}}|\\.|[^\\]", re.DOTALL)


@dataclass(frozen=True, order=True)
class Hit:
    """A value: the characters of the text from `start` up to, but not including, `stop`.

    `same` is equal for two spellings of the same value. `quote` stands before and after the pseudonym that replaces the
    value. `quote` is empty, except for a number in JSON, which becomes a string.
    """

    start: int
    stop: int
    entity: Entity
    same: str
    quote: str = ""


def hits_in(text: str, hints: Collection[str]) -> list[Hit]:
    """The values in a text, in order of their places. The values do not overlap. `hints` are the names of the hints
    that match the text; see `likely`.
    """
    hints = HINTS if "escape" in hints else hints
    return sorted(_in_json(text, hints) if _is_json(text) else _in_words(text, hints))


def _is_json(text: str) -> bool:
    """Whether a text is a JSON object or list."""
    if text.lstrip()[:1] not in ("{", "["):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _in_json(text: str, hints: Collection[str]) -> Iterator[Hit]:
    before = ""  # the last key, as words
    for token in _TOKEN.finditer(text):
        start, stop = token.span()
        if text[start] != '"':
            hits = _in_words(before + token.group(), hints)
            whole = len(before), len(before) + stop - start
            yield from (Hit(start, stop, hit.entity, hit.same, '"') for hit in hits if (hit.start, hit.stop) == whole)
            continue
        value = json.loads(token.group(), strict=False)
        if _COLON.match(text, stop):
            yield from _moved(_in_words(value, hints), 0, start + 1, token.group()[1:-1])
            before = _CAPITAL_INSIDE.sub(" ", value).replace("_", " ").replace("-", " ") + ": "
        elif _is_json(value):
            yield from _moved(_in_json(value, hints), 0, start + 1, token.group()[1:-1])
        else:
            yield from _moved(_in_words(before + value, hints), len(before), start + 1, token.group()[1:-1])


def _moved(hits: Iterator[Hit] | Sequence[Hit], skipped: int, start: int, escaped: str) -> Iterator[Hit]:
    """Convert the places of hits in a string to their places in the JSON text that holds the string. `escaped` is the
    string as the JSON text writes it, and `start` its place. `skipped` is the number of characters that were put before
    the string.
    """
    places = None
    if "\\" in escaped:
        places = [found.start() for found in _CHARACTER.finditer(escaped)] + [len(escaped)]
    for hit in hits:
        first, last = hit.start - skipped, hit.stop - skipped
        if first >= 0:
            if places is not None:
                first, last = places[first], places[last]
            yield Hit(start + first, start + last, hit.entity, hit.same, json.dumps(hit.quote)[1:-1])


def _in_words(text: str, hints: Collection[str]) -> list[Hit]:
    """The values in a text that is not JSON."""
    hits: list[Hit] = []
    taken: list[tuple[int, int]] = []  # the ranges of the hits, in order
    places = {name: _places(text, name) for name in hints}
    for form in _forms(frozenset(hints)):
        for first, last in places[form.hint]:
            for start, stop in _matches(text, form, first, last):
                index = bisect(taken, (start, stop))
                free = index == 0 or taken[index - 1][1] <= start
                if free and (index == len(taken) or taken[index][0] >= stop):
                    taken.insert(index, (start, stop))
                    hits.append(Hit(start, stop, form.entity, ENTITIES[form.entity].same(text[start:stop])))
    return hits


@cache
def _forms(hints: frozenset[str]) -> list[Form]:
    """The forms with these hints, in order of priority."""
    return [form for form in FORMS if form.hint in hints]


def _places(text: str, hint: str) -> list[tuple[int, int]]:
    """The ranges of a text that a hint matches. Ranges that are near each other are joined."""
    places: list[tuple[int, int]] = []
    for found in _PLACES[hint].finditer(text):
        start, stop = found.span()
        if places and start - places[-1][1] < _NEAR:
            start = places.pop()[0]
        places.append((start, stop))
    return places


def _matches(text: str, form: Form, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The values of a form. The matches with these values begin at most `form.before` characters before `first`, and
    not after `last`.
    """
    position, end = max(0, first - form.before), min(len(text), last + form.after)
    if form.words and not _has_word(text[position:last], form.words):
        return
    group = "value" if "value" in form.regex.groupindex else 0
    while position <= last:
        found = form.regex.search(text, position, end)
        if found is None or found.start() > last:
            return
        start, stop = found.span(group)
        value_end = form.check(text, start, stop)
        if value_end is None:
            position = found.start() + 1
        else:
            yield start, value_end
            position = value_end


def _has_word(text: str, words: tuple[str, ...]) -> bool:
    lower = text.lower()
    return any(word in lower for word in words)
