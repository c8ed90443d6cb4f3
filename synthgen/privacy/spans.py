"""Finds the longest span of consecutive words that a text has in common with a private text.

    index = Spans(["…", "…"], [0, 0], min_words=50, min_share=0.9, shortest=8)
    for found in index.find(pa.array(completions)):
        found.text, found.words, found.private      # number of the completion, words of the span, number of its text

Texts are split into words by `synthgen.curation.decontamination.words`, which ignores case, punctuation and white
space. In a script without spaces, each character is a word. A span counts if it has at least `min_words` words. If the
private text has fewer than `min_words / min_share` words, a span counts if it has at least the share `min_share` of the
text's words.

The index holds a hash of each sequence of L words of each private text, where L is the number of words that a span of
this text must have. A span of at least L words contains such a sequence, so every span is found. Neighboring sequences
that match are joined into one span. Then the words of the span are compared as texts, so a collision of hashes cannot
produce a span. Each word's hash is multiplied by a power of an odd number, and the products are added up modulo 2^64.
The hash of a sequence is computed from two of these running sums (Karp and Rabin, IBM J. of Research and Development
31, 1987). So the time for a hash does not depend on the length of the sequence.

The time is proportional to the number of words of the texts, times the number of different L. This number is at most
`min_words` − `shortest` + 1. Memory grows with the number of words of the private texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen.curation.decontamination.words import Hashes, Words, concatenated, pieces, words_of
from synthgen.curation.lists import Rows

_ODD = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)
_BITS = (8, 27)  # minimum and maximum number of bits of an index into the table of present hashes
_CELLS = 8  # approximate number of cells of this table for each hash
_MOST_TEXTS = 64  # maximum number of positions that are kept for the same sequence; see `_Sequences`


@dataclass(frozen=True)
class Span:
    """The longest span that a text has in common with the private texts of one source: `text` is the number of the
    text, `private` is the number of the private text, and `source` is the number of its source. `words` is the number
    of words of the span, and `start` is the position of its first word in the text.
    """

    text: int
    private: int
    source: int
    words: int
    start: int


@dataclass(frozen=True)
class _Sequences:
    """The sequences of `length` words, sorted by their hashes, with the positions of their first words among the words
    of all private texts. For each source, at most `_MOST_TEXTS` positions of the same sequence are kept, so that a
    phrase in every private text does not slow the search down. If more private texts of a source have a sequence, the
    span that is found may be shorter than the longest span. But no text with a span is missed.
    """

    length: int
    hashes: Hashes
    places: Rows
    present: npt.NDArray[np.bool_]
    shift: np.uint64

    def matches(self, words: Words, hashes: Hashes) -> tuple[Rows, Rows]:
        """Pairs (position of a sequence in `words`, position of an equal sequence in the private texts). `hashes` are
        the hashes of the sequences in `words`.
        """
        firsts = np.flatnonzero(self.present[hashes >> self.shift])
        firsts = firsts[words.text[firsts] == words.text[firsts + self.length - 1]]
        begin = np.searchsorted(self.hashes, hashes[firsts])
        count = np.searchsorted(self.hashes, hashes[firsts], side="right") - begin
        each = np.repeat(begin - (np.cumsum(count) - count), count) + np.arange(count.sum())
        return np.repeat(firsts, count), self.places[each]


class Spans:
    """An index of private texts. `sources` are the numbers of the texts' sources. `long_enough` says for each text
    whether it has at least `shortest` words. Other texts are not in the index.
    """

    def __init__(
        self, texts: Sequence[str], sources: Sequence[int], *, min_words: int, min_share: float, shortest: int
    ) -> None:
        self._words = concatenated([words_of(part) for _, part in pieces(pa.array(texts, pa.large_string()))] or [NONE])
        self._sources = np.array(sources, np.int64)
        count = self._words.count
        needed = np.maximum(np.ceil(min_share * count - 1e-9).astype(np.int64), shortest)
        needed = np.minimum(needed, min_words)
        self.long_enough: npt.NDArray[np.bool_] = count >= max(shortest, 1)
        lengths = np.unique(needed[self.long_enough]).tolist()
        sums = _Sums(self._words)
        self._sequences = [self._made(sums, length, self.long_enough & (needed == length)) for length in lengths]

    def _made(self, sums: _Sums, length: int, texts: npt.NDArray[np.bool_]) -> _Sequences:
        words, hashes = self._words, sums.of(length)
        firsts = np.arange(len(hashes))
        firsts = firsts[texts[words.text[firsts]] & (words.text[firsts] == words.text[firsts + length - 1])]
        firsts = firsts[np.lexsort((self._sources[words.text[firsts]], hashes[firsts]))]
        hashes, sources = hashes[firsts], self._sources[words.text[firsts]]
        kept = np.ones(len(hashes), bool)
        kept[_MOST_TEXTS:] = hashes[_MOST_TEXTS:] != hashes[:-_MOST_TEXTS]
        kept[_MOST_TEXTS:] |= sources[_MOST_TEXTS:] != sources[:-_MOST_TEXTS]
        hashes, firsts = hashes[kept], firsts[kept]
        shift = np.uint64(64 - min(max((len(hashes) * _CELLS).bit_length(), _BITS[0]), _BITS[1]))
        present = np.zeros(1 << (64 - int(shift)), bool)
        present[hashes >> shift] = True
        return _Sequences(length, hashes, firsts, present, shift)

    def find(self, texts: pa.Array) -> Iterator[Span]:
        """Yield the longest span for each text and each source, sorted by text and source. A text that is null has no
        span.
        """
        for start, part in pieces(texts) if self._sequences else ():
            words = words_of(part)
            best: dict[tuple[int, int], Span] = {}
            sums = _Sums(words)
            for one in self._sequences:
                for span in self._runs(words, *one.matches(words, sums.of(one.length)), one.length):
                    key = span.text, span.source
                    if key not in best or span.words > best[key].words:
                        best[key] = span
            for key in sorted(best):
                yield replace(best[key], text=start + best[key].text)

    def _runs(self, words: Words, firsts: Rows, places: Rows, length: int) -> Iterator[Span]:
        """Join matches that are neighbors both in a text and in a private text to runs. Compare the words of each run,
        and yield its span.
        """
        owners, texts = self._words.text[places], words.text[firsts]
        order = np.lexsort((firsts, places - firsts, owners, texts))
        firsts, places, owners, texts = firsts[order], places[order], owners[order], texts[order]
        if not len(firsts):
            return
        new = np.ones(len(firsts), bool)
        new[1:] = (np.diff(texts) != 0) | (np.diff(owners) != 0) | (np.diff(places - firsts) != 0)
        new[1:] |= np.diff(firsts) != 1
        begins = np.flatnonzero(new)
        ends = np.append(begins[1:], len(firsts))
        longest: dict[tuple[int, int], int] = {}
        for run in np.argsort(begins - ends, kind="stable").tolist():  # the longest first
            begin, size = begins[run], int(ends[run] - begins[run]) + length - 1
            text, private = int(texts[begin]), int(owners[begin])
            key = text, int(self._sources[private])
            if longest.get(key, 0) >= size:
                continue
            skipped, same = self._compared(words, int(firsts[begin]), int(places[begin]), size)
            if same >= length and same > longest.get(key, 0):
                longest[key] = same
                yield Span(text, private, key[1], same, int(firsts[begin]) - int(words.first[text]) + skipped)

    def _compared(self, words: Words, first: int, place: int, size: int) -> tuple[int, int]:
        """(offset in the run, number of words) of the longest part of a run in which the words are equal as texts."""
        text, private = int(words.text[first]), int(self._words.text[place])
        here, there = first - int(words.first[text]), place - int(self._words.first[private])
        ours = words.of_text(text)[here : here + size]
        theirs = self._words.of_text(private)[there : there + size]
        best, begin = (0, 0), 0
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
            if one != other:
                begin = number
            elif number - begin > best[1]:
                best = begin, number - begin
        return best


class _Sums:
    """Running sums of the words' hashes times powers of `_ODD`, from which the hash of any sequence follows."""

    def __init__(self, words: Words) -> None:
        count = len(words.hashes)
        self._sums = np.zeros(count + 1, np.uint64)
        np.cumsum(words.hashes * _powers(_ODD, count), out=self._sums[1:])
        self._inverse = _powers(_INVERSE, count)

    def of(self, length: int) -> Hashes:
        """For each word, the hash of the sequence of `length` words that begins with it. A sequence may extend into the
        next text.
        """
        count = max(len(self._sums) - length, 0)
        return (self._sums[length : length + count] - self._sums[:count]) * self._inverse[:count]


def _powers(base: np.uint64, count: int) -> Hashes:
    """The first `count` powers of a number modulo 2^64."""
    powers = np.full(count, base)
    powers[:1] = _ONE
    return np.cumprod(powers)


_INVERSE = np.uint64(pow(int(_ODD), -1, 1 << 64))
NONE = words_of(pa.array([], pa.large_string()))
"""An empty list of words."""
