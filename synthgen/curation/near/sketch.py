"""Sketches of sets: `SLOTS` numbers for each set. The share of slots in which two sketches agree is an estimate of the
Jaccard similarity of their sets, |A ∩ B| / |A ∪ B|.

The method is Fast Similarity Sketching (Dahlgaard, Knudsen and Thorup, FOCS 2017). In round r, each element of the set
draws a slot and a value. A slot keeps the smallest pair (round, value). After `SLOTS` rounds, each element goes through
the slots one by one, so no slot stays empty. The rounds end when every slot is filled. The variance of the estimate is
at most that of MinHash with as many permutations, J(1 − J)/SLOTS.

The function here is the reference. `kernels.sketches` gives the same numbers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from synthgen.curation.near.shingles import GOLDEN, MASK, Hashes, mix

Sketch = npt.NDArray[np.uint32]

SLOTS = 128
SEED = 42
EMPTY = MASK  # the value of a slot that no element has drawn


def round_key(number: int) -> int:
    """The constant that is mixed into all hashes of one round; `number` is the round, counted from 0."""
    return mix((SEED + number * GOLDEN) & MASK)


def sketch(elements: Hashes, slots: int = SLOTS) -> Sketch:
    """The sketch of a set of hashes: `slots` numbers of 32 bits. An empty set has the sketch of zeros."""
    if not len(elements):
        return np.zeros(slots, np.uint32)
    row = [EMPTY] * slots
    for number in range(2 * slots):
        key = round_key(number)
        for element in elements.tolist():
            value = mix(element ^ key)
            slot = (value & 0xFFFF_FFFF) * slots >> 32 if number < slots else number - slots
            row[slot] = min(row[slot], number << 32 | value >> 32)
        if EMPTY not in row:
            break
    return np.array([mix(value) >> 32 for value in row], np.uint32)


def bands(threshold: float, slots: int = SLOTS) -> tuple[int, int]:
    """Return (number of bands, slots of a band) for pairs with a similarity of at least `threshold`.

    Two rows are compared if they agree in all slots of a band. With b bands of r slots, a pair of similarity J is
    missed with the probability (1 − J^r)^b. The result has the largest r up to 8 for which this probability, at the
    threshold, is at most one in a million. More slots in a band give fewer comparisons of rows that are not similar.
    """
    for size in range(8, 1, -1):
        count = slots // size
        if (1 - threshold**size) ** count <= 1e-6:
            return count, size
    return slots, 1


def least_agreement(threshold: float, slots: int = SLOTS) -> int:
    """The number of slots in which the sketches of two rows must agree before their sets are compared. The number is 6
    standard deviations of MinHash below the mean. A pair at the threshold therefore agrees in fewer slots with a
    probability of less than one in a million.
    """
    return max(0, math.floor(slots * threshold - 6 * math.sqrt(slots * threshold * (1 - threshold))))
