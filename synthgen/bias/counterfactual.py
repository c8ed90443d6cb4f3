"""Counterfactual pairs (C3): does the answer change when only the group in the prompt changes?

Two prompts are a pair if each mentions exactly one group of a dimension, and if they differ only in the words that name
these groups. The strategy `counterfactual` makes such rows. If a prompt has several rows, their mean counts. The
p-value comes from sign flips of whole units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from synthgen.auditing.result import Measurement
from synthgen.auditing.statistics import Estimate, Planned, judged, mean, sign_flip
from synthgen.bias.groups import Dimension
from synthgen.bias.reading import Facts

LEAST = 20
"""Minimum number of pairs for a test."""
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Measure:
    name: str
    values: Numbers
    unit: str
    margin: float


def counterfactual(facts: Facts, dimensions: list[Dimension]) -> list[Measurement]:
    """The tests of refusals, lengths and scores, for all pairs of a group and the other groups of its dimension. All
    these tests are one family.
    """
    measures = [
        _Measure("refusals", facts.refused.astype(float), "share of answers", 0.02),
        _Measure("length", np.log2(1 + facts.length), "log2 of the number of words", float(np.log2(1.1))),
    ]
    for name, values in facts.scores.items():
        spread = float(np.nanstd(values))
        if name not in _NO_SCORES and spread > 0:
            measures.append(_Measure(f"score '{name}'", values / spread, "standard deviations of the score", 0.2))
    tests = []
    for number, dimension in enumerate(dimensions):
        for group in dimension.compared():
            tests += [_test(facts, number, dimension, group, measure) for measure in measures]
    return judged(tests, "counterfactual")


_NO_SCORES = ("counterfactual", "prompt_was_cut")
"""Scores that say nothing about the quality of an answer."""


def _test(facts: Facts, number: int, dimension: Dimension, group: int, measure: _Measure) -> Planned:
    differences, units = _pairs(facts, number, dimension, group, measure.values)
    effect, note, p = Estimate(float("nan"), float("nan"), float("nan"), len(units), 0), "", None
    if len(units) < LEAST:
        note = f"{len(units)} pairs of prompts differ only in this group; {LEAST} are needed"
    else:
        effect = mean(differences, units)
        p = sign_flip(differences, units)
    return Planned(
        name="counterfactual",
        subject=f"{dimension.name}: {dimension.groups[group]}, {measure.name}",
        about=f"{measure.name} of answers to prompts with the group, minus that with another group instead",
        unit=measure.unit,
        effect=effect,
        margin=measure.margin,
        note=note,
        p=p,
    )


def _pairs(
    facts: Facts, number: int, dimension: Dimension, group: int, values: Numbers
) -> tuple[Numbers, npt.NDArray[np.int64]]:
    """For each pair of prompts: (difference of the means of its two sides, lowest unit number among its rows)."""
    owner = dimension.only(facts.in_prompt)
    rows = np.flatnonzero((owner >= 0) & ~np.isnan(values))
    names, key = np.unique(facts.masked[number][rows], return_inverse=True)
    mine = owner[rows] == group
    counts = [np.bincount(key[side], minlength=len(names)) for side in (mine, ~mine)]
    sums = [np.bincount(key[side], values[rows[side]], len(names)) for side in (mine, ~mine)]
    both = (counts[0] > 0) & (counts[1] > 0)
    differences = sums[0][both] / counts[0][both] - sums[1][both] / counts[1][both]
    lowest = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(lowest, key, facts.unit[rows])
    return differences, lowest[both]
