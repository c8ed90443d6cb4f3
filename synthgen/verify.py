"""Compares an answer with a reference. Curation, evaluation and reports all use the functions of this module.

Numbers are compared by value ("1,200.0" equals "1200", "1/2" equals "0.5"), and other answers by their normalized
words. `gold` extracts the final answer from a worked solution (GSM8K's "#### 42").
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

_NUMBER = re.compile(r"[-−]?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?|[-−]?\.\d+")
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_WORDS = {word: str(value) for value, word in enumerate(_NAMES.split())}
_ARTICLES = {"a", "an", "the"}
_WORD = re.compile(rf"\b(?:{'|'.join(_WORDS)})\b", re.IGNORECASE)
_AROUND_DIGITS = re.compile(r"[$,\s]")
_AFTER_NUMBER = re.compile(r"[$%,.\s]+$")
_NO_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))


def gold(reference: str) -> str:
    """The final answer of a reference: the text after the last '####', or the whole text if there is no '####'."""
    return reference.rsplit("####", 1)[-1].strip()


def number(text: str) -> Fraction | None:
    """The exact value of the last number in `text`. Number words up to twenty count as numbers. None if there is no
    number.
    """
    numbers = _NUMBER.findall(_WORD.sub(_as_digits, text))
    if not numbers:
        return None
    token = _AROUND_DIGITS.sub("", numbers[-1]).replace("−", "-")
    try:
        return Fraction(int(token)) if token.isdecimal() else Fraction(token)
    except (ValueError, ZeroDivisionError):
        return None


def _as_digits(word: re.Match[str]) -> str:
    return _WORDS.get(word.group().lower(), word.group())


def normalize(text: str) -> str:
    """Convert `text` to lower-case words without punctuation and articles, separated by single spaces."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(word for word in bare.split() if word not in _ARTICLES)


def matches(answer: str | None, reference: str) -> bool:
    """Whether `answer` agrees with `reference`.

    A reference that is only a number is compared by value with the last number in the answer's first line. For any
    other reference, the answer must begin with the reference's words: with the reference "Tuesday", the answers
    "Tuesday." and "Tuesday, because …" match, and "not Tuesday" does not.
    """
    if not answer:
        return False
    value, expected = _wanted(reference)
    if value is not None:
        return number(answer.split("\n", 1)[0]) == value
    return bool(expected) and normalize(answer).split()[: len(expected)] == expected


@lru_cache(maxsize=4096)
def _wanted(reference: str) -> tuple[Fraction | None, list[str]]:
    """Return (value, []) for a reference that is only a number, and (None, words) otherwise."""
    wanted = gold(reference)
    bare = _AFTER_NUMBER.sub("", wanted)
    value = number(bare)
    if value is not None and is_number(bare):
        return value, []
    return None, normalize(wanted).split()


def is_number(text: str) -> bool:
    """Whether the text is only a number."""
    text = text.strip().lower()
    return text in _WORDS or _NUMBER.fullmatch(text) is not None


def matches_any(answer: str | None, accepted: Sequence[str]) -> bool:
    """Whether `answer` agrees with one of the accepted references."""
    return any(matches(answer, reference) for reference in accepted)
