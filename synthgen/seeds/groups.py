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
_OPERATOR_RUN = re.compile(r"[-‐‑–—*/]+")
_END_OF_BOLD = frozenset(".,:;!?")
_REPEATED = re.compile("([N0])\\1+")
_SAME = str.maketrans({"−": "-", "–": "-", "—": "-", "’": "'", "‘": "'", "⁄": "/", "∗": "*"})
_WORDS_KEPT = 1 << 16
# Words that begin many questions and are not names. `mask` changes these words to lower case even at the beginning of a
# sentence.
_NOT_NAMES = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by calculate can compute could define describe did do does each every explain find for "
        "from give had has have how i if in is it let list of on or please show solve suppose tell that the their "
        "there these they this those to translate was we were what when where which who whose why with would write you",
    )
)


def mask(text: str) -> str:
    """The structure of a text: capitalized words that follow each other become N, and numbers become 0. White space,
    punctuation and the case of common words do not count. Operators stay.

    Texts with the same structure form a group. The first word of a sentence is masked like a name, because it may be a
    name. Masking the first word makes groups larger. Groups that are too large do no harm. If groups were too small,
    similar seeds could be in different splits.
    """
    if "-" in text or "/" in text or "*" in text or not text.isascii():
        text = _without_hyphens(text)
    key = "".join(map(_mask_word, text.split()))
    if "NN" in key or "00" in key:
        key = _REPEATED.sub(r"\1", key)
    return key or text


def _without_hyphens(text: str) -> str:
    """Replace hyphens, dashes, slashes and stars with a space if they are not operators. Between two words, a hyphen,
    dash, slash or star is not an operator if one of the words has several letters; the white space around it is then
    replaced too. Stars around a word in bold are not operators either.
    """
    parts, done = [], 0
    for match in _OPERATOR_RUN.finditer(text):
        first, last = match.span()
        begin, end = first, last
        while begin > done and text[begin - 1].isspace():
            begin -= 1
        while end < len(text) and text[end].isspace():
            end += 1
        between = _is_letter(text, begin - 1) and _is_letter(text, end)
        if between and (_is_letter(text, begin - 2) or _is_letter(text, end + 1)):
            parts += [text[done:begin], " "]
            done = end
            continue
        stars = len(match.group()) - len(match.group().lstrip("*"))
        after = text[first + stars : first + stars + 1]
        opens = (first == 0 or text[first - 1].isspace()) and _in_word(after)
        closes = first > 0 and _in_word(text[first - 1]) and (not after or after.isspace() or after in _END_OF_BOLD)
        if stars and (opens or closes):
            parts += [text[done:first], " "]
            done = first + stars
    return "".join([*parts, text[done:]])


def _is_letter(text: str, place: int) -> bool:
    """Whether the character at `place` is a letter. Like `[^\\W\\d_]` in a regular expression."""
    if not 0 <= place < len(text):
        return False
    letter = text[place]
    return letter.isalpha() or (letter.isalnum() and not letter.isdecimal())


def _in_word(letter: str) -> bool:
    """Like `\\w` in a regular expression."""
    return letter.isalnum() or letter == "_"


@lru_cache(maxsize=_WORDS_KEPT)
def _mask_word(word: str) -> str:
    """Mask one word. Results are cached, because words repeat, and a lookup is faster than regular expressions."""
    if word.isdecimal():
        return "0"
    word = word if word.isascii() else unicodedata.normalize("NFKC", word).translate(_SAME)
    if word.strip("!?.,:;\"'()[]{}*_“”„«»¿¡").partition("'")[0].lower() in _NOT_NAMES:
        word = word.lower()
    masked = _NUMBERS.sub("0", _CAPITALIZED.sub("N", word))
    if masked.isascii():
        return masked.translate(_LEFT_OUT)
    return "".join(letter for letter in masked if letter in _OPERATORS or _is_kept(letter))


def _is_kept(letter: str) -> bool:
    """Whether a character is neither white space nor punctuation nor a control character."""
    return unicodedata.category(letter)[0] in "LMNS"


_LEFT_OUT = {code: None for code in range(128) if not (chr(code) in _OPERATORS or _is_kept(chr(code)))}
"""The ASCII characters that `mask` removes."""


def side(group: str, split: Split) -> str:
    """The split of a group: 'train', 'validation' or 'test'. The result depends only on the group and the split
    settings.
    """
    key = hashlib.blake2b(f"{split.seed}\0{group}".encode(), digest_size=8).digest()
    point = int.from_bytes(key, "big") / 2**64
    if point < split.test:
        return "test"
    return "validation" if point < split.test + split.validation else "train"
