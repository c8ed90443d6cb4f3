"""Compares an answer with a reference. Curation, generation, evaluation and reports all use the functions of this
package.

    matches(answer, reference)      whether an answer agrees with a reference, or with one of several
    party(answer)                   a key that equal answers share, for votes
    gold(reference)                 the final answer of a worked solution
    number(text)                    the exact number that a text gives as its answer
    reason(answer, accepted)        why an answer matches none of its references
    normalize(text)                 the words and symbols of a text

The final answer is found first (`final`). Answers are compared first as numbers, by their exact value (`quantities`),
then as times, lists, choices and words. Mathematics that these rules cannot decide goes to math-verify (`mathematics`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache

from synthgen.verify.answers import agree, read
from synthgen.verify.final import final
from synthgen.verify.reasons import reason
from synthgen.verify.sentences import quantity_in
from synthgen.verify.short import SHORT
from synthgen.verify.spelling import clean, undress
from synthgen.verify.texts import normalize
from synthgen.verify.words import to_digits

__all__ = ["gold", "matches", "matches_any", "normalize", "number", "party", "reason"]

Known = str | bool | int | float | None


def matches(answer: Known, reference: Known | Iterable[Known]) -> bool:
    """Whether the final answer of `answer` agrees with the final answer of `reference`. The answer or the reference, or
    both, may be a worked solution.

    A reference that is a list holds several accepted answers: one of them must match. None, NaN and an empty text are
    neither a reference nor an answer, and nothing matches them. Callers that want to keep rows without a reference must
    therefore first test whether there is a reference. An answer does not match if it names several answers, expresses
    doubt or is a denial, or if it cannot be compared.
    """
    given = _text(answer)
    if not given:
        return False
    accepted = (reference,) if reference is None or isinstance(reference, str | bool | int | float) else reference
    for each in accepted:  # noqa: SIM110 - half the time of `any` with a generator
        if _matches(given, _text(each)):
            return True
    return False


def matches_any(answer: Known, accepted: Iterable[Known]) -> bool:
    """Whether `answer` agrees with one of the accepted references."""
    return matches(answer, accepted if isinstance(accepted, list) else list(accepted))


def _matches(answer: str, reference: str) -> bool:
    if len(answer) <= SHORT:
        return _short_matches(answer, reference)
    expected = read(reference) if reference else None
    return expected is not None and agree(answer, expected)


@lru_cache(maxsize=1 << 14)
def _short_matches(answer: str, reference: str) -> bool:
    """Results for short answers are cached, because labels, numbers and "yes" repeat in a corpus."""
    expected = read(reference) if reference else None
    return expected is not None and agree(answer, expected)


def _text(value: Known) -> str:
    """A value as text. '' for None, NaN and the text "nan", which is a missing value that was written as text."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    text = value if isinstance(value, str) else str(value)
    return "" if len(text) < 9 and text.strip().lower() == "nan" else text


def party(answer: str | None) -> str:
    """A key that is equal for answers that say the same: equal numbers ("1,000" and "$1000"), equal times, the same
    choice, the same words. '' if there is no answer.
    """
    if not answer or not answer.strip():
        return ""
    said = read(answer)
    if said is None:
        return ""
    if said.quantity:
        return f"number {said.quantity.key()}"
    if said.choice:
        return f"choice {said.choice.letter}"
    return said.moment or said.truth or " ".join(said.words)


def gold(reference: str) -> str:
    r"""The final answer of a reference: the text after its last marker (`####`, `\boxed{}`, "Answer:"), or its last
    line.
    """
    found = final(reference)
    return found.text.strip() if found else reference.strip()


def number(text: str) -> Fraction | None:
    """The exact number that a text gives as its answer. None if the text gives no number or several numbers."""
    found = final(text)
    quantity = quantity_in(to_digits(undress(clean(found.text)))) if found and not found.doubt else None
    return quantity.value if quantity else None
