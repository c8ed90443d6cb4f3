"""Divides many texts into words at once, with a hash and the place of each word.

Words are those of `synthgen.curation.near.shingles`: runs of letters, digits and underscores, and single characters in
scripts without spaces. Case, punctuation, white space, characters without width, and how a letter is composed do not
count. All texts are handled together as one array of characters, so no Python object is made for a word.

The hash of a word is a sum over its characters: a number for the character times a number for its place. Different words
may have the same hash, so callers compare the words themselves before they decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, numbers
from synthgen.curation.near.shingles import ALONE, BREAK, GOLDEN, KINDS, MIX, OTHERS, WORD

Hashes = npt.NDArray[np.uint64]

_NO_WIDTH = 3  # the kind of a character that has no width; see KINDS for the other kinds
_INVISIBLE = "\xad\u200b\u200c\u200d\u2060\ufeff"
_PLACES = 64  # the number of places in a word that have a random number of their own
_SHIFT = np.uint64(33)


def _kinds() -> npt.NDArray[np.uint8]:
    table = np.append(KINDS, np.uint8(ALONE))  # the last entry is the kind of all characters from `OTHERS` on
    table[[ord(character) for character in _INVISIBLE]] = _NO_WIDTH
    return table


def _folded() -> npt.NDArray[np.uint32]:
    """Each character below `OTHERS` without case, if that is one character."""
    forms = [(chr(code).casefold(), chr(code).lower(), chr(code)) for code in range(OTHERS)]
    return np.array([next(ord(form) for form in some if len(form) == 1) for some in forms], np.uint32)


_KINDS = _kinds()
_FOLDED = _folded()
_WEIGHTS = np.random.default_rng(42).integers(0, 1 << 63, _PLACES, np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True)
class Words:
    """The words of some texts, one text after the other. `text` is the index of each word's text, and `start` and
    `stop` are the word's place in the text, in characters. `first` is the index of each text's first word, and `count`
    its number of words.

    `letters` are the characters of all texts without case, and `begins` and `ends` each word's place there.
    """

    hashes: Hashes
    text: Rows
    start: Rows
    stop: Rows
    first: Rows
    count: Rows
    letters: npt.NDArray[np.uint32]
    begins: Rows
    ends: Rows

    def spelled(self, first: int, last: int) -> tuple[str, ...]:
        """The words from index `first` up to index `last`, without case."""
        places = zip(self.begins[first:last].tolist(), self.ends[first:last].tolist(), strict=True)
        return tuple(self.letters[begin:end].tobytes().decode("utf-32-le") for begin, end in places)


def words_of(texts: pa.Array) -> Words:
    """Divide the texts of a string array into words. A null text has no words. Places in a text are those in its
    Unicode form NFC.
    """
    texts = pc.utf8_normalize(pc.fill_null(texts, ""), "NFC")
    sizes = numbers(pc.utf8_length(texts)).astype(np.int64)
    letters = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    kinds = _KINDS[np.minimum(letters, OTHERS)]
    text = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(letters)) - (np.cumsum(sizes) - sizes)[text]
    if (kinds == _NO_WIDTH).any():
        wide = kinds != _NO_WIDTH
        letters, kinds, text, place = letters[wide], kinds[wide], text[wide], place[wide]
    letters = np.where(letters < OTHERS, _FOLDED[np.minimum(letters, OTHERS - 1)], letters)
    inside = kinds != BREAK
    joined = inside[1:] & inside[:-1] & (kinds[1:] == WORD) & (kinds[:-1] == WORD) & (text[1:] == text[:-1])
    joined = np.concatenate([[False], joined, [False]])  # whether each letter continues the word of the one before
    begins, ends = np.flatnonzero(inside & ~joined[:-1]), np.flatnonzero(inside & ~joined[1:]) + 1
    count = np.bincount(text[begins], minlength=len(sizes)).astype(np.int64)
    return Words(
        hashes=_hashed(letters, begins, ends),
        text=text[begins],
        start=place[begins],
        stop=place[ends - 1] + 1,
        first=np.cumsum(count) - count,
        count=count,
        letters=letters,
        begins=begins,
        ends=ends,
    )


def _hashed(letters: npt.NDArray[np.uint32], begins: Rows, ends: Rows) -> Hashes:
    """The hash of each word."""
    if not len(begins):
        return np.array([], np.uint64)
    sizes = ends - begins
    offsets = np.cumsum(sizes) - sizes
    place = np.arange(sizes.sum()) - np.repeat(offsets, sizes)  # of each letter in its word
    own = letters[place + np.repeat(begins, sizes)].astype(np.uint64) + np.uint64(1)
    return mixed(np.add.reduceat(mixed(own) * _WEIGHTS[place % _PLACES], offsets))


def mixed(values: Hashes) -> Hashes:
    """Spread the bits of numbers of 64 bits, one to one."""
    values = (values ^ (values >> _SHIFT)) * np.uint64(MIX[0])
    values = (values ^ (values >> _SHIFT)) * np.uint64(MIX[1])
    return values ^ (values >> _SHIFT)


def sequences(words: Words, length: int) -> tuple[Hashes, Rows]:
    """Return (hash of each sequence of `length` words that lie in one text, index of its first word)."""
    count = len(words.hashes) - length + 1
    if count <= 0:
        return np.array([], np.uint64), np.array([], np.int64)
    firsts = np.flatnonzero(words.text[:count] == words.text[length - 1 :])
    hashes = np.zeros(count, np.uint64)
    for place in range(length):
        hashes = (hashes + words.hashes[place : place + count]) * np.uint64(GOLDEN)
    return mixed(hashes[firsts]), firsts
