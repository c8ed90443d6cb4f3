"""Quantities: an exact number with a unit or noun, such as "$1,200", "12%", "42 km/h" or "2 1/2 cups"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from synthgen.verify.arithmetic import evaluate
from synthgen.verify.literals import literal, same_float, significant
from synthgen.verify.units import (
    ATTACHED_LETTERS,
    ATTACHED_MAGNITUDES,
    CURRENCIES,
    MAGNITUDES,
    UNITS,
    unit_of,
    words_behind,
)

# a decimal with at least this many significant digits may stand for a shorter number with a rounding error
_LONG = 14
_SHORT = 12
_PRINTED = 18  # a 64-bit float is printed with at most 17 digits, and perhaps a zero before the point


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number with its unit. `value` of "12%" is 12, and `percent` is true. `unit` is a known unit or ''; `nouns` are
    the other words that name the counted things. `digits` is the number of significant digits of a decimal, and 0 for
    other numbers. `name` is the variable in "x = 3", or ''.
    """

    value: Fraction
    percent: bool = False
    unit: str = ""
    nouns: frozenset[str] = frozenset()
    digits: int = 0
    name: str = ""

    def same(self, other: Quantity) -> bool:
        """Whether two quantities are equal. A unit, a variable's name or a percent sign does not count if one of the
        quantities leaves it out: "12" and "0.12" both equal "12%".
        """
        if self.unit and other.unit and self.unit != other.unit:
            return False
        if self.name and other.name and self.name != other.name:
            return False
        if (self.unit and not other.unit and other.nouns) or (other.unit and not self.unit and self.nouns):
            return False
        if self.percent is not other.percent and (self.unit or other.unit):
            return False
        if self.nouns and other.nouns and not self.nouns & other.nouns:
            return False
        if self._close(self.value, other.value, other):
            return True
        if self.percent is other.percent:
            return False
        mine, yours = (q.value / 100 if q.percent else q.value for q in (self, other))
        return self._close(mine, yours, other)

    def _close(self, mine: Fraction, yours: Fraction, other: Quantity) -> bool:
        if mine == yours:
            return True
        if self.digits >= _LONG and other.digits <= _SHORT:
            return same_float(mine, yours, other.digits)
        if other.digits >= _LONG and self.digits <= _SHORT:
            return same_float(yours, mine, self.digits)
        if _LONG < self.digits <= _PRINTED and _LONG < other.digits <= _PRINTED:
            return same_float(mine, yours, _PRINTED)
        return False

    def key(self) -> str:
        """A text that is the same for two quantities with equal values. The unit "$" and nouns do not count."""
        value = self.value / 100 if self.percent else self.value
        if self.digits >= _LONG:
            value = Fraction(f"{float(value):.12g}")
        return f"{value} {'' if self.unit == '$' else self.unit}".strip()


_APPROXIMATELY = re.compile(
    r"(?:about|approximately|approx\.?|around|roughly|circa|exactly|precisely|only|just|equals?|a total of|[~≈=])\s*",
    re.IGNORECASE,
)
_SIGN = re.compile(r"([-+])\s?")
_NUMBER = re.compile(
    r"(?P<number>(?:\d{1,3}(?:[ ]\d{3})++(?:\.\d++)?(?![\d.,']*\d)|\.?\d[\d.,'_]*+)(?:[eE][-+]?\d++)?)"
    r"(?:(?P<mixed>[ ]\d++/\d++)|(?P<over>[ ]?/[ ]?\d[\d,]*+))?(?![\d/])"
)
_TEN = re.compile(r"[ ]?(?:\*|[xX])[ ]?10[ ]?(?:\^|\*\*)[ ]?\{?\(?([-+]?\d{1,4})(?!\d)\)?\}?")
_PERCENT = re.compile(r"[ ]?(?:%|percent\b|per cent\b|pct\b)", re.IGNORECASE)
_EURO_COMMA = re.compile(r"(\d{1,3}(?:\.\d{3})*|\d+),(\d\d)(?=[ ]?(?:€|EUR\b|euros?\b))")
_RATE = re.compile(r"[ ]per[ ]([A-Za-z]+)")
_BEHIND = re.compile(
    r"(?:in total|in all|altogether|overall|left|each|remaining|per [a-z]+|"
    r"of [a-z]+|an? [a-z]+|in (?:the|this|that|each) [a-z]+)?"
)
_OPERATIONS = frozenset(
    str.split("squared cubed pi factorial mod modulo choose times plus minus divided multiplied root bc bce mil am pm")
)
_FACTORIAL = re.compile(r"[\d.,()\s]+!+")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_ATTACHED = re.compile(r"[^\W\d_]+")
_EAST_ASIAN = re.compile(r"(?P<scale>[十百千万萬亿億])?(?P<unit>[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]*)")
_SCALES = {"十": 1, "百": 2, "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8}
_MAGNITUDE = re.compile(r"[ ]([A-Za-z]+)\b")


def leading(text: str) -> tuple[Quantity, int, int] | None:
    """The quantity at the start of a text, as (quantity, end of its number, end of its unit). None if the text does not
    begin with a number, or if the number cannot be read as a whole.
    """
    text = _EURO_COMMA.sub(_decimal_comma, text) if "," in text else text
    start = _APPROXIMATELY.match(text)
    at = start.end() if start else 0
    value, unit, at = _signed(text, at)
    if value is None:
        return None
    number = text[:at]
    percent = _PERCENT.match(text, at)
    if percent:
        return Quantity(value, True, "", frozenset(), _digits(number)), percent.end(), percent.end()
    attached = _ATTACHED.match(text, at)
    if attached:
        word = attached.group()
        eastern = _EAST_ASIAN.fullmatch(word)
        if eastern:  # Chinese, Japanese and Korean write units without a space
            value *= 10 ** _SCALES.get(eastern["scale"], 0)
            return Quantity(value, digits=_digits(number)), at, attached.end()
        if word in ATTACHED_MAGNITUDES:
            value, at = value * ATTACHED_MAGNITUDES[word], attached.end()
        elif _ORDINAL.match(text, at):
            at = attached.end()
            return Quantity(value, digits=_digits(number)), at, at
        elif not _attached_unit(text, at, word):
            return None
    else:
        magnitude = _MAGNITUDE.match(text, at)
        if magnitude and magnitude[1].lower() in MAGNITUDES and magnitude[1] != "K":
            value, at = value * MAGNITUDES[magnitude[1].lower()], magnitude.end()
    words, end = words_behind(text, at)
    known, nouns, used = unit_of(words)
    if words and words[0].lower() in _OPERATIONS:
        return None
    if not used and words and len(words[0]) == 1 and words[0].isascii():
        return None  # a variable: "5 x"
    if used:
        end = at
        for _ in range(used):
            end = _end_of_word(text, end)
        rate = _RATE.match(text, end) if known else None
        if rate and rate[1].lower() in UNITS:
            known, end = f"{known}/{UNITS[rate[1].lower()]}", rate.end()
            known = UNITS.get(known, known)
    return Quantity(value, False, known or unit, nouns, _digits(number)), at, end


def _attached_unit(text: str, at: int, word: str) -> bool:
    """Whether a known unit follows the digits directly. "3D", "5x" and "2a" are not quantities."""
    behind, _ = words_behind(text, at)
    if not behind:
        return False
    if len(behind[0]) == 1:
        return word in ATTACHED_LETTERS
    parts = [part.split("^")[0] for part in behind[0].lower().split("/")]
    return behind[0].lower() in UNITS or (len(parts) > 1 and all(part in UNITS for part in parts))


def _decimal_comma(match: re.Match[str]) -> str:
    return f"{match[1].replace('.', '')}.{match[2]}"


def _end_of_word(text: str, at: int) -> int:
    while at < len(text) and text[at] == " ":
        at += 1
    while at < len(text) and text[at] != " " and text[at] not in ",;:!?":
        at += 1
    return at - 1 if text[at - 1] == "." else at


def _signed(text: str, at: int) -> tuple[Fraction | None, str, int]:
    """The number that begins at the place `at`, with its sign and currency, as (value, currency, end). The value is
    None if there is no number.
    """
    negative, unit = False, ""
    for _ in range(2):  # "-$5" and "$-5"
        sign = _SIGN.match(text, at)
        if sign:
            negative, at = negative or sign[1] == "-", sign.end()
        if text[at : at + 1] in CURRENCIES and at < len(text) and not unit:
            unit, at = text[at], at + 1
            at += text[at : at + 1] == " "
    number = _NUMBER.match(text, at)
    if number is None:
        return None, "", at
    value = literal(number["number"])
    end = number.end()
    if number["number"].endswith((",", ".", "'", "_")):
        end -= 1
        if number["mixed"] or number["over"]:
            return None, "", at
    if value is None:
        return None, "", at
    if number["mixed"]:
        above, below = (int(part) for part in number["mixed"].split("/"))
        if value.denominator != 1 or not 0 < above < below:
            return None, "", at
        value += Fraction(above, below)
    elif number["over"]:
        below_text = number["over"].replace("/", "").strip()
        under = literal(below_text)
        if not under:
            return None, "", at
        value /= under
        end -= len(below_text) - len(below_text.rstrip(","))
    power = _TEN.match(text, end)
    if power:
        if abs(int(power[1])) > 1000:
            return None, "", at
        value, end = value * Fraction(10) ** int(power[1]), power.end()
    return (-value if negative else value), unit, end


_PLAIN = re.compile(r"[-+]?\d{1,15}(?:\.\d{1,9})?")


@lru_cache(maxsize=8192)
def plain(text: str) -> Quantity | None:
    """The quantity of a text that has only digits, a sign and a decimal point. None for any other text."""
    if not _PLAIN.fullmatch(text):
        return None
    whole, _, part = text.partition(".")
    return Quantity(Fraction(int(whole + part), 10 ** len(part)), digits=significant(text.lstrip("-+")))


def _digits(number: str) -> int:
    return significant(number.strip("-+$€£¥₹~≈ ")) if "." in number and "/" not in number else 0


def whole(text: str, *, strict: bool = False) -> Quantity | None:
    """The quantity of a text that is only one quantity: a number with a unit, or an expression of numbers. With
    `strict`, the words after the number must be a known unit or at most three words in lower case.
    """
    text = text.strip()
    if text.endswith("!") and _FACTORIAL.fullmatch(text):
        return None
    text = text.rstrip(".!;").rstrip()
    if text.startswith("(") and text.endswith(")") and "(" not in text[1:]:
        text = text[1:-1].strip()
    found = leading(text) if text[:1] != "(" else None
    if found:
        quantity, number_end, end = found
        rest = text[end:].strip()
        if _BEHIND.fullmatch(rest) and (not strict or quantity.unit or _plain_nouns(text[number_end:end])):
            return quantity
    value = evaluate(text)
    return None if value is None else Quantity(value)


def _plain_nouns(text: str) -> bool:
    words = text.split()
    return len(words) <= 3 and all(word == word.lower() for word in words)
