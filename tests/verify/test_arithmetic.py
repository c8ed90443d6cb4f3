"""Arithmetic gives the same exact values as Python's own parser and fractions, or no value."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

from synthgen.verify.arithmetic import LONGEST, NO_SUM, evaluate

OPERATORS = ("+", "-", "*", "/", "**", "^", " + ", " - ", " * ", " / ", " x ")


def expression(draw: random.Random, depth: int) -> str:
    if depth == 0 or draw.random() < 0.2:
        number = draw.choice(["0", "1", "2", "7", "12", "0.5", ".25", "1.50", "3"])
        return draw.choice(["", "", "", "-"]) + number
    text = expression(draw, depth - 1) + draw.choice(OPERATORS) + expression(draw, depth - 1)
    return f"({text})" if draw.random() < 0.5 else text


def exact(text: str) -> Fraction | None:
    """The value by Python's parser, or None if there is no rational value."""
    python = re.sub(r"[\d.]+", lambda number: f"Fraction('{number[0]}')", text.replace("^", "**").replace(" x ", "*"))
    try:
        value = eval(python, {"Fraction": Fraction})
    except ZeroDivisionError:
        return None
    return value if isinstance(value, Fraction) else None


def test_expressions_have_the_values_of_pythons_parser():
    draw = random.Random(0)
    known = 0
    for _ in range(3000):
        text = expression(draw, draw.randrange(1, 4))
        value = evaluate(text)
        if value is not None:
            assert value == exact(text), text
            known += 1
        elif "^" not in text and "**" not in text:  # a power may be too large to compute
            assert NO_SUM.fullmatch(text.strip("( )")) or exact(text) is None, text
    assert known > 2000


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^3^2", 512),
        ("-2^2", -4),
        ("2^-1", Fraction(1, 2)),
        ("4^0.5", None),
        ("(1)", 1),
        ("1 1/2 + 1 1/2", 3),
        ("1 3/2 + 1", None),
        ("2 0/2 + 1", None),
        ("0.5 1/2 + 1", None),
        ("1,250 + 1", 1251),
        ("$3 + $4.50", Fraction(15, 2)),
        ("1.5 × 10", None),
        ("5-10", None),
        ("5 - 10", -5),
        ("2024-03-05", None),
        ("3/4/2024", None),
        ("1/0", None),
        ("0^-1", None),
        ("((1 + 2)", None),
        ("1 + 2) * 3", None),
        ("1 +", None),
        ("* 2", None),
        ("1 2", None),
        ("2(3)", None),
        ("()", None),
        ("", None),
        ("2^1000", 2**1000),
        ("1^1001", None),
        ("2^4000 * 2", None),
        ("10^1000 * 10^1000", None),
        ("1" + "+1" * 149, 150),
        ("1" + "+1" * 150, None),
    ],
)
def test_a_value_or_none(text, value):
    assert evaluate(text) == value
    assert LONGEST == 300
