"""Literals: the digits of one number. A literal is read only as a whole."""

from __future__ import annotations

import math
import re
import struct
from fractions import Fraction

_DIGITS = 1000  # maximum number of digits of a literal; Python refuses to read integers of more than 4,300 digits
_EXPONENT = 1000
_FORMS = re.compile(
    r"(?P<plain>\d++)"
    r"|(?P<point>\d*+\.\d++)"
    r"|(?P<grouped>\d{1,3}(?:,\d{3})++(?:\.\d++)?)"
    r"|(?P<lakh>\d{1,2}(?:,\d\d)*,\d{3}(?:\.\d++)?)"
    r"|(?P<spaced>\d{1,3}(?:([ '_])\d{3})(?:\6\d{3})*+(?:\.\d++)?)"
    r"|(?P<european>\d{1,3}(?:\.\d{3})+,\d++|\d{1,3}(?:\.\d{3}){2,})"
    r"|(?P<underscored>\d++(?:_\d++)++)"
)


def literal(text: str) -> Fraction | None:
    """The exact value of a literal without a sign: "1,200.50", "1 000", "1'000", "12,34,567", "1.234,5", "1e3".

    Returns None if the text is not a literal or has more than 1,000 digits or an exponent beyond ±1,000. A dot with
    three digits after it is a decimal point ("1.000" is 1), but a comma is never a decimal point, because "3,5" may be
    a list.
    """
    if len(text) > _DIGITS:
        return None
    if text.isdecimal():
        return Fraction(int(text))
    text = text.rstrip(".,'_")
    digits, _, exponent = text.replace("E", "e").partition("e")
    form = _FORMS.fullmatch(digits)
    if form is None:
        return None
    if form.lastgroup == "european":
        digits = digits.replace(".", "").replace(",", ".")
    elif form.lastgroup not in ("plain", "point"):
        digits = digits.translate(_SEPARATORS)
    if form.lastgroup == "lakh" and digits.startswith("0"):
        return None
    whole, _, part = digits.partition(".")
    value = Fraction(int(whole + part), 10 ** len(part)) if part else Fraction(int(whole))
    if not exponent:
        return value
    power = int(exponent) if len(exponent) < 6 else _EXPONENT + 1
    return value * Fraction(10) ** power if abs(power) <= _EXPONENT else None


_SEPARATORS = str.maketrans("", "", ", '_")


def significant(text: str) -> int:
    """The number of significant digits of a literal with a decimal point. 0 for a literal without a decimal point."""
    mantissa = re.split("[eE]", text, maxsplit=1)[0]
    return len(mantissa.replace(".", "").lstrip("0")) if "." in mantissa else 0


def same_float(long: Fraction, short: Fraction, digits: int) -> bool:
    """Whether the decimal `long`, which has many digits, is what a computer printed for the number `short`.

    The result is true in two cases. In the first case, the two numbers as 64-bit floats are equal except for the last
    bits, which a calculation rounds (0.30000000000000004 is 0.3). In the second case, `long` is exactly a 32-bit float,
    and `short` rounds to this float (0.10000000149011612 is 0.1). `digits` is the number of significant digits of
    `short`; a 32-bit float holds seven.
    """
    try:
        one, two = float(long), float(short)
        if abs(one - two) <= 4 * math.ulp(two):
            return True
        if digits > 7:
            return False
        rounded = struct.unpack("f", struct.pack("f", one))[0]
        return rounded == one and struct.unpack("f", struct.pack("f", two))[0] == one
    except OverflowError:
        return False
