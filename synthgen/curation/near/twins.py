"""Finds, for each row, an earlier row that is kept and nearly the same: its twin.

Rows are decided in order. A row is dropped if an earlier kept row has a Jaccard similarity of at least the threshold.
So a row is never dropped because of a row that is itself dropped: every twin is kept. The rows of a unit are decided
together: if one of them has a twin, no row of the unit is kept. Rows of the same unit are not compared.

The functions here are the reference. `kernels` has the same functions for numba.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from synthgen.curation.near.shingles import Hashes
from synthgen.curation.near.sketch import Sketch

Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]
"""For each row: the index of its twin, or -1, and their Jaccard similarity, or -1."""


def jaccard(first: Hashes, second: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sets. Each is ascending and has no element twice. 0 if both are empty."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / max(len(first) + len(second) - shared, 1)


def exact_twins(sets: Sequence[Hashes], units: Sequence[int], threshold: float) -> Found:
    """Compare each row with every earlier kept row. `units` holds the unit of each row, and rows of a unit are
    neighbors.
    """
    return _twins(sets, units, threshold, lambda row, other: True)


def twins(
    sets: Sequence[Hashes],
    sketches: Sequence[Sketch],
    units: Sequence[int],
    threshold: float,
    bands: tuple[int, int],
) -> Found:
    """Like `exact_twins`, but compare only rows whose sketches agree in all slots of at least one band. `bands` is the
    result of `sketch.bands`.
    """
    count, size = bands
    cut = [row[: count * size].reshape(count, size) for row in sketches]
    return _twins(sets, units, threshold, lambda row, other: bool((cut[row] == cut[other]).all(axis=1).any()))


def _twins(
    sets: Sequence[Hashes], units: Sequence[int], threshold: float, compared: Callable[[int, int], bool]
) -> Found:
    twin, score = np.full(len(sets), -1), np.full(len(sets), -1.0)
    kept: list[int] = []
    for unit in dict.fromkeys(units):
        rows = [row for row in range(len(sets)) if units[row] == unit and len(sets[row])]
        for row in rows:
            for other in kept:
                if compared(row, other) and jaccard(sets[row], sets[other]) >= threshold:
                    twin[row], score[row] = other, jaccard(sets[row], sets[other])
                    break
        if not any(twin[row] >= 0 for row in rows):
            kept += rows
    return twin, score
