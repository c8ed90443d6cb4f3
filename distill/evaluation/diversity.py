"""Measures how varied the texts of several models are, after the texts are cut to equal length.

    diverse({"teacher": texts, "student": other_texts}, Scale(groups, 0))     # two entries of the loss statement

Longer texts repeat more words, so they have a smaller share of distinct words. Therefore each answer is cut to the
number of words of the shortest answer to the same prompt. Then all models have equally many words for each prompt.

    distinct-2   distinct pairs of adjacent words / all pairs (Li et al. 2016, arXiv 1510.03055)
    self-BLEU    the mean BLEU-4 of each text, with all other texts of the model as references (Zhu et al. 2018, arXiv
                 1802.01886)

A bootstrap would draw the same text several times, and the diversity would seem too small. Therefore the intervals come
from the jackknife, which leaves out one block of groups at a time (Efron and Tibshirani 1993, chapter 11).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill.evaluation.grouped import Scale
from distill.intervals import Array
from synthgen.results.measures import Interval, Value
from synthgen.results.statement import FEWEST, Entry

_ALONE = r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
"""Characters of scripts without spaces. Each of them counts as one word."""
_WORD = re.compile(rf"{_ALONE}|(?:(?!{_ALONE})\w)+|[^\w\s]")
LEAST = 50
"""The minimum number of pairs of words from which diversity is computed."""
_MOST = 1000  # the maximum number of prompts that are compared
_BLOCKS = 20
_ORDERS = 4  # BLEU counts sequences of one to four words
_SMALL = 0.1  # replaces a count of 0 matches: "method 1" of Chen and Cherry 2014, aclanthology W14-3346

# The 97.5% quantiles of Student's t for 1 to 19 degrees of freedom: NIST/SEMATECH e-Handbook of Statistical Methods,
# section 1.3.6.7.2.
_T: tuple[float, ...] = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_T += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093)

DISTINCT = Entry(
    dimension="diversity",
    measure="distinct pairs of words",
    format="percent",
    better="higher",
    note="distinct pairs of adjacent words as a share of all pairs, over all answers together (distinct-2, "
    "arXiv 1510.03055)",
)
SELF_BLEU = Entry(
    dimension="diversity",
    measure="self-BLEU",
    better="lower",
    note="how much an answer repeats word sequences of the model's other answers, from 0 to 1 (arXiv 1802.01886)",
)


def words(text: str) -> list[str]:
    """The words and punctuation marks of a text in lower case. In a script without spaces, each character is a word."""
    return _WORD.findall(text.lower())


def diverse(texts: Mapping[str, Sequence[str]], scale: Scale) -> list[Entry]:
    """The entries DISTINCT and SELF_BLEU for the texts that each model wrote. Each model wrote one text for each
    prompt. `scale` has the prompts' groups.

    If a model wrote too little, it is left out, because the texts of all models are cut to the shortest.
    """
    found = {role: [words(text) for text in some[:_MOST]] for role, some in texts.items()}
    chosen, missing = _long_enough(found)
    shortest = [min(map(len, some)) for some in zip(*chosen.values(), strict=True)]
    places = [n for n, length in enumerate(shortest) if length > 1]  # other texts have no pair of words
    cut = {role: [some[n][: shortest[n]] for n in places] for role, some in chosen.items()}
    names = [scale.groups[n] for n in places]
    groups = len(set(names))
    if chosen and groups < FEWEST:
        cut, missing = {}, {"student": f"the answers are of {groups} groups, and {FEWEST} are needed"}
    blocks, used = _blocks(names, scale.seed), len(places)
    entries = []
    for entry, measure in ((DISTINCT, distinct), (SELF_BLEU, self_bleu)):
        note = (
            f"{entry.note}. Each answer was cut to the length of the shortest answer to its prompt, so each model has"
        )
        note += f" {sum(shortest[n] for n in places):,} words."
        values = _values({role: _jackknife(Grams.of(some), blocks, measure) for role, some in cut.items()})
        entries.append(replace(entry.valued(values), n=used, groups=groups, unit="prompts", note=note, missing=missing))
    return entries


def _long_enough(found: Mapping[str, list[list[str]]]) -> tuple[dict[str, list[list[str]]], dict[str, str]]:
    """The texts of the models that can be compared, and for each other model the reason why it cannot. The student
    comes first.
    """
    chosen: dict[str, list[list[str]]] = {}
    missing = {}
    for role in sorted(found, key=("student", "teacher", "base").index):
        together = [*chosen.values(), found[role]]
        pairs = sum(max(min(map(len, some)) - 1, 0) for some in zip(*together, strict=True))
        if pairs >= LEAST:
            chosen[role] = found[role]
        else:
            missing[role] = f"cut to equal length, the answers have {pairs:,} pairs of words, and {LEAST} are needed"
        if "student" in missing:
            return {}, missing
    return chosen, missing


@dataclass(frozen=True)
class Grams:
    """The sequences of words in N texts. Each of `texts`, `ids` and `counts` has one array for each order from 1 to 4.
    An element stands for one distinct sequence in one text: the number of the text, the number of the sequence, and how
    often the text has the sequence.
    """

    texts: list[Array]
    ids: list[Array]
    counts: list[Array]
    size: int

    @classmethod
    def of(cls, lines: Sequence[Sequence[str]]) -> Grams:
        texts, ids, counts = [], [], []
        for order in range(1, _ORDERS + 1):
            numbers: dict[tuple[str, ...], int] = {}
            pairs = [
                (text, numbers.setdefault(tuple(line[start : start + order]), len(numbers)))
                for text, line in enumerate(lines)
                for start in range(len(line) - order + 1)
            ]
            both = np.array(pairs, np.int64).reshape(-1, 2)
            unique, count = np.unique(both, axis=0, return_counts=True)
            texts.append(unique[:, 0])
            ids.append(unique[:, 1])
            counts.append(count)
        return cls(texts, ids, counts, len(lines))

    def without(self, left_out_N: Array) -> Grams:
        """The sequences of the texts that are not left out."""
        keep = [~left_out_N[text] for text in self.texts]
        texts, ids, counts = (
            [one[some] for one, some in zip(each, keep, strict=True)] for each in (self.texts, self.ids, self.counts)
        )
        return Grams(texts, ids, counts, self.size)


def distinct(grams: Grams) -> float:
    """The number of distinct pairs of words / the number of pairs. NaN when there are no pairs."""
    total = grams.counts[1].sum()
    return float(len(np.unique(grams.ids[1])) / total) if total else float("nan")


def self_bleu(grams: Grams) -> float:
    """The mean over the texts of BLEU-4, with all other texts as references. For a text of fewer than four words, fewer
    orders are used. There is no penalty for brevity, because all models have texts of the same length. NaN when no text
    has a pair of words.
    """
    logs, orders = np.zeros(grams.size), np.zeros(grams.size)
    for text, ids, counts in zip(grams.texts, grams.ids, grams.counts, strict=True):
        matched = np.bincount(text, np.minimum(counts, _elsewhere(text, ids, counts)), grams.size)
        total = np.bincount(text, counts, grams.size)
        there = total > 0
        orders += there
        logs[there] += np.log(np.where(matched[there] > 0, matched[there], _SMALL) / total[there])
    some = orders > 1
    return float(np.exp(logs[some] / orders[some]).mean()) if some.any() else float("nan")


def _elsewhere(text: Array, ids: Array, counts: Array) -> Array:
    """For each word sequence of each text, the largest count of this sequence in any other text."""
    if not len(ids):
        return np.zeros(0)
    order = np.lexsort((counts, ids))
    last = np.flatnonzero(np.append(np.diff(ids[order]) > 0, True))  # the position of the largest count of each id
    size = int(ids.max()) + 1
    first, owner, second = np.zeros(size), np.full(size, -1), np.zeros(size)
    best = order[last]
    first[ids[best]], owner[ids[best]] = counts[best], text[best]
    before = last[(last > 0)]
    same = before[ids[order[before - 1]] == ids[order[before]]]
    second[ids[order[same]]] = counts[order[same - 1]]
    return np.where(owner[ids] == text, second[ids], first[ids])


def _blocks(groups: Sequence[str], seed: int) -> Array:
    """The block of each text. All texts of a group are in the same block. There are at most 20 blocks, with nearly
    equal numbers of groups.
    """
    names, place = np.unique(np.asarray(groups), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray(order[place] % min(_BLOCKS, max(len(names), 1)))


def _jackknife(grams: Grams, blocks_N: Array, measure: Callable[[Grams], float]) -> tuple[float, Array]:
    """The value of a measure, and its value without each of the blocks."""
    each = [measure(grams.without(blocks_N == block)) for block in np.unique(blocks_N)]
    return measure(grams), np.array(each)


def _values(found: Mapping[str, tuple[float, Array]]) -> dict[str, Value]:
    """The value of each model and the student's differences, with their intervals. If all texts are of one group, a
    value has no interval.
    """
    values: dict[str, Value] = {role: _interval(value, each, 0) for role, (value, each) in found.items()}
    for role in ("teacher", "base"):
        if role in found and "student" in found:
            (own, each), (other, others) = found["student"], found[role]
            values[f"minus_{role}"] = _interval(own - other, each - others, -1)
    return values


def _interval(value: float, each: Array, least: float) -> Value:
    """The 95% interval by the jackknife, within the possible values from `least` to 1. With B blocks, the variance is
    (B − 1) / B · Σ (value without a block − their mean)².
    """
    if not np.isfinite(value):
        return None
    count = len(each)
    if count < 2 or not np.isfinite(each).all():
        return value
    half = _T[count - 2] * float(np.sqrt((count - 1) / count * ((each - each.mean()) ** 2).sum()))
    return Interval(value, max(value - half, least), min(value + half, 1.0))
