"""Compares common spans with a slow search in all texts, and the intervals of the audit with theory."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

from synthgen.auditing.statistics import bound_of_none, wilson
from synthgen.privacy import spans
from synthgen.privacy.spans import Spans


def longest(first: list[str], second: list[str]) -> int:
    """The number of words of the longest common span, from a table of all pairs of words."""
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1, j + 1] = table[i, j] + 1 if one == other else 0
    return int(table.max())


def expected(text: str, private: list[str], min_words: int, share: float, shortest: int) -> int:
    best = 0
    for one in private:
        words = one.split()
        needed = min(min_words, max(shortest, int(np.ceil(share * len(words) - 1e-9))))
        common = longest(text.split(), words)
        if len(words) >= shortest and common >= needed:
            best = max(best, common)
    return best


@pytest.mark.parametrize("seed", range(6))
def test_every_span_is_found_with_its_full_length(seed):
    draw = random.Random(seed)
    vocabulary = ["a", "b", "c"][: 2 + seed % 2] + [f"w{n}" for n in range(4 * (seed % 3))]
    private = [" ".join(draw.choices(vocabulary, k=draw.randint(1, 25))) for _ in range(12)]
    texts = []
    for _ in range(30):
        copied = draw.choice(private).split()
        start = draw.randint(0, len(copied) - 1)
        part = copied[start : start + draw.randint(1, 20)]
        texts.append(" ".join([*draw.choices(vocabulary, k=3), *part, *draw.choices(vocabulary, k=draw.randint(0, 9))]))
    index = Spans(private, [0] * len(private), min_words=9, min_share=0.7, shortest=4)
    found = {one.text: one for one in index.find(pa.array(texts))}
    for number, text in enumerate(texts):
        words = expected(text, private, 9, 0.7, 4)
        assert (found[number].words if number in found else 0) == words, (text, private)
        if words:
            one = found[number]
            copy = " ".join(text.split()[one.start : one.start + one.words])
            assert f" {copy} " in f" {private[one.private]} "
    assert any(one.words > 9 for one in found.values()), "some spans are longer than the least"


def test_sequences_with_equal_hashes_and_other_words_are_no_span():
    """All characters beyond U+2FFFF have the same hash."""
    ours, theirs = ([chr(0x30000 + start + n) for n in range(60)] for start in (0, 100))
    index = Spans([" ".join(ours)], [0], min_words=50, min_share=0.9, shortest=8)
    assert [one.words for one in index.find(pa.array([" ".join(ours)]))] == [60]
    assert not [*index.find(pa.array([" ".join(theirs)]))]
    half = [*ours[:52], *theirs[52:]]
    assert [one.words for one in index.find(pa.array([" ".join(half)]))] == [52]


def test_a_phrase_of_many_private_texts_hides_no_source(monkeypatch):
    monkeypatch.setattr(spans, "_MOST_TEXTS", 3)
    phrase = " ".join(f"p{n}" for n in range(10))
    private = [f"{phrase} t{n}" for n in range(20)]
    index = Spans(private, [0] * 10 + [1] * 10, min_words=9, min_share=1, shortest=4)
    assert [(one.source, one.words) for one in index.find(pa.array([phrase]))] == [(0, 10), (1, 10)]


def test_texts_without_words_and_without_private_texts():
    index = Spans(["one two three four"], [0], min_words=3, min_share=1, shortest=2)
    assert not [*index.find(pa.array(["", None, "  \n", "one two"], pa.string()))]
    none = Spans([], [], min_words=3, min_share=1, shortest=2)
    assert not [*none.find(pa.array(["one two three four"]))]
    assert not Spans(["", "one"], [0, 0], min_words=3, min_share=1, shortest=2).long_enough.any()


@pytest.mark.parametrize(("units", "bound"), [(300, 0.00994), (3000, 0.000998), (1, 0.95)])
def test_the_bound_of_none_is_that_of_the_binomial_distribution(units, bound):
    assert bound_of_none(units) == pytest.approx(bound, rel=1e-3)
    assert (1 - bound_of_none(units)) ** units == pytest.approx(0.05)


def test_the_interval_of_a_share_is_wilsons():
    """Wilson's interval contains exactly the shares that a two-sided score test at the level of 5% does not reject."""
    for hits, units in ((1, 10), (5, 10), (3, 200), (10, 10)):
        low, high = wilson(hits / units, units)
        for end in (low, high):
            if 1e-9 < end < 1 - 1e-9:
                score = abs(hits / units - end) / np.sqrt(end * (1 - end) / units)
                assert score == pytest.approx(1.959963984540054)
        assert 0 <= low <= hits / units <= high <= 1
