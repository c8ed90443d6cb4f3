"""Says in one line why an answer does not match its references."""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.verify import mathematics
from synthgen.verify.answers import read
from synthgen.verify.final import final

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
    if mathematics.comparable(found.text, expected.notation) and not mathematics.installed():
        return f"{shown}; mathematics was not compared: pip install 'synthgen-distill[curate]'"
    return shown
