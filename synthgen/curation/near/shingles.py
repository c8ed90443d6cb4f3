"""Divides a text into shingles: sequences of consecutive words, each as one hash of 64 bits.

A word is a run of letters, digits and underscores, in lower case. In scripts that are written without spaces (Chinese,
Japanese, Thai, Lao, Khmer, Burmese, Tibetan), each character is a word of its own. A text with fewer words than a
shingle has one shingle: all of its words or, if it has no word at all, its other characters. An empty text has no
shingle.

The functions here are the reference: plain Python, slow, and easy to check. `kernels` has the same functions for numba.
Both give the same hashes. The hashes do not depend on the machine or on a random seed. The hashes depend on Python's
version of Unicode, which says what a letter is.
"""

from __future__ import annotations

import unicodedata

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

MASK = 0xFFFF_FFFF_FFFF_FFFF
FNV_START, FNV_FACTOR = 0xCBF2_9CE4_8422_2325, 0x100_0000_01B3  # FNV-1a, Fowler, Noll and Vo
GOLDEN = 0x9E37_79B9_7F4A_7C15  # 2**64 divided by the golden ratio
MIX = (0xFF51_AFD7_ED55_8CCD, 0xC4CE_B9FE_1A85_EC53)  # the finalizer of MurmurHash3, Appleby

BREAK, WORD, ALONE = 0, 1, 2
"""The kinds of characters. A character separates words, belongs to a word, or is a word by itself."""

_ALONE = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # three signs that stand among Chinese characters: 々, 〆 and 〇
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x31F0, 0x31FF),  # further Katakana
    (0x3400, 0x4DBF),  # Chinese characters
    (0x4E00, 0x9FFF),
    (0xA9E0, 0xA9FF),  # further Burmese
    (0xAA60, 0xAA7F),
    (0xF900, 0xFAFF),  # further Chinese characters
    (0xFF66, 0xFF9F),  # narrow Katakana
)
OTHERS = 0x1_0000
"""The kind of a character from this number on is `ALONE`. Characters from this number on are rare Chinese characters,
letters of old scripts and emoji."""


def kinds() -> npt.NDArray[np.uint8]:
    """The kind of each character below `OTHERS`, by its number. Letters, digits, marks and the underscore are in words
    (Unicode's categories L, N and M).
    """
    categories = "".join(map(unicodedata.category, map(chr, range(OTHERS))))  # a category has two letters
    inside = np.isin(np.frombuffer(categories.encode(), np.uint8)[::2], np.frombuffer(b"LNM", np.uint8))
    inside[ord("_")] = True
    table = np.where(inside, WORD, BREAK).astype(np.uint8)
    for first, last in _ALONE:
        part = table[first : last + 1]
        part[part == WORD] = ALONE
    return table


def lower() -> npt.NDArray[np.uint16]:
    """The lower case of each character below `OTHERS`, by its number. A character stays as it is if its lower case has
    several characters or is not below `OTHERS`.
    """
    small = list(map(str.lower, map(chr, range(OTHERS))))
    sizes = np.fromiter(map(len, small), np.int64, OTHERS)
    codes = np.frombuffer("".join(small).encode("utf-32-le", "surrogatepass"), np.uint32)
    first = codes[np.cumsum(sizes) - sizes]  # the first character of each lower case
    return np.where((sizes == 1) & (first < OTHERS), first, np.arange(OTHERS)).astype(np.uint16)


KINDS, LOWER = kinds(), lower()


def words(text: str) -> list[str]:
    """The words of a text in lower case. Each character is changed by itself, so a capital sigma at the end of a word
    becomes the same letter as elsewhere.
    """
    found: list[str] = []
    open_ = False
    for original in text:
        common = ord(original) < OTHERS
        kind = KINDS[ord(original)] if common else ALONE
        character = chr(LOWER[ord(original)]) if common else original
        if kind == WORD and open_:
            found[-1] += character
        elif kind != BREAK:
            found.append(character)
        open_ = kind == WORD
    return found


def mix(number: int) -> int:
    """Mix the bits of a 64-bit number. Different numbers give different results."""
    number ^= number >> 33
    number = number * MIX[0] & MASK
    number ^= number >> 33
    number = number * MIX[1] & MASK
    return number ^ (number >> 33)


def hashed(word: str) -> int:
    """The FNV-1a hash of a word's UTF-8 bytes, 64 bits."""
    number = FNV_START
    for byte in word.encode():
        number = (number ^ byte) * FNV_FACTOR & MASK
    return number


def shingles(text: str, length: int) -> Hashes:
    """The different hashes of all sequences of `length` words of a text, ascending."""
    found = [hashed(word) for word in words(text)] or ([hashed(text)] if text else [])
    sequences = [found[start : start + length] for start in range(max(len(found) - length + 1, 1))] if found else []
    return np.array(sorted({_joined(sequence) for sequence in sequences}), np.uint64)


def _joined(hashes: list[int]) -> int:
    number = 0
    for value in hashes:
        number = (number + value) * GOLDEN & MASK
    return mix(number)
