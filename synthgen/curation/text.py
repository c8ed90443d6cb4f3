"""Checks of a completion's text: length, repetition, truncation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, lengths, numbers
from synthgen.curation.verdicts import Rejection, Scores, Verdicts
from synthgen.executor import Services
from synthgen.records import COMPLETE
from synthgen.tables.curation import Length, Repetition
from synthgen.tables.section import Section

_NGRAM = 4


def length(batch: pa.RecordBatch, section: Length, services: Services) -> Verdicts:
    """Check that the number of words is between min_words and max_words. The score is the number of words."""
    words = _words(batch["completion.plain"])
    low, high = section.min_words, section.max_words
    rejected = {}
    if low is not None:
        for row in np.flatnonzero(words < low).tolist():
            count = int(words[row])
            rejected[row] = Rejection(f"{count} words, fewer than {low}", count, "min_words", low)
    if high is not None:
        for row in np.flatnonzero(words > high).tolist():
            count = int(words[row])
            rejected.setdefault(row, Rejection(f"{count} words, more than {high}", count, "max_words", high))
    return Verdicts(rejected, {"length": words.astype(np.float64)})


def _words(plain: pa.Array) -> Rows:
    """The number of words in each text. The texts are in plain form."""
    spaces = numbers(pc.count_substring(plain, pattern=" ")).astype(np.int64)
    return spaces + numbers(pc.not_equal(plain, "")).astype(np.int64)


def repetition(batch: pa.RecordBatch, section: Repetition, services: Services) -> Verdicts:
    """Reject a completion in which too large a share of the 4-word sequences occurred earlier in the same completion.
    The share is the score.
    """
    shares = repeated_shares(batch["completion.plain"])
    limit = section.max_share
    rejected = {
        row: Rejection(f"{shares[row]:.0%} of 4-word sequences repeat, more than {limit:.0%}", shares[row], "", limit)
        for row in np.flatnonzero(shares > limit).tolist()
    }
    return Verdicts(rejected, {"repetition": shares})


def repeated_shares(plain: pa.Array) -> Scores:
    """For each text in plain form: 1 − (number of distinct 4-word sequences / number of all 4-word sequences). 0 for a
    text with fewer than four words.
    """
    words = pc.split_pattern(plain, " ")
    counts = lengths(words)
    grams = np.maximum(counts - _NGRAM + 1, 0)
    distinct = _distinct(words.flatten().dictionary_encode(), np.repeat(np.arange(len(plain)), counts), len(plain))
    if distinct is None:  # there are too many different words for 64 bits, so divide the texts into two halves
        half = len(plain) // 2
        if half == 0:
            return np.array([_one_share(text) for text in plain.to_pylist()])
        return np.concatenate([repeated_shares(plain.slice(0, half)), repeated_shares(plain.slice(half))])
    return np.asarray(np.where(grams > 0, 1 - distinct / np.maximum(grams, 1), 0.0))


def _distinct(words: pa.DictionaryArray, row_of: Rows, rows: int) -> Rows | None:
    """The number of distinct 4-word sequences in each row.

    `words` holds the words of all rows, and `row_of` the row of each word. A row number and a sequence are packed into
    one 64-bit number. In this number, a sequence is represented by the numbers of its four words or, if these do not
    fit, by the numbers of its two word pairs. Returns None if the numbers of the word pairs do not fit either. The
    packed numbers are sorted, so that distinct ones can be counted.
    """
    if len(words) < _NGRAM:
        return np.zeros(rows, np.int64)
    codes, kinds, parts = numbers(words.indices).astype(np.uint64), len(words.dictionary), range(_NGRAM)
    if _bits(rows) + _NGRAM * _bits(kinds) > 64:
        pairs = pa.array(codes[:-1] * np.uint64(kinds) + codes[1:]).dictionary_encode()
        codes, kinds, parts = numbers(pairs.indices).astype(np.uint64), len(pairs.dictionary), range(0, _NGRAM, 2)
    width = _bits(kinds)
    if _bits(rows) + len(parts) * width > 64:
        return None
    count = len(words) - _NGRAM + 1
    packed = row_of[:count].astype(np.uint64)
    for place in parts:
        packed = (packed << np.uint64(width)) | codes[place : place + count]
    packed = np.sort(packed[row_of[:count] == row_of[_NGRAM - 1 :]])  # leave out sequences with words of two rows
    if not len(packed):
        return np.zeros(rows, np.int64)
    first = np.concatenate([[True], packed[1:] != packed[:-1]])
    return np.bincount((packed[first] >> np.uint64(len(parts) * width)).astype(np.int64), minlength=rows)


def _bits(count: int) -> int:
    """The number of bits that are enough for every number below `count`."""
    return max(count - 1, 1).bit_length()


def _one_share(text: str) -> float:
    words = text.split(" ")
    grams = list(zip(*(words[place:] for place in range(_NGRAM)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def truncated(batch: pa.RecordBatch, section: Section, services: Services) -> Verdicts:
    """Reject a completion that is not complete according to its finish reason. Null, in rows that no server answered,
    is not judged.
    """
    reasons = batch["finish_reason"]
    whole = pc.or_(pc.is_null(reasons), pc.is_in(reasons, pa.array(COMPLETE, reasons.type)))
    rejected = {}
    for row in np.flatnonzero(~numbers(whole).astype(bool)).tolist():
        reason = reasons[row].as_py()
        rejected[row] = Rejection(
            "cut off at max_new_tokens" if reason == "length" else f"not complete (finish_reason: {reason})"
        )
    return Verdicts(rejected)
