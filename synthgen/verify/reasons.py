"""Says in one line why an answer does not match its references."""

from __future__ import annotations

import re
from collections.abc import Sequence

from synthgen.verify import mathematics
from synthgen.verify.answers import Reference, agree, read
from synthgen.verify.final import final

_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}\.\d{3}(?!\d|[.,]\d)")
_SHOWN = 80  # number of characters of an answer or a reference that the line shows


def reason(answer: str, accepted: Sequence[str]) -> str:
    """One line that says why `answer` matches none of the accepted references."""
    found = final(answer)
    reference = accepted[0] if accepted else ""
    expected = read(reference) if reference.strip() else None
    if expected is None:
        return "the reference is empty"
    if found is None or not found.text:
        return "no final answer found"
    shown = f"answer '{found.text[:_SHOWN]}' is not '{expected.raw[:_SHOWN]}'"
    if found.doubt:
        return f"{shown}: {found.doubt}"
    if dotted := _dotted(answer, reference, expected):
        return f"{shown}; they agree if the dot in {dotted} separates thousands, but it is read as a decimal point"
    if mathematics.comparable(found.text, expected.notation) and not mathematics.installed():
        return f"{shown}; mathematics was not compared: pip install 'synthgen-distill[curate]'"
    return shown


def _dotted(answer: str, reference: str, expected: Reference) -> str | None:
    """The number, such as "1.250", that has a dot before three digits and makes answer and reference differ. In German
    and Spanish, for example, such a dot separates thousands. None if there is no such number.
    """
    for text, other in ((answer, reference), (reference, answer)):
        found = _THOUSANDS.search(text)
        if found is None or _THOUSANDS.search(other):
            continue
        whole = _THOUSANDS.sub(lambda number: number.group().replace(".", ""), text)
        against = expected if text == answer else read(whole)
        if against and agree(whole if text == answer else answer, against):
            return found.group()
    return None
