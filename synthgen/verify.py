"""Does an answer match a reference? The same function for curation, evaluation and reports.

Numbers are compared as numbers ("1,200.0" is "1200", "1/2" is "0.5"); anything else as normalized words.
`gold` takes the final answer out of a worked solution (GSM8K's "#### 42").
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from fractions import Fraction

_NUMBER = re.compile(r"[-−]?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?|[-−]?\.\d+")
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen twenty"
)
_WORDS = {word: str(value) for value, word in enumerate(_NAMES.split())}
_ARTICLES = {"a", "an", "the"}


def gold(reference: str) -> str:
    """The final answer of a reference: what follows the last '####', else the text itself."""
    return reference.rsplit("####", 1)[-1].strip()


def number(text: str) -> Fraction | None:
    """The last number in `text`, exactly; number words up to twenty count. None when there is none."""
    words = re.sub(r"\b[A-Za-z]+\b", lambda m: _WORDS.get(m.group().lower(), m.group()), text)
    found = _NUMBER.findall(words)
    if not found:
        return None
    token = re.sub(r"[$,\s]", "", found[-1]).replace("−", "-")
    try:
        return Fraction(token)
    except (ValueError, ZeroDivisionError):
        return None


def normalize(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces."""
    bare = text.lower().translate(str.maketrans(string.punctuation, " " * len(string.punctuation)))
    return " ".join(word for word in bare.split() if word not in _ARTICLES)


def matches(answer: str | None, reference: str) -> bool:
    """True when `answer` says what `reference` says.

    A reference that is a number alone is compared by value with the last number of the answer; any other must
    be the whole answer, or open it ("Tuesday." and "Tuesday, because …", but not "not Tuesday").
    """
    if not answer:
        return False
    wanted = gold(reference)
    bare = re.sub(r"[$%,.\s]+$", "", wanted)
    value = number(bare)
    if value is not None and is_number(bare):
        return number(answer.split("\n", 1)[0]) == value
    words, expected = normalize(answer).split(), normalize(wanted).split()
    return bool(expected) and words[: len(expected)] == expected


def is_number(text: str) -> bool:
    """Is the text a number and nothing else?"""
    text = text.strip().lower()
    return text in _WORDS or _NUMBER.fullmatch(text) is not None


def matches_any(answer: str | None, accepted: Sequence[str]) -> bool:
    """True when `answer` says what one of the accepted references says."""
    return any(matches(answer, reference) for reference in accepted)
