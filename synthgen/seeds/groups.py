"""Puts similar seeds into groups, and determines the split of each group."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache

from synthgen.recipe import Split

_NUMBERS = re.compile(
    r"\d[\d,.]*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|"
    r"hundred|thousand)\b",
    re.IGNORECASE,
)
_CAPITALIZED = re.compile(r"\b[A-Z][\w'-]*")
_OPERATORS = "+-*/^%<>=~|#&"
# Hyphens, dashes, slashes and stars are no operators between words, or around a word that is set in bold.
_NO_OPERATORS = re.compile(
    r"(?<=[^\W\d_]{2})\s*[-‐‑–—*/]+\s*(?=[^\W\d_])|(?<=[^\W\d_])\s*[-‐‑–—*/]+\s*(?=[^\W\d_]{2})"
    r"|(?<!\S)\*+(?=\w)|(?<=\w)\*+(?=[\s.,:;!?]|$)"
)
_REPEATED = re.compile("([N0])\\1+")
_SAME = str.maketrans({"−": "-", "–": "-", "—": "-", "’": "'", "‘": "'", "⁄": "/", "∗": "*"})
_WORDS_KEPT = 1 << 16
# Words that begin many questions and are not names. They are lower case wherever they stand.
_NOT_NAMES = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by calculate can compute could define describe did do does each every explain find for "
        "from give had has have how i if in is it let list of on or please show solve suppose tell that the their "
        "there these they this those to translate was we were what when where which who whose why with would write you",
    )
)


def mask(text: str) -> str:
    """The structure of a text: capitalized words that follow each other become N, and numbers 0. White space,
    punctuation and the case of common words are left out, and operators stay.

    Texts with the same structure form a group. The first word of a sentence is masked like a name, since it may be one.
    This makes groups larger. Groups that are too large do no harm. If groups were too small, similar seeds could be in
    different splits.
    """
    if "-" in text or "/" in text or "*" in text or not text.isascii():
        text = _NO_OPERATORS.sub(" ", text)
    key = "".join(map(_mask_word, text.split()))
    if "NN" in key or "00" in key:
        key = _REPEATED.sub(r"\1", key)
    return key or text


@lru_cache(maxsize=_WORDS_KEPT)
def _mask_word(word: str) -> str:
    """Mask one word. Results are cached, because words repeat, and a lookup is faster than regular expressions."""
    if word.isdecimal():
        return "0"
    word = word if word.isascii() else unicodedata.normalize("NFKC", word).translate(_SAME)
    if word.strip("!?.,:;\"'()[]{}*_“”„«»¿¡").partition("'")[0].lower() in _NOT_NAMES:
        word = word.lower()
    masked = _NUMBERS.sub("0", _CAPITALIZED.sub("N", word))
    return "".join(letter for letter in masked if letter in _OPERATORS or _is_kept(letter))


def _is_kept(letter: str) -> bool:
    """Whether a character is none of white space, punctuation and control characters."""
    return unicodedata.category(letter)[0] in "LMNS"


def side(group: str, split: Split) -> str:
    """The split of a group: 'train', 'validation' or 'test'. The result depends only on the group and the split
    settings.
    """
    key = hashlib.blake2b(f"{split.seed}\0{group}".encode(), digest_size=8).digest()
    point = int.from_bytes(key, "big") / 2**64
    if point < split.test:
        return "test"
    return "validation" if point < split.test + split.validation else "train"
