"""Groups of seeds, and the side of the split that each group is on."""

from __future__ import annotations

import hashlib
import re

from synthgen.recipe import Split

_WORDS = (
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("twenty", "thirty", "forty", "fifty", "hundred", "thousand"),
)
_ALSO = {"i": "\u0131\u0130", "s": "\u017f"}  # letters that re.IGNORECASE takes for these


def _either_case(letters: str) -> str:
    return "".join(f"[{letter}{letter.upper()}{_ALSO.get(letter, '')}]" for letter in letters)


def _numbers() -> re.Pattern[str]:
    r"""`\d[\d,.]*|\b(?:one|two|…)\b`, whatever the case.

    It is written so that it begins with a set of characters. Python's `re` skips quickly to one of a set, but not to a
    word boundary, and not with re.IGNORECASE: that took two thirds of the time of `mask`.
    """
    tails: dict[str, list[str]] = {}
    for word in _WORDS:
        tails.setdefault(word[0], []).append(_either_case(word[1:]))
    first = "".join(_either_case(letter)[1:-1] for letter in tails)
    words = "|".join(f"(?<={_either_case(letter)})(?:{'|'.join(rest)})" for letter, rest in tails.items())
    return re.compile(rf"[\d{first}](?:(?<=\d)[\d,.]*|(?<=\b.)(?:{words})\b)")


_NUMBERS = _numbers()
_CAPITALIZED = re.compile(r"[A-Z](?<=\b.)[\w'-]*")  # \b[A-Z][\w'-]*, written for the same reason


def mask(text: str) -> str:
    """The structure of a text: capitalized words become N, numbers become 0.

    The first word of a sentence is masked too, since it may be a name. That makes groups larger, and a larger group
    never puts alike seeds on two sides.
    """
    return " ".join(_NUMBERS.sub("0", _CAPITALIZED.sub("N", text)).split())


def side(group: str, split: Split) -> str:
    """'train', 'validation' or 'test': a function of the group and the split's seed."""
    key = hashlib.blake2b(f"{split.seed}\0{group}".encode(), digest_size=8).digest()
    point = int.from_bytes(key, "big") / 2**64
    if point < split.test:
        return "test"
    return "validation" if point < split.test + split.validation else "train"


def accepted(value: object) -> list[str] | None:
    """The accepted answers of a reference: one value, or a list of them. None stays None."""
    if value is None:
        return None
    return [str(answer) for answer in value] if isinstance(value, list) else [str(value)]
