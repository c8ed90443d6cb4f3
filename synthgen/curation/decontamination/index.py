"""Makes an index of the word sequences of evaluation sets, and searches in it.

A question or an answer of at least n words is found by its sequences of n words. A question with fewer words is found
as a whole: as one sequence of all its words. A question with fewer than `_FEW` words must be a whole message, because
so few words also occur by chance. An answer with fewer than n words is not looked for.

If more than `_COMMON` texts of a set have a sequence, it belongs to the form of the set, such as "Choose the best
answer". Such a sequence does not count, unless a text has no other sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen.curation.decontamination.sets import Item
from synthgen.curation.decontamination.words import (
    Hashes,
    Words,
    concatenated,
    in_one_text,
    pieces,
    sequences,
    windows,
    words_of,
)
from synthgen.curation.lists import Rows

_FEW = 5
_COMMON = 3
_CELLS = 16  # the table of present hashes has at least this many cells for each hash


@dataclass(frozen=True)
class Source:
    """Where a text comes from: the name of its evaluation set, the id of its row there, and whether it is "a question"
    or "an answer".
    """

    set: str
    id: str
    part: str


@dataclass(frozen=True)
class Hit:
    """A text of an evaluation set that was found in a message: where it comes from, the share of its words that were
    found, and the range of the message from the first to the last of these words. The range is counted in Unicode's
    form NFC.
    """

    source: Source
    share: float
    start: int
    stop: int


@dataclass(frozen=True)
class _Sequences:
    """All sequences of one length, ascending by their hashes. For each sequence, `texts` holds the index of its text,
    and `places` holds the index of its first word among all words. `present` says for each value of the highest bits
    whether the hash of any sequence begins with these bits.
    """

    length: int
    hashes: Hashes
    texts: Rows
    places: Rows
    present: npt.NDArray[np.bool_]
    shift: np.uint64

    def matches(self, words: Words, hashes: Hashes) -> tuple[Rows, Rows, Rows]:
        """Compare the sequences of `words` with the sequences here. Return (index of the first word in `words`, text,
        place) for each pair with the same hash. `hashes` are the `windows` of the words for this length.
        """
        firsts = np.flatnonzero(self.present[hashes >> self.shift])
        firsts = firsts[in_one_text(words, firsts, self.length)]
        hashes = hashes[firsts]
        begin = np.searchsorted(self.hashes, hashes)
        count = np.searchsorted(self.hashes, hashes, side="right") - begin
        each = np.repeat(begin - (np.cumsum(count) - count), count) + np.arange(count.sum())
        return np.repeat(firsts, count), self.texts[each], self.places[each]


@dataclass(frozen=True)
class Index:
    """The texts of evaluation sets. `words` are the words of all texts, and `total` holds the number of counted words
    of each text. `before` holds the number of counted words before each word; its last entry is the number of all
    counted words. The lengths of `sequences` are ascending.
    """

    sources: tuple[Source, ...]
    words: Words
    before: Rows
    total: Rows
    sequences: tuple[_Sequences, ...]

    def find(self, words: Words, min_share: float) -> Iterator[tuple[int, Hit]]:
        """Yield (index of a message, hit) for each message that has at least the share `min_share` of a text. If there
        are several such texts, the hit is the text with the largest share; among equal shares, it is the first text.
        `words` are the words of the messages.
        """
        hashed = windows(words, [one.length for one in self.sequences])
        found = [(*one.matches(words, hashes), one.length) for one, hashes in zip(self.sequences, hashed, strict=True)]
        firsts, texts, places = (np.concatenate([part[n] for part in found]) for n in range(3))
        lengths = np.concatenate([np.full(len(part[0]), part[3]) for part in found])
        messages = words.text[firsts]
        fits = (self.words.count[texts] >= _FEW) | (words.count[messages] == self.words.count[texts])
        order = np.lexsort((places, texts, messages))
        order = order[fits[order]]
        if not len(order):
            return
        firsts, texts, places, lengths = firsts[order], texts[order], places[order], lengths[order]
        messages = messages[order]
        groups = np.flatnonzero(_is_new(messages) | _is_new(texts))  # the first match of each message and text
        shares = self._shares(groups, texts, places, lengths)
        ends = np.append(groups[1:], len(order))
        likely = np.flatnonzero(shares >= min_share)
        likely = likely[np.lexsort((texts[groups[likely]], -shares[likely], messages[groups[likely]]))]
        best: dict[int, Hit] = {}
        for group in likely.tolist():
            message, here = int(messages[groups[group]]), slice(groups[group], ends[group])
            if message in best and best[message].share >= shares[group]:
                continue
            hit = self._hit(words, firsts[here], places[here], lengths[here])
            if hit.share >= min_share and (message not in best or hit.share > best[message].share):
                best[message] = hit
        yield from best.items()

    def _shares(self, groups: Rows, texts: Rows, places: Rows, lengths: Rows) -> npt.NDArray[np.float64]:
        """For each group of matches: the share of the counted words of their text that these matches cover. `groups`
        are the first matches of the groups. The matches of a group belong to one text, and their places are ascending.
        """
        ends = places + lengths
        begins = np.maximum(places, np.concatenate([[0], ends[:-1]]))  # do not count words of the previous match twice
        begins[groups] = places[groups]
        counts = np.add.reduceat(self.before[ends] - self.before[np.minimum(begins, ends)], groups)
        return np.asarray(counts / self.total[texts[groups]])

    def _hit(self, words: Words, firsts: Rows, places: Rows, lengths: Rows) -> Hit:
        """The hit for one message and one text. The matches have equal hashes; only matches with equal words count. The
        matches begin at `firsts` in the message and at `places` in the text.
        """
        text, message = int(self.words.text[places[0]]), int(words.text[firsts[0]])
        ours, theirs = words.of_text(message), self.words.of_text(text)
        in_message = (firsts - words.first[message]).tolist()
        in_text = (places - self.words.first[text]).tolist()
        same = [
            ours[first : first + length] == theirs[place : place + length]
            for first, place, length in zip(in_message, in_text, lengths.tolist(), strict=True)
        ]
        firsts, places, lengths = firsts[same], places[same], lengths[same]
        if not len(firsts):
            return Hit(self.sources[text], 0.0, 0, 0)
        share = self._shares(np.array([0]), np.full(len(places), text), places, lengths)[0]
        start, stop = words.start[firsts.min()], words.stop[(firsts + lengths).max() - 1]
        return Hit(self.sources[text], float(share), int(start), int(stop))


def index_of(sets: Sequence[tuple[str, Sequence[Item]]], ngram: int) -> Index:
    """Make the index of evaluation sets, which are pairs (name, rows), for sequences of `ngram` words."""
    sources, texts = [], []
    for name, items in sets:
        for item in items:
            sources += [Source(name, item.id, "a question"), Source(name, item.id, "an answer")]
            texts += [item.question, item.answer]
    words = concatenated([words_of(part) for _, part in pieces(pa.array(texts, pa.large_string()))])
    is_question = np.arange(len(texts)) % 2 == 0
    used = words.count >= np.where(is_question, 1, ngram)
    hashes, firsts = sequences(words, ngram)
    long = used[words.text[firsts]]
    hashes, firsts = hashes[long], firsts[long]
    kept = np.ones(len(hashes), bool)
    names = np.array([source.set for source in sources])
    for name, _ in sets:
        here = names[words.text[firsts]] == name
        kept[here] = _counts(hashes[here], words.text[firsts[here]])
    made = [_made(ngram, hashes[kept], words.text[firsts[kept]], firsts[kept])]
    own = _covered(firsts[kept], np.full(np.count_nonzero(kept), ngram), len(words.hashes))
    for length in sorted({*words.count[used & (words.count < ngram)].tolist()}):
        whole = used & (words.count == length)
        hashes, firsts = sequences(words, length)
        all_of_it = whole[words.text[firsts]]
        hashes, firsts = hashes[all_of_it], firsts[all_of_it]
        made.append(_made(length, hashes, words.text[firsts], firsts))
        own |= whole[words.text]
    total = np.bincount(words.text[own], minlength=len(texts)).astype(np.int64)
    made.sort(key=lambda one: one.length)
    return Index(tuple(sources), words, np.concatenate([[0], np.cumsum(own)]), total, tuple(made))


def _is_new(values: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    """Whether each value differs from the value before it. The first value always counts as different."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]


def _counts(hashes: Hashes, texts: Rows) -> npt.NDArray[np.bool_]:
    """Whether each sequence counts; the docstring of the module says which sequences count. `texts` are the texts of
    the sequences, all of one set.
    """
    order = np.lexsort((texts, hashes))
    one_for_each_text = order[_is_new(hashes[order]) | _is_new(texts[order])]
    numbers, count = np.unique(hashes[one_for_each_text], return_counts=True)
    rare = ~np.isin(hashes, numbers[count > _COMMON])
    return np.asarray(rare | ~np.isin(texts, texts[rare]))


def _made(length: int, hashes: Hashes, texts: Rows, places: Rows) -> _Sequences:
    order = np.lexsort((places, hashes))
    hashes = hashes[order]
    bits = max(8, (len(hashes) * _CELLS).bit_length())
    shift = np.uint64(64 - bits)
    present = np.zeros(1 << bits, bool)
    present[hashes >> shift] = True
    return _Sequences(length, hashes, texts[order], places[order], present, shift)


def _covered(places: Rows, lengths: Rows, count: int) -> npt.NDArray[np.bool_]:
    """For each of `count` words: whether it is in one of the sequences that begin at `places` and have these
    lengths.
    """
    steps = np.zeros(count + 1, np.int64)
    np.add.at(steps, places, 1)
    np.add.at(steps, places + lengths, -1)
    return np.asarray(np.cumsum(steps)[:-1] > 0)
