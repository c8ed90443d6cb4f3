"""Characters of scripts that are written without spaces: Chinese, Japanese, Thai, Lao, Khmer, Burmese and Tibetan.

In a text that is mostly in such a script, checks count characters instead of words.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, numbers

_MARKS = (
    r"\x00-/:-@\[-`{-\x{a9}\x{ab}-\x{b4}\x{b6}-\x{b9}\x{bb}-\x{bf}\x{2000}-\x{206f}\x{3000}-\x{3004}\x{3008}-\x{303f}\x{30fb}"
    r"\x{ff00}-\x{ff0f}\x{ff1a}-\x{ff20}"
)
MARKS, _LETTERS = f"[{_MARKS}]+", f"[^{_MARKS}]"  # white space and marks between words, and all other characters
_RARE = r"\x{20000}-\x{323af}"  # rare Chinese characters


@cache
def spaceless() -> str:
    """A regular expression for one letter, digit or mark of these scripts. The sweep for near duplicates uses the same
    scripts.
    """
    from synthgen.curation.near.shingles import ALONE, KINDS

    codes = np.flatnonzero(KINDS == ALONE)
    breaks = np.flatnonzero(np.diff(codes) > 1) + 1
    ranges = [rf"\x{{{part[0]:x}}}-\x{{{part[-1]:x}}}" for part in np.split(codes, breaks)]
    return f"[{''.join(ranges)}{_RARE}]"


def characters(texts: pa.Array) -> Rows:
    """For each text that is mostly in a script without spaces: its number of letters, digits and marks. -1 for every
    other text. “Mostly” means more than half of the letters, digits and marks.
    """
    counts = np.full(len(texts), -1, np.int64)
    likely = np.flatnonzero(~ascii_only(texts))
    if not len(likely):
        return counts
    others = texts.take(pa.array(likely))
    alone = numbers(pc.count_substring_regex(others, pattern=spaceless())).astype(np.int64)
    letters = np.zeros(len(likely), np.int64)
    some = np.flatnonzero(alone)
    letters[some] = numbers(pc.count_substring_regex(others.take(pa.array(some)), pattern=_LETTERS))
    counts[likely] = np.where(2 * alone > letters, letters, -1)
    return counts


def ascii_only(texts: pa.Array) -> npt.NDArray[np.bool_]:
    """Which texts have only ASCII characters. A null counts as ASCII."""
    return numbers(pc.fill_null(pc.string_is_ascii(texts), True)).astype(bool)
