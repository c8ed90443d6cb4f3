"""The functions of `spread` that numba compiles to machine code."""

from __future__ import annotations

import numpy as np
from numpy import int32, uint64

from synthgen.curation.near.kernels import Array, compiled

WIDTH = 256
"""The number of entries of a vector."""
_PLACES, _SIGN = uint64(WIDTH - 1), uint64(63)


@compiled
def add_words(words: Array, sizes: Array, counts: Array) -> None:
    """Add 1 or -1 to the `counts` (texts, WIDTH) of each text for each of its different words. `words` are the hashes
    of the words of all texts, one text after the other, and `sizes` their numbers. The lowest bits of a word's hash say
    which of the counts is changed, and the highest bit says whether 1 or -1 is added.
    """
    start = 0
    for text in range(len(sizes)):
        found = np.sort(words[start : start + sizes[text]])
        for n in range(len(found)):
            if n == 0 or found[n] != found[n - 1]:
                sign = int32(1) if found[n] >> _SIGN else int32(-1)
                counts[text, found[n] & _PLACES] += sign
        start += sizes[text]


@compiled
def approach(vectors: Array, chosen: int, distance: Array, nearest: Array) -> None:
    """Update `nearest` and `distance` after `chosen` was added to the selection. Each text that is closer to `chosen`
    than to every earlier choice now has `chosen` as its nearest. `distance` holds the squared distance of each text to
    its nearest chosen text.
    """
    for text in range(len(vectors)):
        total = int32(0)
        for place in range(WIDTH):
            apart = int32(vectors[text, place]) - int32(vectors[chosen, place])
            total += int32(apart * apart)
        if total < distance[text]:
            distance[text] = total
            nearest[text] = chosen
