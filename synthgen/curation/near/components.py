"""Functions for numba that put rows with equal keys into components. `kernels` says how they are stored."""

from __future__ import annotations

from numpy import int64, uint64

from synthgen.curation.near.kernels import Array, compiled
from synthgen.curation.near.shingles import MASK

_EMPTY, _LOW, _HALF = uint64(MASK), uint64(0xFFFF_FFFF), uint64(32)


@compiled
def root(parents: Array, row: int) -> int:
    """The first row of the component of a row. `parents` holds for each row an earlier row of its component, or the row
    itself. Paths are shortened on the way.
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
def connect(keys: Array, alive: Array, parents: Array, table: Array) -> None:
    """Put all rows that are alive and have the same key into one component. `keys` holds a key for each row. `table` is
    a hash table of 2**k cells, more than there are rows; a cell holds the first row with a key, and 32 bits of the key.
    """
    table[:] = _EMPTY
    last = uint64(len(table) - 1)
    for row in range(len(keys)):
        if not alive[row]:
            continue
        key = keys[row]
        place = key & last
        while True:
            cell = table[int64(place)]
            if cell == _EMPTY:
                table[int64(place)] = (key >> _HALF) << _HALF | uint64(row)
                break
            other = int64(cell & _LOW)
            if (cell >> _HALF) == (key >> _HALF) and keys[other] == key:
                a, b = root(parents, row), root(parents, other)
                parents[max(a, b)] = min(a, b)
                break
            place = (place + uint64(1)) & last
