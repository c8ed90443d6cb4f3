"""Numbers in English words: "forty-two", "two and a half", "minus seven"."""

from __future__ import annotations

import re
from fractions import Fraction

from synthgen.verify.short import remembered

_SMALL = str.split(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = str.split("twenty thirty forty fifty sixty seventy eighty ninety")
_ONES = {word: value for value, word in enumerate(_SMALL)}
_TEN = {word: 10 * value for value, word in enumerate(_TENS, 2)} | {"fourty": 40}
_SCALE = {"thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "lakh": 10**5, "crore": 10**7}
_MULTIPLES = {*_SCALE, "hundred", "dozen"}
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    f"{word}{ending}": value
    for value, word in enumerate(str.split("third fourth fifth sixth seventh eighth ninth tenth"), 3)
    for ending in ("", "s")
}
_KNOWN = "|".join(sorted({*_ONES, *_TEN, *_SCALE, *_PARTS, "hundred", "dozen"}, key=len, reverse=True))
_ANY = re.compile(rf"\b(?:{_KNOWN})\b", re.IGNORECASE)
_PHRASE = re.compile(
    rf"\b(?:(?:minus|negative)[ ]+)?"
    rf"(?:an?[ ]+(?=(?:hundred|thousand|million|billion|trillion|dozen|half|third|quarter)))?"
    rf"(?:{_KNOWN})(?:(?:-|[ ]+|[ ]+and[ ]+|[ ]+and[ ]+an?[ ]+|[ ]+point[ ]+)(?:{_KNOWN}))*+\b",
    re.IGNORECASE,
)
# "one" is a pronoun after the words of the first pattern, and before the words of the second.
_PRONOUN_AFTER = re.compile(
    r"(?:\b(?:no|the|this|that|which|other|another|each|every|any|some|first|last|right|wrong|correct|only|same|good|"
    r"best|next|new|old|either|neither|such|whole|if|every|of|like)\s+|[-'])$",
    re.IGNORECASE,
)
_PRONOUN_BEFORE = re.compile(r"\s+(?:of|by|another|who|that|which|should|can|could|must|may|might|would|day|time)\b|'s")
_SIGN_WORD = re.compile(r"\b(?:minus|negative)[ ]+(?=[$€£]?\.?\d)", re.IGNORECASE)
_AND_A_HALF = re.compile(r"^(\d++) and (?:an?|one) (half|third|quarter)\b", re.IGNORECASE)
_ORDINAL = re.compile(r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth)", re.IGNORECASE)


@remembered
def to_digits(text: str) -> str:
    """The text with its number words as digits. Words that are not a number, ordinals such as "third", and the pronoun
    "one" do not change.
    """
    if " and " in text and text[:1].isdigit():
        text = _AND_A_HALF.sub(lambda mixed: f"{mixed[1]} 1/{_PARTS[mixed[2].lower()]}", text)
    if not _ANY.search(text):
        return _SIGN_WORD.sub(_sign, text) if "minus" in text or "egative" in text or "Minus" in text else text
    return _PHRASE.sub(_digits, _SIGN_WORD.sub(_sign, text))


def _sign(word: re.Match[str]) -> str:
    """A minus sign for "minus 5" and "negative 5", and a subtraction for "7 minus 5"."""
    before = word.string[: word.start()].rstrip()[-1:]
    return "- " if before.isdigit() or before == ")" else "-"


def _digits(phrase: re.Match[str]) -> str:
    written = phrase.group()
    plain = written.lower()
    if plain == "one" and (
        _PRONOUN_AFTER.search(phrase.string[max(0, phrase.start() - 12) : phrase.start()])
        or _PRONOUN_BEFORE.match(phrase.string, phrase.end())
    ):
        return written
    if _ORDINAL.fullmatch(plain):
        return written
    if plain in _MULTIPLES and phrase.string[: phrase.start()].rstrip()[-1:].isdigit():
        return written  # the "thousand" in "4 thousand" is read together with the digits
    value = value_of(plain)
    if value is None:
        parts = written.split(" and ")
        return " and ".join(_PHRASE.sub(_digits, part) for part in parts) if len(parts) > 1 else written
    if value.denominator == 1:
        return str(value)
    if value.denominator in (10, 100, 1000, 10000):
        return str(float(value))
    sign = "-" if value < 0 else ""
    whole, part = divmod(abs(value), 1)
    return f"{sign}{whole} {part}" if whole else f"{sign}{part}"


def value_of(phrase: str) -> Fraction | None:
    """The exact value of a phrase of number words in lower case, or None if the words do not form a number."""
    words = phrase.replace("-", " ").split()
    sign = 1
    if words[0] in ("minus", "negative"):
        sign, words = -1, words[1:]
    if len(words) > 1 and words[-1] in _SCALE and ("half" in words or "quarter" in words or "point" in words):
        times = value_of(" ".join(words[:-1]))  # "two and a half million"
        return None if times is None else sign * times * _SCALE[words[-1]]
    decimals: list[str] = []
    if "point" in words:
        at = words.index("point")
        words, decimals = words[:at], words[at + 1 :]
    part = Fraction(0)
    if words and words[-1] in _PARTS:
        words, below_one = _fraction(words)
        if below_one is None:
            return None
        part = below_one
    whole = _whole(words)
    if whole is None or (decimals and part):
        return None
    if decimals:
        if any(_ONES.get(word, 10) > 9 for word in decimals):
            return None
        part = Fraction(int("".join(str(_ONES[word]) for word in decimals)), 10 ** len(decimals))
    return sign * (whole + part)


def _fraction(words: list[str]) -> tuple[list[str], Fraction | None]:
    """Split "two and three quarters" into (["two"], 3/4). The fraction is None if its words do not form a number."""
    below = _PARTS[words[-1]]
    before = words[:-1]
    if not before:
        return [], Fraction(1, below)
    if "and" in before:
        at = len(before) - 1 - before[::-1].index("and")
        whole, above = before[:at], before[at + 1 :]
    else:
        whole, above = [], before
    if above in (["a"], ["an"], []):
        return whole, Fraction(1, below)
    count = _whole(above)
    return whole, Fraction(count, below) if count is not None and 0 < count < 100 else None


def _whole(words: list[str]) -> int | None:
    """The value of words for a whole number. None if the words do not form a number, as in "twenty thirty"."""
    total, largest = 0, 10**15
    group: list[str] = []
    for word in words:
        scale = _SCALE.get(word)
        if scale is None:
            group.append(word)
            continue
        count = _group(group) if group else 1
        if count is None or scale >= largest:
            return None
        total, largest, group = total + count * scale, scale, []
    if total and group[:1] == ["and"]:
        group = group[1:]
        if not group:
            return None
    rest = _group(group) if group else 0
    return None if rest is None else total + rest


def _group(words: list[str]) -> int | None:
    """The value of words below a thousand, or of hundreds such as "nineteen hundred". None if they do not form a
    number.
    """
    words = ["one", *words[1:]] if words[0] in ("a", "an") else words
    if words[-1] == "dozen":
        count = _tens(words[:-1]) if words[:-1] else 1
        return None if count is None else count * 12
    if "hundred" not in words:
        return _tens(words)
    at = words.index("hundred")
    hundreds = _tens(words[:at]) if at else 1
    below = words[at + 1 :]
    if below[:1] == ["and"] and len(below) > 1:
        below = below[1:]
    rest = _tens(below) if below else 0
    return None if not hundreds or rest is None else hundreds * 100 + rest


def _tens(words: list[str]) -> int | None:
    """The value of one number word, or of two words such as "forty two"."""
    if len(words) == 1:
        return _ONES.get(words[0], _TEN.get(words[0]))
    if len(words) == 2 and words[0] in _TEN and 0 < _ONES.get(words[1], 0) < 10:
        return _TEN[words[0]] + _ONES[words[1]]
    return None
