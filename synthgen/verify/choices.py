"""Answers to questions of multiple choice: "B", "(B)", "B) Paris", "option B"."""

from __future__ import annotations

import re
from typing import NamedTuple

from synthgen.verify.short import remembered

_NAMED = r"(?:(?:the )?(?:(?:correct|right|best|final) )?(?:option|choice|answer|letter)(?: is|:)? )?"
_ALONE = re.compile(rf"{_NAMED}[(\[{{]?([A-Za-z])[)\]}}]?[.):]{{0,2}}", re.IGNORECASE)
_WITH_TEXT = re.compile(
    rf"{_NAMED}(?:[(\[]([A-Za-z])[)\]][.:]?|([A-Za-z])(?:\)|\.|:| --?(?= [A-Za-z]{{3}})))\s+(\S.*)",
    re.IGNORECASE | re.DOTALL,
)
_BEHIND = re.compile(r"[(\[](?:option )?([A-Za-z])[)\]]\.?$", re.IGNORECASE)
_NO_WORDS = re.compile(r"[\d(\[]")
_OTHER = re.compile(r"(?:\b(?:or|and)\b|[,/&])\s*(?:option |choice )?[(\[]([A-Za-z])[)\]]", re.IGNORECASE)


_SEVERAL = re.compile(r"(?:^|[\s(])[A-Za-z]\)?\s*(?:\b(?:or|and)\b|[,/&])\s*\(?[A-Za-z](?![A-Za-z'])")


def several(line: str) -> bool:
    """Whether a line names several choices, as in "A or B"."""
    return _OTHER.search(line) is not None or _SEVERAL.search(line) is not None


class Choice(NamedTuple):
    """The letter of a choice in lower case, and the text after it or ''."""

    letter: str
    text: str


@remembered
def choice(line: str) -> Choice | None:
    """The choice that a line in plain form names. None for "A dog", because "A" is an article there, and for a line
    that names several choices.
    """
    line = line.strip()
    if not line:
        return None
    alone = _ALONE.fullmatch(line)
    if alone:
        return Choice(alone[1].lower(), "")
    with_text = _WITH_TEXT.fullmatch(line)
    if with_text:
        if _OTHER.search(with_text[3]):
            return None
        return Choice((with_text[1] or with_text[2]).lower(), with_text[3].strip())
    behind = _BEHIND.search(line, max(0, len(line) - 15))
    if behind:
        text = line[: behind.start()].strip()
        if len(text) > 2 and text[0].isalpha() and not _NO_WORDS.search(text):
            return Choice(behind[1].lower(), text)
    return None
