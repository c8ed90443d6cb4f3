"""Functions for numba that put rows into components. `kernels` says how compiled functions are stored."""

from __future__ import annotations

import numpy as np
from numpy import int32, int64, uint16, uint64

from synthgen.curation.near.kernels import Array, agreeing, compiled

LONGEST = 256  # at most this many rows with the same key are compared with each other
_PARTS, _HIGHEST = 256, uint64(56)


@compiled
def root(parents: Array, row: int) -> int:
    """The first row of the component of a row. `parents` holds for each row an earlier row of its component, or the row
    itself. The search also shortens the paths to the first row.
    """
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


@compiled
def roots(parents: Array) -> None:
    """Replace the parent of each row by the first row of its component."""
    for row in range(len(parents)):
        parents[row] = root(parents, row)


@compiled
def _unite(parents: Array, row: int, other: int) -> None:
    """Join the components of two rows into one component."""
    a, b = root(parents, row), root(parents, other)
    parents[max(a, b)] = min(a, b)


@compiled
def _parted(keys: Array, alive: Array) -> tuple[Array, Array, Array]:
    """Divide the rows that are alive (see `search._chunks`) into parts, by the highest 8 bits of their keys. Returns
    the rows and their keys, part by part, with the rows of a part in ascending order. Also returns the index at which
    each part begins, followed by the number of all returned rows.
    """
    begins = np.zeros(_PARTS + 1, int64)
    for row in range(len(keys)):
        if alive[row]:
            begins[int64(keys[row] >> _HIGHEST) + 1] += 1
    for part in range(_PARTS):
        begins[part + 1] += begins[part]
    rows, grouped, place = np.empty(begins[_PARTS], int32), np.empty(begins[_PARTS], uint64), begins.copy()
    for row in range(len(keys)):
        if alive[row]:
            here = int64(keys[row] >> _HIGHEST)
            rows[place[here]], grouped[place[here]] = row, keys[row]
            place[here] += 1
    return rows, grouped, begins


@compiled
def connect(keys: Array, alive: Array, marks: Array, least: int, parents: Array) -> None:
    """Put two rows that are alive and have the same key into one component if their marks agree in at least `least`
    places. `keys` holds a key for each row; the highest bits of the keys are as good as random. `marks` holds several
    numbers for each row.

    If more than `LONGEST` rows have the same key, all of them are put into one component without a comparison. So the
    time does not grow with the square of the number of such rows. The rows are divided by their keys, so that the hash
    table of one part fits into the processor's cache.
    """
    rows, grouped, begins = _parted(keys, alive)
    largest, cells = int(np.diff(begins).max()), 1
    while cells < 2 * largest + 1:
        cells *= 2
    table, last = np.empty(cells, int32), uint64(cells - 1)  # the newest entry with a key, or -1
    earlier = np.empty(len(rows), int32)  # for each entry, the previous entry with the same key, or -1
    number = np.empty(len(rows), uint16)  # number of earlier entries with the same key, at most LONGEST
    for part in range(_PARTS):
        table[:] = -1
        for entry in range(begins[part], begins[part + 1]):
            key, row = grouped[entry], rows[entry]
            place = key & last
            while table[int64(place)] >= 0 and grouped[table[int64(place)]] != key:
                place = (place + uint64(1)) & last
            head = int64(table[int64(place)])
            if head >= 0 and number[head] >= LONGEST:
                _unite(parents, row, rows[head])
                continue
            earlier[entry], number[entry] = head, 0 if head < 0 else number[head] + 1
            while head >= 0:
                other = rows[head]
                if root(parents, row) != root(parents, other) and (
                    number[entry] >= LONGEST or agreeing(marks[row], marks[other]) >= least
                ):
                    _unite(parents, row, other)
                head = int64(earlier[head])
            table[int64(place)] = entry
