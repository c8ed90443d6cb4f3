"""Remembers what functions return for short texts, because labels, numbers and short sentences repeat in a corpus."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

SHORT = 64  # characters
_MOST = 1 << 13  # results that are remembered for each function

Result = TypeVar("Result")


def remembered(function: Callable[[str], Result]) -> Callable[[str], Result]:
    """A function with the same results, which are remembered for texts of at most `SHORT` characters. The results must
    not be changed by the caller.
    """
    known = lru_cache(maxsize=_MOST)(function)

    @wraps(function)
    def call(text: str) -> Result:
        return known(text) if len(text) <= SHORT else function(text)

    return call
