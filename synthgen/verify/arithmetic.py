"""Exact arithmetic on expressions of numbers, such as "6 × 7", "(17 + 15) + 2" or "1.5 × 10^3".

The shunting-yard algorithm (Dijkstra, 1961) evaluates the expressions without recursion. Sizes are bounded, so that no
expression takes more than a millisecond.
"""

from __future__ import annotations

import re
from fractions import Fraction

from synthgen.verify.literals import literal

LONGEST = 300  # maximum number of characters of an expression
Exact = int | Fraction

_BITS = 4000  # maximum number of bits of a numerator or denominator
_ALLOWED = re.compile(r"[\d\s.,'_+\-*/^()xXeE$€£]+")
NO_SUM = re.compile(r"\d+(?:-\d+)+(?:/\d+)?|\d+/\d+(?:/\d+)+")  # ranges, dates and telephone numbers are not sums
_TWO = re.compile(r"\(?\s*(\d{1,50}(?:\.\d{1,50})?)\s+([-+*/])\s+(\d{1,50}(?:\.\d{1,50})?)\s*\)?")  # the usual case
_TOKEN = re.compile(
    r"\s*+(?:[$€£]?(?P<number>(?:\d{1,3}(?: \d{3})++(?![\d.,]*\d)|\.?\d[\d.,'_]*+)(?:[eE][-+]?\d++)?)"
    r"(?P<mixed> \d+/\d+)?"
    r"|(?P<power>\*\*|\^)|(?P<sign>[-+*/()])|(?P<times>(?<=\s)[xX](?=\s)))"
)
_PRIORITY = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}


def evaluate(text: str) -> Fraction | None:
    """The value of an expression of numbers, or None. None stands for a text that is not an expression, a range or date
    such as "5-10", a division by zero, or a number that becomes too large.
    """
    text = text.strip()
    if not text or len(text) > LONGEST or not _ALLOWED.fullmatch(text) or NO_SUM.fullmatch(text.strip("( )")):
        return None
    two = _TWO.fullmatch(text)
    try:
        if two and text.count("(") == text.count(")"):
            left, sign, right = two.groups()
            values: list[Exact] = [_plain(left), _plain(right)]
            _apply(sign, values)
            return Fraction(values[0])
        return _run(text)
    except (_NotArithmeticError, ZeroDivisionError):
        return None


def _plain(digits: str) -> Exact:
    whole, _, part = digits.partition(".")
    return Fraction(int(whole + part), 10 ** len(part)) if part.strip("0") else int(whole)


class _NotArithmeticError(Exception):
    """The text is not an expression of numbers."""


def _run(text: str) -> Fraction:
    values: list[Exact] = []
    waiting: list[str] = []
    at, operand_next = 0, True
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise _NotArithmeticError
        at = token.end()
        sign = "^" if token["power"] else "*" if token["times"] else token["sign"] or "number"
        if operand_next is not (sign in ("number", "(")) and not (operand_next and sign in "+-"):
            raise _NotArithmeticError
        if sign == "number":
            values.append(_number(token))
            operand_next = False
        elif sign == "(":
            waiting.append(sign)
        elif sign == ")":
            _close(waiting, values)
        elif operand_next:
            waiting += ["neg"] if sign == "-" else []
        else:
            _reduce(sign, waiting, values)
            operand_next = True
    if operand_next or "(" in waiting:
        raise _NotArithmeticError
    while waiting:
        _apply(waiting.pop(), values)
    return Fraction(values[0])


def _number(token: re.Match[str]) -> Exact:
    digits = token["number"]
    if digits.isdecimal() and len(digits) < 100 and not token["mixed"]:
        return int(digits)
    value = literal(digits)
    if value is None:
        raise _NotArithmeticError
    if token["mixed"]:
        above, below = (int(part) for part in token["mixed"].split("/"))
        if value.denominator != 1 or not 0 < above < below:
            raise _NotArithmeticError
        value += Fraction(above, below)
    return value.numerator if value.denominator == 1 else value


def _close(waiting: list[str], values: list[Exact]) -> None:
    """Apply the operators since the last opening parenthesis."""
    while waiting and waiting[-1] != "(":
        _apply(waiting.pop(), values)
    if not waiting:
        raise _NotArithmeticError
    waiting.pop()


def _reduce(sign: str, waiting: list[str], values: list[Exact]) -> None:
    """Apply the operators that bind at least as tightly as `sign`, and then let `sign` wait for its right operand.
    Powers are computed from right to left.
    """
    while waiting and waiting[-1] != "(":
        other = waiting[-1]
        if _PRIORITY[other] < _PRIORITY[sign] or (sign == "^" and other == "^"):
            break
        _apply(waiting.pop(), values)
    waiting.append(sign)


def _apply(sign: str, values: list[Exact]) -> None:
    right = values.pop()
    if sign == "neg":
        values.append(-right)
        return
    left, value = values.pop(), right
    if sign == "+":
        value = left + right
    elif sign == "-":
        value = left - right
    elif sign == "*":
        value = left * right
    elif sign == "/":
        value = Fraction(left, right)
    else:
        value = _raised(left, right)
    if _bits(value) > _BITS:
        raise _NotArithmeticError
    values.append(value)


def _bits(value: Exact) -> int:
    """The size of a number: bits of its numerator or denominator, whichever is larger."""
    return int(max(value.numerator.bit_length(), value.denominator.bit_length()))


def _raised(base: Exact, exponent: Exact) -> Exact:
    if exponent.denominator != 1 or abs(exponent.numerator) > 1000:
        raise _NotArithmeticError
    if _bits(base) * abs(exponent.numerator) > _BITS:
        raise _NotArithmeticError
    value: Fraction = Fraction(base) ** exponent.numerator
    return value
