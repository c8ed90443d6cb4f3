"""Divides texts into words and sentences, for a whole batch at once.

Words are the same as in `synthgen.curation.near.shingles`: a word is a run of letters, digits and underscores in lower
case, or one character of a script without spaces. Each word has a hash of 64 bits. A sentence ends at a line break, at
one of "!?。！？…", or at a full stop. But a full stop directly before a letter, digit or underscore ends no sentence,
unless this character is a word of its own.

The hash of a word is a polynomial in an odd number modulo 2^64 over numbers that stand for its characters. So the
hashes of all words of a text are differences of prefix sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.near.shingles import ALONE, GOLDEN, KINDS, LOWER, MASK, MIX, OTHERS, WORD
from synthgen.curation.plain import canonical

Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

_BASE = 0x2545_F491_4F6C_DD1D  # an odd number
_ENDS = np.zeros(OTHERS + 1, bool)
_ENDS[[ord(character) for character in "\n!?。！？…"]] = True
_STOP = ord(".")
_KIND = np.append(KINDS, np.uint8(ALONE))  # the last entry is for all characters from OTHERS on
_LOW = np.append(LOWER.astype(np.uint32), np.uint32(OTHERS))


def mixed(numbers: Hashes) -> Hashes:
    """Spread the bits of numbers, as `shingles.mix` does."""
    numbers = numbers ^ numbers >> np.uint64(33)
    for factor in MIX:
        numbers = numbers * np.uint64(factor)
        numbers ^= numbers >> np.uint64(33)
    return numbers


_VALUES = mixed((np.arange(OTHERS + 1, dtype=np.uint64) + np.uint64(1)) * np.uint64(GOLDEN))


@lru_cache(maxsize=1)
def _powers(bits: int) -> tuple[Hashes, Hashes]:
    """The first 2^bits powers of `_BASE` and of its inverse, modulo 2^64."""
    found = []
    for base in (_BASE, pow(_BASE, -1, MASK + 1)):
        powers, step = np.ones(1, np.uint64), base
        for _ in range(bits):
            powers = np.concatenate([powers, powers * np.uint64(step)])
            step = step * step & MASK
        found.append(powers)
    return found[0], found[1]


def sequences(values: Hashes, starts: Places, stops: Places) -> Hashes:
    """A hash of each sequence values[start:stop]. Equal sequences have equal hashes, wherever they are."""
    up, down = _powers(max(20, len(values).bit_length()))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values * up[: len(values)], dtype=np.uint64)])
    return mixed((sums[stops] - sums[starts]) * down[starts] + (stops - starts).astype(np.uint64))


@dataclass(frozen=True)
class Words:
    """The words of a batch of texts, one text after the other.

    For each word: its hash (`hashes`), whether it begins with a capital letter (`capital`), the number of its text
    (`rows`) and of its sentence (`sentences`, ascending over all texts, with gaps), and its characters
    text[starts:stops]. `count` is the number of texts.
    """

    hashes: Hashes
    capital: npt.NDArray[np.bool_]
    rows: Places
    sentences: Places
    starts: Places
    stops: Places
    text: str
    count: int

    def spelled(self, place: int) -> str:
        """A word in lower case, each character by itself."""
        word = self.text[int(self.starts[place]) : int(self.stops[place])]
        return "".join(chr(_LOW[ord(one)]) if ord(one) < OTHERS else one for one in word)

    def by_sentence(self) -> tuple[Places, Places]:
        """(index of the first word of each sentence, index after its last word)."""
        return _runs(self.sentences)

    def by_row(self) -> tuple[Places, Places, Places]:
        """For each text that has words: (number of the text, index of its first word, index after its last word)."""
        first, stop = _runs(self.rows)
        return self.rows[first], first, stop


def _runs(numbers: Places) -> tuple[Places, Places]:
    """Where each run of equal numbers begins and ends."""
    if not len(numbers):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    edges = np.flatnonzero(np.diff(numbers)) + 1
    return np.concatenate([[0], edges]), np.concatenate([edges, [len(numbers)]])


def words(texts: pa.Array) -> Words:
    """The words of texts without nulls."""
    texts = canonical(texts)
    text = "\n".join(texts.to_pylist()) + "\n"
    codes = np.minimum(np.frombuffer(text.encode("utf-32-le"), np.uint32), OTHERS)
    kinds = _KIND[codes]
    alone, inside = kinds == ALONE, kinds == WORD
    after = np.append(inside[1:], False)
    before = np.append(False, inside[:-1])
    starts = np.flatnonzero(alone | (inside & ~before))
    stops = np.flatnonzero(alone | (inside & ~after)) + 1
    low = _LOW[codes]
    ends = _ENDS[codes]
    ends |= (codes == _STOP) & ~after
    sentences = np.cumsum(ends, dtype=np.int64)[starts]
    lengths = np.asarray(pc.utf8_length(texts).to_numpy(zero_copy_only=False), np.int64) + 1
    rows = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(starts, np.append(0, np.cumsum(lengths)))))
    return Words(
        hashes=sequences(_values(codes, low, text), starts, stops),
        capital=low[starts] != codes[starts],
        rows=rows,
        sentences=sentences,
        starts=starts,
        stops=stops,
        text=text,
        count=len(texts),
    )


def _values(codes: npt.NDArray[np.uint32], low: npt.NDArray[np.uint32], text: str) -> Hashes:
    """A number for each character in lower case."""
    values = _VALUES[low]
    for place in np.flatnonzero(codes == OTHERS).tolist():  # these are rare Chinese characters, old scripts and emoji
        values[place] = (ord(text[place]) * GOLDEN) & MASK
    return values


def hashes_of(entries: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The hashes of the words of each entry."""
    found = words(pa.array(list(entries), pa.string()))
    hashes = {entry: tuple[int, ...]() for entry in entries}
    for row, first, stop in zip(*(one.tolist() for one in found.by_row()), strict=True):
        hashes[entries[row]] = tuple(found.hashes[first:stop].tolist())
    return hashes


def or_of(masks: Hashes, first: Places) -> Hashes:
    """For each run of masks: the bits that are set in at least one of them. `first` are the indexes where the runs
    begin.
    """
    return np.bitwise_or.reduceat(masks, first) if len(first) else np.zeros(0, np.uint64)


def filled(count: int, rows: Sequence[int] | Places, values: Hashes) -> Hashes:
    """An array of `count` numbers: values[i] at the index rows[i], and 0 elsewhere."""
    result = np.zeros(count, np.uint64)
    result[rows] = values
    return result
