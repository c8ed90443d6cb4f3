"""Finds the values in one text: personal data and secrets, each with its place.

    for hit in values_in("Write to ann@example.org.", {"at"}):
        hit.start, hit.stop, hit.entity        # 9, 24, "email"
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from synthgen.curation.privacy.patterns import ENTITIES, FORMS, HINTS, Form
from synthgen.tables.curation import Entity

_HINTS = {name: re.compile(pattern) for name, pattern in HINTS.items()}
_ALL = frozenset(HINTS)


@dataclass(frozen=True, order=True)
class Hit:
    """A value: the characters of the text from `start` up to, but not including, `stop`.

    `same` is equal for two spellings of the same value. `quote` stands before and after the pseudonym that replaces the
    value. It is empty, except for a number in JSON, which becomes a string.
    """

    start: int
    stop: int
    entity: Entity
    same: str
    quote: str = ""


def values_in(text: str, hints: Collection[str]) -> list[Hit]:
    """The values in a plain text, in order of their places. They do not overlap. `hints` are the names of the hints
    that match the text; others are not searched.
    """
    hits: list[Hit] = []
    places = {name: _places(text, name) for name in (_ALL if "escape" in hints else hints) if name != "escape"}
    for form in FORMS:
        for first, last in places.get(form.hint, ()):
            for start, stop in _matches(text, form, first, last):
                if all(stop <= hit.start or start >= hit.stop for hit in hits):
                    hits.append(Hit(start, stop, form.entity, ENTITIES[form.entity].same(text[start:stop])))
    return sorted(hits)


def _places(text: str, hint: str) -> list[tuple[int, int]]:
    """The ranges of a text that a hint matches. Ranges that are near each other are joined."""
    places: list[tuple[int, int]] = []
    for found in _HINTS[hint].finditer(text):
        start, stop = found.span()
        if places and start - places[-1][1] < 100:
            start = places.pop()[0]
        places.append((start, stop))
    return places


def _matches(text: str, form: Form, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The values of a form that begin at most `form.before` characters before `first`, and not behind `last`."""
    position, end = max(0, first - form.before), min(len(text), last + form.after)
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
