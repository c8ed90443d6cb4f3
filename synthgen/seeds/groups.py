"""Puts similar seeds into groups, and determines the split of each group."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from synthgen.recipe import Split

_NUMBERS = re.compile(
    r"\d[\d,.]*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|"
    r"hundred|thousand)\b",
    re.IGNORECASE,
)
_CAPITALIZED = re.compile(r"\b[A-Z][\w'-]*")
_WORDS_KEPT = 1 << 16


def mask(text: str) -> str:
    """The structure of a text: capitalized words become N, numbers become 0, and white space becomes one space.

    Texts with the same structure form a group. The first word of a sentence is masked like a name, since it may be one.
    This makes groups larger. Groups that are too large do no harm. If groups were too small, similar seeds could be in
    different splits.
    """
    return " ".join(map(_mask_word, text.split()))


@lru_cache(maxsize=_WORDS_KEPT)
def _mask_word(word: str) -> str:
    """Mask one word. Results are cached, because words repeat, and a lookup is faster than regular expressions."""
    return "0" if word.isdecimal() else _NUMBERS.sub("0", _CAPITALIZED.sub("N", word))


def side(group: str, split: Split) -> str:
    """The split of a group: 'train', 'validation' or 'test'. The result depends only on the group and the split
    settings.
    """
    key = hashlib.blake2b(f"{split.seed}\0{group}".encode(), digest_size=8).digest()
    point = int.from_bytes(key, "big") / 2**64
    if point < split.test:
        return "test"
    return "validation" if point < split.test + split.validation else "train"


def accepted(value: object) -> list[str] | None:
    """The accepted answers as a list of strings. `value` is a seed's reference: one answer, a list of answers, or None.
    Returns None when it is None.
    """
    if value is None:
        return None
    return [str(answer) for answer in value] if isinstance(value, list) else [str(value)]
