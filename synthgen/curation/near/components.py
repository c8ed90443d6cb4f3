"""Functions for numba that put rows into components. `kernels` says how compiled functions are stored."""

from __future__ import annotations

from numpy import int64, uint64

from synthgen.curation.near.kernels import Array, agreeing, compiled
from synthgen.curation.near.shingles import MASK

_EMPTY, _LOW, _HALF = uint64(MASK), uint64(0xFFFF_FFFF), uint64(32)
Scratch = tuple[Array, Array, Array]
LONGEST = 64  # number of rows with the same key that are compared with each other


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
def _unite(parents: Array, row: int, other: int) -> None:
    """Make one component of the components of two rows."""
    a, b = root(parents, row), root(parents, other)
    parents[max(a, b)] = min(a, b)


@compiled
def _cell(keys: Array, row: int, table: Array) -> int64:
    """The index of the cell of a row's key in `table`, a hash table of 2**k cells. A cell holds a row with that key,
    and 32 bits of the key, or it is empty.
    """
    key, last = keys[row], uint64(len(table) - 1)
    place = key & last
    while True:
        cell = table[int64(place)]
        if cell == _EMPTY or ((cell >> _HALF) == (key >> _HALF) and keys[int64(cell & _LOW)] == key):
            return int64(place)
        place = (place + uint64(1)) & last


@compiled
def connect(keys: Array, alive: Array, parents: Array, table: Array) -> None:
    """Put all rows that are alive and have the same key into one component. `keys` holds a key for each row, and
    `table` has 2**k cells, more than there are rows.
    """
    table[:] = _EMPTY
    for row in range(len(keys)):
        if alive[row]:
            place = _cell(keys, row, table)
            if table[place] == _EMPTY:
                table[place] = (keys[row] >> _HALF) << _HALF | uint64(row)
            else:
                _unite(parents, row, int64(table[place] & _LOW))


@compiled
def connect_similar(keys: Array, alive: Array, marks: tuple[Array, int], parents: Array, scratch: Scratch) -> None:
    """Put two rows that are alive and have the same key into one component if their sketches agree in enough slots.
    `marks` holds some slots of each row's sketch, 8 bits each, and the number in which they must agree.

    If more than `LONGEST` rows have the same key, all of them are put into one component without a comparison. So the
    time does not grow with the square of their number. `scratch` holds the table of `connect`, and for each row the
    earlier row with its key (or -1) and the number of earlier rows with its key.
    """
    (matrix, least), (table, earlier, number) = marks, scratch
    table[:] = _EMPTY
    for row in range(len(keys)):
        if not alive[row]:
            continue
        place = _cell(keys, row, table)
        head = int64(table[place] & _LOW) if table[place] != _EMPTY else int64(-1)
        if head >= 0 and number[head] >= LONGEST:
            _unite(parents, row, head)
            continue
        earlier[row], number[row] = head, 0 if head < 0 else number[head] + 1
        other = head
        while other >= 0:
            if root(parents, row) != root(parents, other) and (
                number[row] >= LONGEST or agreeing(matrix[row], matrix[other]) >= least
            ):
                _unite(parents, row, other)
            other = int64(earlier[other])
        table[place] = (keys[row] >> _HALF) << _HALF | uint64(row)
