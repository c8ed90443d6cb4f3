"""Values of columns of the user's rows: which values are missing, and the text of a value."""

from __future__ import annotations

import math
import unicodedata

_UNSEEN = frozenset(("Zs", "Zl", "Zp", "Cc", "Cf"))  # categories of Unicode: spaces, controls, marks without width


def is_unseen(text: str) -> bool:
    """Whether a text has no character that can be seen: it is empty, or has only white space, control characters and
    characters without width.
    """
    return all(unicodedata.category(character) in _UNSEEN for character in text)


def is_null(value: object) -> bool:
    """Whether a value is missing: null, or the number NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_blank(value: object) -> bool:
    """Whether a value is missing, or is a text without a character that can be seen."""
    if isinstance(value, str):
        return is_unseen(value)
    return is_null(value)


def text_of(value: object) -> str:
    """The text of one value that is not null. Numbers and truth values get the text that JSON has for them, and a float
    gets the shortest text that is read back as the same number.

    Raises ValueError for a list, an object, or an infinite number, which have no text that a person would write.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a number that is not finite ({value})")
    if isinstance(value, int | float):
        return repr(value)
    raise ValueError("a list inside a list" if isinstance(value, list) else "an object, not a text or a number")


def accepted(value: object) -> list[str] | None:
    """The accepted answers as a list of texts. `value` is a reference: one answer, or a list of answers.

    Missing and blank answers are left out. Returns None when no answer is left. Raises ValueError for a value that is
    not a text, a number, a truth value or a list of these.
    """
    if type(value) is str:  # by far the most frequent case
        return None if is_unseen(value) else [value]
    answers = value if isinstance(value, list) else [value]
    return [text_of(answer) for answer in answers if not is_blank(answer)] or None
