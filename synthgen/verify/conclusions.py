"""Says whether an answer agrees with the reasoning before it: the last answer that the reasoning states is compared
with the answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

from synthgen.verify.answers import agree, read
from synthgen.verify.choices import choice
from synthgen.verify.final import Final, final
from synthgen.verify.literals import literal
from synthgen.verify.quantities import Quantity
from synthgen.verify.sentences import quantity_in
from synthgen.verify.spelling import clean, undress
from synthgen.verify.texts import words
from synthgen.verify.words import to_digits

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
# Dollars and cents, or a percentage and a share, differ by one of these factors.
_SCALES = (Fraction(100), Fraction(1, 100))
_SHORT = 8  # maximum number of words of an answer whose words are compared


def contradiction(rationale: str, answer: str) -> str | None:
    """The answer that the end of a rationale states, if it differs from `answer`. None if the two agree, if the
    rationale's last line does not state a single answer, or if the two cannot be compared.

    Two numbers agree if they are equal after rounding, without their signs, or after division by 100. An answer also
    agrees if it stands anywhere in the last line.
    """
    end, given = final(rationale), final(answer)
    if end is None or given is None or end.doubt or not end.text.strip() or not given.text.strip():
        return None
    said = read(answer)
    if said is None or agree(end.text, said):
        return None
    stated, line = read(end.text), to_digits(undress(clean(end.text)))
    if stated is not None and agree(given.text, stated):
        return None
    if said.quantity:
        quantity = stated.quantity if stated and stated.quantity else quantity_in(line)
        return end.text if quantity and not _close(said.quantity, quantity, line) else None
    if said.moment or said.items or said.notation:
        return None
    return end.text if end.marked and _other_words(end, given) else None


def _close(answer: Quantity, stated: Quantity, line: str) -> bool:
    """Whether the number of an answer may be the number that the rationale states, or another number in the rationale's
    last line.
    """
    if answer.unit and stated.unit and answer.unit != stated.unit:
        return True
    mine, yours = abs(answer.value), abs(stated.value)
    if mine == yours or (yours and mine / yours in _SCALES):
        return True
    for one, other in ((mine, yours), (yours, mine)):
        digits = _decimals(one)
        if digits is not None and _decimals(other) != digits and abs(one - other) < Fraction(1, 10**digits):
            return True
    return any(literal(found.group()) == mine for found in _NUMBER.finditer(line))


def _decimals(value: Fraction) -> int | None:
    """The number of digits after the point; None if it is more than six."""
    return next((digits for digits in range(7) if (value * 10**digits).denominator == 1), None)


def _other_words(end: Final, given: Final) -> bool:
    """Whether two short answers of words name different choices, or have no word in common."""
    one, other = choice(undress(clean(end.text))), choice(undress(clean(given.text)))
    if one and other:
        return one.letter != other.letter
    if one or other:
        return False
    mine, yours = words(given.text), words(end.text)
    return 0 < len(mine) <= _SHORT and 0 < len(yours) <= _SHORT and not {*mine} & {*yours}
