"""Selects the texts of a batch that may hold a value, by the hints in `patterns`.

RE2, which is part of pyarrow, searches all hints of all texts at once. RE2 is as fast as Hyperscan for these hints
(docs/results.md has the figures), so no other package is needed.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.privacy.patterns import HINTS

Bits = npt.NDArray[np.uint16]

_NAMES = tuple(HINTS)
_EVERY = "|".join(pattern for patterns in HINTS.values() for pattern in patterns)
_SETS = [frozenset(name for bit, name in enumerate(_NAMES) if bits >> bit & 1) for bits in range(1 << len(_NAMES))]


def hint_bits(texts: pa.Array) -> Bits:
    """For each text, a number whose bits say which hints match it; see `hint_names`. The number of a null text is 0."""
    bits = np.zeros(len(texts), np.uint16)
    likely = pc.fill_null(pc.match_substring_regex(texts, pattern=_EVERY), False)
    rows = np.flatnonzero(numbers(likely))
    if len(rows):
        few = texts.take(pa.array(rows))
        for bit, patterns in enumerate(HINTS.values()):
            bits[rows] |= numbers(pc.match_substring_regex(few, pattern="|".join(patterns))).astype(np.uint16) << bit
    return bits


def hint_names(bits: int) -> frozenset[str]:
    """The names of the hints whose bits are set."""
    return _SETS[bits]
