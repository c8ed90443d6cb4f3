"""The check `repetition` rejects completions that repeat themselves again and again.

Every text is measured by its 4-word sequences, in Arrow and numpy. The few texts with many repeated sequences are then
read line by line, because a table, a program or a song repeats itself too. In these texts, repeated words count if they
are

- in a line that equals an earlier line, if all lines between the two also occurred before (so a refrain may come back);
- in a 4-word sequence that occurred before, unless the line is a row of a table, an item of a list or code.

A word of 200 characters or more, such as a very long "hahaha", is measured by its sequences of 16 characters.
"""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, lengths, numbers
from synthgen.curation.scripts import MARKS, characters
from synthgen.curation.verdicts import Rejection, Scores, Verdicts
from synthgen.executor import Services
from synthgen.tables.curation_settings import Repetition

_NGRAM = 4
# The number of characters that say as much as four English words, in Chinese and Japanese, and in other scripts without
# spaces.
_CHINESE, _OTHERS = 8, 16
_HAN_KANA = r"[\p{Han}\p{Hiragana}\p{Katakana}]"
_NUMBER = re.compile(r"^(?:[-*•+]|\(?\w{1,3}[.):]|step \d+:?)\s+|^\(?\d+\)?\s")
_STRUCTURE = re.compile(r"^\s*(?:[-*•+]|\d{1,3}[.)])\s|\|.*\||^(?: {4}|\t)|[;{}]\s*$|^\s*(?:#|//|</?\w)|\t")
_NO_LETTER = re.compile(r"[\W_]+")
_LONG = r"\S{200}"  # a very long "hahaha" or "!!!!!!", which has no 4-word sequences
_LONG_WORD = re.compile(_LONG + r"\S*")
_RULER = re.compile(r"[-=_*#~.+|:\u2500-\u259f]+")
_FENCE = re.compile(r"^\s*(?:```|~~~)")


def repetition(batch: pa.RecordBatch, section: Repetition, services: Services) -> Verdicts:
    """Reject a completion in which too large a share of the sequences occurred earlier in it. The share is the
    score."""
    plain, texts = batch["completion.plain"], batch["completion.text"]
    shares, units = measured(plain)
    limit = section.max_share
    short = _equal_words(plain)
    for row in np.union1d(np.flatnonzero(shares > limit), short).tolist():
        shares[row] = _read(texts[row].as_py(), shares[row], int(units[row]))
    for row in np.flatnonzero(numbers(pc.match_substring_regex(texts, pattern=_LONG))).tolist():
        share = _share_in_long_words(texts[row].as_py())
        if share > shares[row]:
            shares[row], units[row] = share, _OTHERS
    rejected = {}
    for row in np.flatnonzero(shares > limit).tolist():
        unit = f"{units[row]}-character" if units[row] else f"{_NGRAM}-word"
        reason = f"{shares[row]:.0%} of {unit} sequences repeat, more than {limit:.0%}"
        rejected[row] = Rejection(reason, shares[row], "", limit)
    return Verdicts(rejected, {"repetition": shares})


def measured(plain: pa.Array) -> tuple[Scores, Rows]:
    """For each text in plain form: the share of its repeated sequences, and the number of characters in a sequence. The
    number of characters is 0 for a text whose sequences have four words.
    """
    shares, units = repeated_shares(plain), np.zeros(len(plain), np.int64)
    rows = np.flatnonzero(characters(plain) >= 0)
    if len(rows):
        texts = pc.replace_substring_regex(plain.take(pa.array(rows)), pattern=MARKS, replacement="")
        chinese = 2 * numbers(pc.count_substring_regex(texts, pattern=_HAN_KANA)).astype(np.int64)
        units[rows] = np.where(chinese > numbers(pc.utf8_length(texts)).astype(np.int64), _CHINESE, _OTHERS)
        for row, text in zip(rows.tolist(), texts.to_pylist(), strict=True):
            shares[row] = _character_share(text, int(units[row]))
    return shares, units


def _character_share(text: str, unit: int) -> float:
    count = len(text) - unit + 1
    return 1 - len({text[start : start + unit] for start in range(count)}) / count if count > 0 else 0.0


def repeated_shares(plain: pa.Array) -> Scores:
    """For each text in plain form: 1 − (number of distinct 4-word sequences / number of all 4-word sequences). 0 for a
    text with fewer than four words.
    """
    words = pc.split_pattern(plain, " ")
    counts = lengths(words)
    grams = np.maximum(counts - _NGRAM + 1, 0)
    distinct = _distinct(words.flatten().dictionary_encode(), np.repeat(np.arange(len(plain)), counts), len(plain))
    if distinct is None:  # too many different words for 64 bits, so divide the texts into two halves
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
    packed numbers are sorted, so that distinct numbers can be counted.
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
    packed = np.sort(packed[row_of[:count] == row_of[_NGRAM - 1 :]])  # leave out sequences that span two rows
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


def _equal_words(plain: pa.Array) -> Rows:
    """The texts that repeat one word three or four times and have no other word. Such texts are too short for a 4-word
    sequence that repeats.
    """
    spaces = numbers(pc.count_substring(plain, pattern=" "))
    rows = np.flatnonzero((spaces == 2) | (spaces == 3))
    words = [text.split(" ") for text in plain.take(pa.array(rows)).to_pylist()]
    return rows[[len(set(each)) == 1 for each in words]] if len(rows) else rows


def _read(text: str, share: float, unit: int) -> float:
    """The share of repeated words of a text, line by line. If `share` is not 0, the result is at most `share`. If
    `share` is 0 and the text has at least three lines that are all equal, the result is the share of the lines after
    the first line. Characters count as words if `unit` is not 0.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    plain = [" ".join(line.lower().split()) for line in lines]
    if share and len(lines) == 1:
        return share
    if not share:
        return 1 - 1 / len(plain) if len(plain) > 2 and len(set(plain)) == 1 else 0.0
    words = [list(_NO_LETTER.sub("", line)) if unit else line.split(" ") for line in plain]
    length = unit or _NGRAM
    return min(share, _repeated_words(lines, plain, words, length) / max(sum(map(len, words)) - length + 1, 1))


def _share_in_long_words(text: str) -> float:
    """The share of the characters of a text, without white space, that repeat a sequence of characters in a word of 200
    characters or more. Rulers such as "-----" do not count.
    """
    words = [word for word in _LONG_WORD.findall(text) if not _RULER.fullmatch(word)]
    return sum(len(word) * _character_share(word, _OTHERS) for word in words) / sum(map(len, text.split()))


def _repeated_words(lines: list[str], plain: list[str], words: list[list[str]], length: int) -> int:
    """The number of words in repeated lines and sequences. `plain` holds the lines in plain form, and `words` their
    words. `length` is the number of words of a sequence.
    """
    repeated, last_new, fenced = 0, -1, False
    seen: dict[str, int] = {}
    grams: set[tuple[str, ...]] = set()
    for number, line in enumerate(lines):
        body = _NUMBER.sub("", plain[number])
        before = seen.get(body)
        seen[body] = number
        if before is not None:
            repeated += len(words[number]) if last_new <= before else 0
            continue
        last_new = number
        fence = _FENCE.match(line) is not None
        fenced ^= fence
        counts = not (fenced or fence or _STRUCTURE.search(line))
        for gram in zip(*(words[number][place:] for place in range(length)), strict=False):
            repeated += counts and gram in grams
            grams.add(gram)
    return repeated
