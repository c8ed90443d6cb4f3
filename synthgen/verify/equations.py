"""Recomputes the equations in a text, such as "16 - 3 - 4 = 9", "$5 × 3 = $15" or "50 × 20% = 10".

An equation is an expression of numbers with an operator, a sign "=" or "≈", and one number. An equation cannot be
judged if it has variables, words between the numbers, a result that is itself an expression ("6 + 1" in "2 × 3 = 6 +
1"), a remainder, a time or a date. Equations that cannot be judged are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from synthgen.verify.arithmetic import LONGEST, evaluate
from synthgen.verify.final import LIMIT
from synthgen.verify.literals import literal
from synthgen.verify.spelling import clean

_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
_EQUAL = re.compile(
    rf"(?<![<>!=:~])[=≈](?!=) *(?P<minus>-?) ?[$€£]? ?(?P<number>{_NUMBER})"
    r"(?P<part> \d{1,4}/\d{1,4}|/\d+)?(?P<percent> ?%)?"
)
_BACKWARDS = re.compile(r"[\d .,+\-*/^()xX%$€£]*")  # matches the characters of an expression, from its end to its start
_BREAK = re.compile(r"[.,]\s+|^\s*\d{1,2}\)\s*")
_TIMES = re.compile(r"(?<=[\d)%]) ?[xX] ?(?=[\d($€£.])")
_SIGN = re.compile(r"\*\*|[-+*/^]")
_OPERATOR = re.compile(r"[\d)%] ?(?:\*\*|[-+*/^])")
_PERCENT = re.compile(r"(\d[\d.,]*) ?%(?! ?[\d(])")
_DIVISOR = re.compile(r"/ +(\d+/\d+)")
_FLOAT = 12  # number of digits after the point that are compared; computers print more digits than are exact
_ANNOTATION = re.compile(r"<<[^<>\n]*+>>")  # GSM8K notes each calculation as <<48/2=24>>
_SPELLED = (
    (re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])"), " * "),
    (re.compile(r"\\div(?![A-Za-z])"), " / "),
    (re.compile(r"\\approx(?![A-Za-z])"), " ≈ "),
    (re.compile(r"\\[dt]?frac\s*\{([\d., ]+)\}\s*\{([\d., ]+)\}"), r"(\1/\2)"),
    (re.compile(r"\\(?:left|right)(?![A-Za-z])|\\[,;:! ]|\{,\}"), ""),
    (re.compile(r"\\([%$])"), r"\1"),
    (re.compile(r"(?<![\d)])\*\*|\*\*(?![\d(])"), ""),  # bold
)
# The last word before an incomplete expression: "of" in "20% of 50 + 10 = 20".
_GOES_ON = re.compile(
    r"\b(?:of|times|plus|minus|by|over|than|half|twice|double|triple|mod|modulo|percent|less|log|sqrt)\s*$",
    re.IGNORECASE,
)
# Text that follows a number if the number is not the whole result.
_FOLLOWS = re.compile(
    r"[A-Za-z](?![A-Za-z])| ?(?:[-+*/^] ?[\d($.]|\*\*|[xX] ?\d|/|\^|[.,:]\d|!|\(?\d|…|\.\.\.|\\|"
    r"(?:hundred|thousand|million|billion|trillion|dozen|remainder|rem|r\d|mod|pi|and \d/\d)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Equation:
    """An equation as it is written, the value of its left side, and whether its result is right."""

    text: str
    value: Fraction
    right: bool


def equations(text: str) -> list[Equation]:
    """The equations of a text in their order. Only the first 100,000 characters are read.

    The left side is computed exactly. The result is right if it equals this value, or this value rounded up or
    down: the difference is less than one unit of the result's last digit. "20%" may be read as 0.2 or as 20. In "3 /
    1/4", the divisor may be the fraction 1/4.
    """
    if "=" not in text and "≈" not in text and "\\approx" not in text:
        return []
    spelled = _ANNOTATION.sub("", text[:LIMIT])
    for pattern, plain in _SPELLED:
        spelled = pattern.sub(plain, spelled)
    found = []
    for line in clean(spelled).split("\n"):
        begin = 0
        for equal in _EQUAL.finditer(line):
            one = None if _FOLLOWS.match(line, equal.end()) else _equation(line[begin : equal.start()], equal)
            begin = equal.start() + 1
            found += [one] if one else []
    return found


def _equation(before: str, equal: re.Match[str]) -> Equation | None:
    """The equation whose sign and result are `equal`. `before` is the part of the line since the previous equation.
    None if the equation cannot be judged.
    """
    readings = [value for left in _expressions(before) if (value := _value(left)) is not None]
    result = _result(equal)
    if not readings or result is None:
        return None
    digits = len(equal["number"].partition(".")[2])
    right = [value for value in readings if any(_rounds(value, each, digits) for each in result)]
    text = " ".join(f"{_expressions(before)[0]} {equal.group()}".split())
    return Equation(text, (right or readings)[0], bool(right))


def _expressions(before: str) -> list[str]:
    """The possible readings of the expression at the end of a text. In an item of a list, "- 3 + 5" may be 8, because
    the "-" may be the bullet.
    """
    if len(before) > LONGEST:
        before = before[-LONGEST:]
    backwards = _BACKWARDS.match(before[::-1])
    assert backwards is not None
    size = backwards.end()
    ahead, written = before[: len(before) - size], before[len(before) - size :]
    pieces = _BREAK.split(_TIMES.sub(" * ", written))
    left = pieces[-1].strip()
    if len(pieces) == 1:
        glued = ahead and not written.startswith(" ") and (ahead[-1].isalnum() or ahead[-1] in "_:\\'\"^")
        if glued or _GOES_ON.search(ahead) or (left[:1] == "-" and ahead.strip() and not re.match(r"-[\d.$(]", left)):
            return []
    while left.startswith("(") and left.count("(") > left.count(")"):
        left = left[1:].lstrip()
    if not _OPERATOR.search(left) or left[0] not in "-(.$€£0123456789":
        return []
    alone = left[0] == "-" and not ahead.strip()
    readings = [left[1:].lstrip(), left] if alone else [left]
    readings += [_DIVISOR.sub(r"/ (\1)", each) for each in readings] if _DIVISOR.search(left) else []
    if "%" in left:
        readings = [way for each in readings for way in (_PERCENT.sub(r"(\1/100)", each), _PERCENT.sub(r"\1", each))]
    return readings


def _value(expression: str) -> Fraction | None:
    """The value of an expression. Here, "16-3-4" is a difference and not a range."""
    value = evaluate(expression)
    return evaluate(_SIGN.sub(r" \g<0> ", expression)) if value is None else value


def _result(equal: re.Match[str]) -> list[Fraction] | None:
    """The values that the result of an equation may have. None if the result is not a number."""
    value = literal(equal["number"])
    part = (equal["part"] or "").strip()
    if value is None:
        return None
    if part:
        above, _, below = part.rpartition("/")
        if not int(below):
            return None
        value = value + Fraction(int(above), int(below)) if above else value / int(below)
    if equal["minus"]:
        value = -value
    return [value, value / 100] if equal["percent"] else [value]


def _rounds(value: Fraction, result: Fraction, digits: int) -> bool:
    """Whether `result` is the value, or the value rounded up or down to `digits` digits after the point."""
    return value == result or abs(value - result) < Fraction(1, 10 ** min(digits, _FLOAT))
