"""Chooses texts that have few words in common: k-center greedy (Gonzalez 1985) on hashed words.

A text becomes a vector of 256 numbers: each different word adds 1 or -1 at a place that its hash names (feature
hashing, Weinberger et al. 2009). The vector is scaled to length 127 and rounded to whole numbers of 8 bits. The
distance of two texts is the squared distance of their vectors, divided by 2 x 127^2. This distance is 1 minus the
cosine of the vectors' angle: 0 for the same words, and about 1 for texts without a common word. Only whole numbers are
added, so the result is the same on every machine.

The text with the lowest key is chosen first. Each further text is the text with the largest distance to its nearest
chosen text. If several texts have the same largest distance, the first of them in the corpus is chosen. The square root
of the distance is a metric. In this metric, the largest distance of a rejected text to its nearest chosen text is at
most twice the optimum, which is the smallest value that any choice of equally many texts can reach. Choosing k of n
texts takes n x k x 256 additions and 256 bytes for each text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen.curation.lists import Rows
from synthgen.curation.near import shingled
from synthgen.curation.selection import kernels

_LENGTH = 127.0  # the length of each vector before its numbers are rounded

Floats = npt.NDArray[np.float64]


def hashed(batch: pa.RecordBatch, of: str) -> pa.Array:
    """The vector of each row's text, as 256 bytes. `of` is "row", "prompt" or "completion"."""
    words, sizes = shingled(batch, of, 1)
    counts = np.zeros((len(sizes), kernels.WIDTH), np.int32)
    kernels.add_words(words, sizes, counts)
    length = np.sqrt((counts.astype(np.int64) ** 2).sum(axis=1))
    vectors = np.rint(counts * (_LENGTH / np.maximum(length, 1))[:, None]).astype(np.int8)
    return pa.Array.from_buffers(pa.binary(kernels.WIDTH), len(sizes), [None, pa.py_buffer(vectors)])


def farthest(
    vectors: npt.NDArray[np.int8], size: Rows, key: npt.NDArray[np.uint64], number: int
) -> tuple[npt.NDArray[np.bool_], Floats, Rows, float]:
    """Choose units with at most `number` rows in all; `size` is the number of rows of each unit. Returns: whether each
    unit is chosen, its distance to the nearest chosen unit, the index of that unit (-1 if none is chosen), and the
    distance at which the last unit was chosen (NaN if there is none).
    """
    count = len(vectors)
    distance, nearest = np.full(count, np.iinfo(np.int32).max, np.int32), np.full(count, -1, np.int64)
    taken = np.zeros(count, bool)
    open_ = size <= number
    radius = np.nan
    while open_.any():
        if not taken.any():
            chosen = int(np.lexsort((key, ~open_))[0])
        else:
            chosen = int(np.where(open_, distance, -1).argmax())
            radius = float(distance[chosen])
        taken[chosen] = True
        number -= int(size[chosen])
        kernels.approach(vectors, chosen, distance, nearest)
        open_ &= (size <= number) & ~taken
    scale = 2 * _LENGTH**2
    known = np.where(nearest >= 0, distance / scale, np.nan)
    return taken, known, nearest, radius / scale
