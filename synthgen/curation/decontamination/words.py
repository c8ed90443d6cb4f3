"""Divides many texts into words at once, with a hash and the place of each word.

Words are those of `synthgen.curation.near.shingles`: runs of letters, digits and underscores, and single characters in
scripts without spaces. Case, punctuation, white space, characters without width, and the way in which a letter is
composed do not count. All texts are handled together as one array of characters, so no Python object is made for a
word.

The hash of a word is a sum over its characters. Each summand is a number for the character times a number for its
place. Different words may have the same hash (rare characters and emoji share one number), so callers compare the words
before they decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, numbers
from synthgen.curation.near.shingles import ALONE, BREAK, GOLDEN, KINDS, MIX, OTHERS, WORD

Hashes = npt.NDArray[np.uint64]

_NO_WIDTH = 3  # the kind of a character that has no width; see KINDS for the other kinds
_INVISIBLE = "\xad\u200b\u200c\u200d\u2060\ufeff"
_PIECE = 1 << 20
_PLACES = 64  # number of places in a word that have their own random number; a power of 2
_SHIFT = np.uint64(33)


def _kinds() -> npt.NDArray[np.uint8]:
    table = np.append(KINDS, np.uint8(ALONE))  # the last entry is the kind of all characters from `OTHERS` on
    table[[ord(character) for character in _INVISIBLE]] = _NO_WIDTH
    return table


def _folded() -> npt.NDArray[np.uint32]:
    """For each character below `OTHERS`, the first of these forms that is a single character: the case-folded form, the
    lower case, and the character itself.
    """
    forms = [(chr(code).casefold(), chr(code).lower(), chr(code)) for code in range(OTHERS)]
    return np.array([next(ord(form) for form in some if len(form) == 1) for some in forms], np.uint32)


def mixed(values: Hashes) -> Hashes:
    """Mix the bits of each 64-bit number. Different numbers give different results."""
    values = (values ^ (values >> _SHIFT)) * np.uint64(MIX[0])
    values = (values ^ (values >> _SHIFT)) * np.uint64(MIX[1])
    return values ^ (values >> _SHIFT)


_KINDS = _kinds()
_FOLDED = _folded()
_VALUES = np.where(_KINDS == BREAK, 0, mixed(np.append(_FOLDED, np.uint32(OTHERS)).astype(np.uint64) + np.uint64(1)))
_WEIGHTS = np.random.default_rng(42).integers(0, 1 << 63, _PLACES, np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True)
class Words:
    """The words of some texts, one text after the other. For each word, `text` is the index of its text, and `start`
    and `stop` are its place in the text, in characters. For each text, `first` is the index of its first word, and
    `count` is its number of words.

    `letters` are the characters of all texts, and `begins` and `ends` say where each word lies in them.
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

    def of_text(self, text: int) -> list[str]:
        """The words of one text, without case."""
        first, count = int(self.first[text]), int(self.count[text])
        if not count:
            return []
        begins, ends = self.begins[first : first + count], self.ends[first : first + count]
        letters = self.letters[begins[0] : ends[-1]]
        folded = np.where(letters < OTHERS, _FOLDED[np.minimum(letters, OTHERS - 1)], letters).astype(np.uint32)
        spelled = folded.tobytes().decode("utf-32-le")
        places = zip((begins - begins[0]).tolist(), (ends - begins[0]).tolist(), strict=True)
        return [spelled[begin:end] for begin, end in places]


def pieces(texts: pa.Array) -> Iterator[tuple[int, pa.Array]]:
    """Divide a string array into consecutive parts with about `_PIECE` bytes of text each, because `words_of` needs
    some 40 times as much memory. Yields pairs (index of the first text, part).
    """
    ends = np.cumsum(numbers(pc.fill_null(pc.binary_length(texts), 0)).astype(np.int64))
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PIECE, side="right")))
        yield start, texts.slice(start, stop - start)
        start = stop


def words_of(texts: pa.Array) -> Words:
    """Divide the texts of a string array into words. A null text has no words. Places are counted in the text's Unicode
    form NFC.
    """
    texts = pc.utf8_normalize(pc.fill_null(texts, ""), "NFC")
    sizes = numbers(pc.utf8_length(texts)).astype(np.int64)
    letters = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    codes = np.minimum(letters, np.uint32(OTHERS))
    kinds, text = _KINDS[codes], np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    origin = np.flatnonzero(kinds != _NO_WIDTH) if (kinds == _NO_WIDTH).any() else None
    if origin is not None:
        letters, codes, kinds, text = letters[origin], codes[origin], kinds[origin], text[origin]
    inside, of_word = kinds != BREAK, kinds == WORD
    joined = np.zeros(len(letters) + 1, bool)  # whether each letter continues the word of the letter before it
    joined[1:-1] = of_word[1:] & of_word[:-1] & (text[1:] == text[:-1])
    begins, ends = np.flatnonzero(inside & ~joined[:-1]), np.flatnonzero(inside & ~joined[1:]) + 1
    owner = text[begins].astype(np.int64)
    count = np.bincount(owner, minlength=len(sizes)).astype(np.int64)
    first_letter = (np.cumsum(sizes) - sizes)[owner]
    start, stop = (begins, ends) if origin is None else (origin[begins], origin[ends - 1] + 1)
    return Words(
        hashes=_hashed(_VALUES[codes], begins),
        text=owner,
        start=start - first_letter,
        stop=stop - first_letter,
        first=np.cumsum(count) - count,
        count=count,
        letters=letters,
        begins=begins,
        ends=ends,
    )


def _hashed(values: Hashes, begins: Rows) -> Hashes:
    """The hash of each word. `values` holds a number for each letter, which is 0 for letters between words."""
    if not len(begins):
        return np.array([], np.uint64)
    place = np.arange(begins[0], len(values)) - np.repeat(begins, np.diff(begins, append=len(values)))
    return mixed(np.add.reduceat(values[begins[0] :] * _WEIGHTS[place & (_PLACES - 1)], begins - begins[0]))


def concatenated(parts: Sequence[Words]) -> Words:
    """The words of several lists of texts, one list after the other."""
    texts, words, letters = 0, 0, 0
    moved: dict[str, list[npt.NDArray[np.generic]]] = {field.name: [] for field in fields(Words)}
    for part in parts:
        by = {"text": texts, "first": words, "begins": letters, "ends": letters}
        for name, arrays in moved.items():
            values = getattr(part, name)
            arrays.append(values + by[name] if name in by else values)
        texts, words, letters = texts + len(part.count), words + len(part.hashes), letters + len(part.letters)
    return Words(**{name: np.concatenate(arrays) for name, arrays in moved.items()})


def sequences(words: Words, length: int) -> tuple[Hashes, Rows]:
    """Return (hash of each sequence of `length` words that lie in one text, index of its first word)."""
    hashes = next(windows(words, [length]))
    firsts = np.flatnonzero(in_one_text(words, np.arange(len(hashes)), length))
    return hashes[firsts], firsts


def windows(words: Words, lengths: Sequence[int]) -> Iterator[Hashes]:
    """Yield the hashes of all sequences of each length in `lengths`, which are ascending. A sequence may begin in one
    text and end in a later text. The hash at index i belongs to the sequence that begins with word i.
    """
    done, hashes = 0, np.zeros(len(words.hashes), np.uint64)
    for length in lengths:
        for place in range(done, length):
            count = max(len(words.hashes) - place, 0)
            hashes = (hashes[:count] + words.hashes[place : place + count]) * np.uint64(GOLDEN)
        done = length
        yield mixed(hashes)


def in_one_text(words: Words, firsts: Rows, length: int) -> npt.NDArray[np.bool_]:
    """For each sequence of `length` words that begins at one of `firsts`: whether it lies within a single text."""
    return np.asarray(words.text[firsts] == words.text[firsts + length - 1])
