"""The functions of `shingles`, `sketch` and `twins` for numba, which compiles them to machine code.

The functions take numpy arrays and give the same results as the references in plain Python. Numbers of 64 bits must
stay unsigned: where numba would mix them with signed numbers, it would compute in float64, and the hashes would be
wrong without an error. Compiled code is stored beside this file or, if the folder cannot be written, in the user's
folder. The code is compiled again when this file changes. If a constant of another file changes, delete the folder
`__pycache__`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numpy import int32, int64, uint8, uint32, uint64

from synthgen.curation.near import shingles as reference
from synthgen.curation.near.sketch import SEED

_START, _FACTOR, _GOLDEN = uint64(reference.FNV_START), uint64(reference.FNV_FACTOR), uint64(reference.GOLDEN)
_MIX_1, _MIX_2, _SHIFT = uint64(reference.MIX[0]), uint64(reference.MIX[1]), uint64(33)
_EMPTY, _LOW, _HALF = uint64(reference.MASK), uint64(0xFFFF_FFFF), uint64(32)
_BREAK, _WORD, _ALONE = uint8(reference.BREAK), uint8(reference.WORD), uint8(reference.ALONE)
_OTHERS, _SEED = reference.OTHERS, uint64(SEED)

Array = npt.NDArray[Any]
Sets = tuple[Array, Array, Array]
"""The shingles of all rows (uint64), and for each row the index of its first shingle and their number (int64)."""
Marks = tuple[Array, Array]
"""Two arrays: the sketches of all rows (or only 8 bits of each slot), and the result of `band_keys`."""
Found = tuple[Array, Array]
"""A search fills these arrays: for each row the index of its twin (int64, -1 before the search) and their similarity
(float64)."""

compiled = numba.njit(cache=True, nogil=True, error_model="numpy")


@numba.njit(inline="always")
def mix(number: Any) -> Any:
    number ^= number >> _SHIFT
    number *= _MIX_1
    number ^= number >> _SHIFT
    number *= _MIX_2
    return number ^ (number >> _SHIFT)


@numba.njit(inline="always")
def _character(data: Array, at: int) -> tuple[Any, int]:
    """Return (number of the character that begins at `at`, number of its bytes). The text is valid UTF-8, and the
    character is not ASCII. The number of a character of four bytes is `OTHERS`.
    """
    first = int64(data[at])
    if first < 0xE0:
        return (first & 0x1F) << 6 | int64(data[at + 1]) & 0x3F, 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | (int64(data[at + 1]) & 0x3F) << 6 | int64(data[at + 2]) & 0x3F, 3
    return _OTHERS, 4


@numba.njit(inline="always")
def _with_character(number: Any, code: int) -> Any:
    """The hash `number` of a text, continued with the UTF-8 bytes of a character."""
    if code < 0x80:
        return (number ^ uint64(code)) * _FACTOR
    if code < 0x800:
        number = (number ^ uint64(0xC0 | code >> 6)) * _FACTOR
    else:
        number = (number ^ uint64(0xE0 | code >> 12)) * _FACTOR
        number = (number ^ uint64(0x80 | code >> 6 & 0x3F)) * _FACTOR
    return (number ^ uint64(0x80 | code & 0x3F)) * _FACTOR


@numba.njit(inline="always")
def _with_bytes(number: Any, data: Array, start: int, stop: int) -> Any:
    for place in range(start, stop):
        number = (number ^ uint64(data[place])) * _FACTOR
    return number


@compiled
def _words(data: Array, start: int, stop: int, tables: tuple[Array, Array], out: Array) -> int:
    """Write the hashes of the words of the text in data[start:stop] to `out`. Returns their number. `tables` are two
    tables: the kind and the lower case of each character.
    """
    kinds, lower = tables
    count, number, inside, at = 0, _START, False, start
    while at < stop:
        code, size = int64(data[at]), 1
        if code >= 0x80:
            code, size = _character(data, at)
        kind = kinds[code] if code < _OTHERS else _ALONE
        if kind == _WORD:
            number, inside = _with_character(number, int64(lower[code])), True
        else:
            if inside:
                out[count] = number
                count += 1
                number, inside = _START, False
            if kind == _ALONE:
                alone = _with_bytes(_START, data, at, at + size)
                out[count] = _with_character(_START, int64(lower[code])) if code < _OTHERS else alone
                count += 1
        at += size
    if inside:
        out[count] = number
        count += 1
    if count == 0 and stop > start:
        out[0] = _with_bytes(_START, data, start, stop)
        count = 1
    return count


@compiled
def shingle_lists(
    data: Array, offsets: Array, length: int, tables: tuple[Array, Array], lists: Array, sizes: Array
) -> int:
    """Write the shingles of each text into `lists`, text by text, in their order and with repetitions. Write the number
    of shingles of each text into `sizes`. `data` holds the UTF-8 bytes of all texts, and text i is
    data[offsets[i]:offsets[i+1]]. A text of n bytes has at most n // 2 + 1 shingles. Returns the number of all
    shingles.
    """
    total = 0
    for text in range(len(sizes)):
        start, stop = int64(offsets[text]), int64(offsets[text + 1])
        found = lists[total:]
        words = _words(data, start, stop, tables, found)
        count = max(words - length + 1, min(words, 1))
        for first in range(count):
            number = uint64(0)
            for place in range(first, min(first + length, words)):
                number = (number + found[place]) * _GOLDEN
            found[first] = mix(number)
        sizes[text] = count
        total += count
    return total


@compiled
def settle(sets: Sets, row: int, settled: Array) -> None:
    """Make the list of a row a set: ascending and without repetitions. `settled` says which lists are sets already."""
    lists, starts, sizes = sets
    if not settled[row]:
        settled[row] = True
        found = lists[starts[row] : starts[row] + sizes[row]]
        found.sort()
        size = 0
        for place in range(len(found)):
            if place == 0 or found[place] != found[size - 1]:
                found[size] = found[place]
                size += 1
        sizes[row] = size


@compiled
def sketches(lists: Array, sizes: Array, out: Array) -> None:
    """Write the sketch of each row's shingles into a row of `out`, which is a matrix of zeros. The shingles lie in
    `lists` one after the other, and `sizes` holds their numbers. Repetitions change nothing.
    """
    slots = out.shape[1]
    row = np.empty(slots, uint64)
    start = 0
    for text in range(len(sizes)):
        size = sizes[text]
        if size > 0:
            row[:] = _EMPTY
            left = slots
            for number in range(2 * slots):
                key = mix(_SEED + uint64(number) * _GOLDEN)
                base = uint64(number) << _HALF
                for place in range(start, start + size):
                    value = mix(lists[place] ^ key)
                    slot = int64(((value & _LOW) * uint64(slots)) >> _HALF) if number < slots else number - slots
                    if row[slot] == _EMPTY:
                        left -= 1
                    row[slot] = min(row[slot], base | (value >> _HALF))
                if left == 0:
                    break
            for slot in range(slots):
                out[text, slot] = uint32(mix(row[slot]) >> _HALF)
        start += size


@compiled
def common(lists: Array, first: int, first_size: int, second: int, second_size: int, least: int) -> int:
    """The number of elements that two ascending sets in `lists` share, or -1 if it is less than `least`."""
    i, j, found = 0, 0, 0
    while i < first_size and j < second_size:
        if found + min(first_size - i, second_size - j) < least:
            return -1
        a, b = lists[first + i], lists[second + j]
        if a == b:
            found += 1
        i += a <= b
        j += b <= a
    return found if found >= least else -1


@compiled
def _similarity(sets: Sets, settled: Array, row: int, other: int, threshold: float) -> float:
    """The Jaccard similarity of two rows' sets if it is at least `threshold`, else -1."""
    lists, starts, sizes = sets
    settle(sets, row, settled)
    settle(sets, other, settled)
    small, large = min(sizes[row], sizes[other]), max(sizes[row], sizes[other])
    if small < threshold * large - 1e-9:
        return -1.0
    together = sizes[row] + sizes[other]
    least = int64(np.ceil(threshold / (1 + threshold) * together - 1e-9))
    shared = common(lists, starts[row], sizes[row], starts[other], sizes[other], least)
    similarity = shared / (together - shared)
    return similarity if shared >= 0 and similarity >= threshold else -1.0


@compiled
def band_keys(matrix: Array, keys: Array) -> None:
    """Write a hash of the slots of each band of each sketch in `matrix` to `keys`, which has a row for each band. A
    band has len(matrix[0]) // len(keys) slots.
    """
    bands = len(keys)
    size = matrix.shape[1] // bands
    for row in range(len(matrix)):
        for band in range(bands):
            key = uint64(band + 1)
            for slot in range(band * size, (band + 1) * size):
                key = mix(key ^ uint64(matrix[row, slot])) + _GOLDEN
            keys[band, row] = mix(key)


@compiled
def agreeing(first: Array, second: Array) -> int:
    """The number of slots in which two sketches agree."""
    count = 0
    for slot in range(len(first)):
        count += first[slot] == second[slot]
    return count


@compiled
def _end_of_unit(units: Array, first: int) -> int:
    """The index after the last row of the unit that begins at `first`."""
    stop = first + 1
    while stop < len(units) and units[stop] == units[first]:
        stop += 1
    return stop


@compiled
def twins(sets: Sets, marks: Marks, units: Array, threshold: float, least: int, found: Found) -> None:
    """See `twins.twins`. Sets are compared if the sketches agree in at least `least` slots.

    Each band has a hash table of kept rows. A cell of the table holds the newest row of a chain and 32 bits of that
    row's key. The search for a key that is not in the table therefore needs only one memory access.
    """
    (matrix, keys), sizes, (twin, score) = marks, sets[2], found
    rows = len(matrix)
    bands = len(keys)
    room = 1
    while room < 2 * rows:
        room *= 2
    heads, links = np.full((bands, room), _EMPTY), np.full((bands, rows), _EMPTY)
    settled, seen = np.zeros(rows, np.bool_), np.full(rows, int32(-1))
    first = 0
    while first < rows:
        stop, lost = _end_of_unit(units, first), False
        for row in range(first, stop):
            if sizes[row] > 0:
                for band in range(bands):
                    key = keys[band, row]
                    cell = heads[band, int64(key & uint64(room - 1))]
                    while cell != _EMPTY and twin[row] < 0:
                        other = int64(cell & _LOW)
                        if (cell >> _HALF) == (key >> _HALF) and seen[other] != row:
                            seen[other] = row
                            if agreeing(matrix[row], matrix[other]) >= least:
                                score[row] = _similarity(sets, settled, row, other, threshold)
                                twin[row] = other if score[row] >= 0 else -1
                        cell = links[band, other]
                    if twin[row] >= 0:
                        break
                lost = lost or twin[row] >= 0
        if not lost:
            for row in range(first, stop):
                if sizes[row] > 0:
                    _insert(heads, links, keys, row)
        first = stop


@compiled
def _insert(heads: Array, links: Array, keys: Array, row: int) -> None:
    """Put a row at the head of its chain in each band's table."""
    room = heads.shape[1]
    for band in range(len(keys)):
        key = keys[band, row]
        place = int64(key & uint64(room - 1))
        links[band, row] = heads[band, place]
        heads[band, place] = (key >> _HALF) << _HALF | uint64(row)


@compiled
def _rare_first(sets: Sets, threshold: float) -> tuple[Array, Array]:
    """Return (the rarest elements of each row, the index of the first such element of each row). Two rows with a
    similarity of at least `threshold` have one of these elements in common (the prefix filter of Chaudhuri, Ganti and
    Kaushik, ICDE 2006).

    The result is right with any order of the elements that is the same for all rows. Elements are ordered by how often
    the lower 22 bits of their hash occur, so a rare element may count as a common element.
    """
    lists, starts, sizes = sets
    rows = len(sizes)
    counts, begins = np.zeros(1 << 22, uint32), np.zeros(rows + 1, int64)
    for row in range(rows):
        for at in range(starts[row], starts[row] + sizes[row]):
            counts[int64(lists[at] & uint64(0x3F_FFFF))] += uint32(1)
        enough = int64(np.ceil(threshold * sizes[row] - 1e-9))
        begins[row + 1] = begins[row] + (sizes[row] - enough + 1 if sizes[row] else 0)
    rarest = np.empty(begins[rows], uint64)
    for row in range(rows):
        elements = lists[starts[row] : starts[row] + sizes[row]]
        order = np.empty(len(elements), uint64)
        for place in range(len(elements)):
            often = min(counts[int64(elements[place] & uint64(0x3F_FFFF))], uint32(0xFFFF))
            order[place] = uint64(often) << uint64(48) | elements[place] >> uint64(16)
        chosen = np.argsort(order, kind="mergesort")[: begins[row + 1] - begins[row]]
        rarest[begins[row] : begins[row + 1]] = elements[chosen]
    return rarest, begins


@compiled
def exact_twins(sets: Sets, units: Array, threshold: float, found: Found) -> None:
    """See `twins.exact_twins`."""
    twin, score = found
    rows = len(units)
    settled, seen = np.zeros(rows, np.bool_), np.full(rows, int32(-1))
    for row in range(rows):
        settle(sets, row, settled)
    rarest, begins = _rare_first(sets, threshold)
    room = 1
    while room < 2 * len(rarest) + 2:
        room *= 2
    heads, links, owners = np.full(room, int64(-1)), np.empty(len(rarest), int64), np.empty(len(rarest), int32)
    first = 0
    while first < rows:
        stop, lost = _end_of_unit(units, first), False
        for row in range(first, stop):
            for at in range(begins[row], begins[row + 1]):
                entry = heads[int64(mix(rarest[at]) & uint64(room - 1))]
                while entry >= 0 and twin[row] < 0:
                    other = owners[entry]
                    if rarest[entry] == rarest[at] and seen[other] != row:
                        seen[other] = row
                        score[row] = _similarity(sets, settled, row, other, threshold)
                        if score[row] >= 0:
                            twin[row] = other
                    entry = links[entry]
                if twin[row] >= 0:
                    break
            lost = lost or twin[row] >= 0
        if not lost:
            for row in range(first, stop):
                for at in range(begins[row], begins[row + 1]):
                    head = int64(mix(rarest[at]) & uint64(room - 1))
                    owners[at], links[at] = row, heads[head]
                    heads[head] = at
        first = stop
