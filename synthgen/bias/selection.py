"""Selection (C5): does curation drop rows about one group more often than other rows?

The effect is log2(P(kept | group) / P(kept)), for curation as a whole and for each of its rules. For a single rule, a
row counts as kept unless this rule rejected it, whatever the other rules did. A ratio below 0.8 matters, as in the
four-fifths rule of the US Uniform Guidelines on Employee Selection Procedures (1978), and so does a ratio above 1.25.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from synthgen.auditing.result import Measurement
from synthgen.auditing.statistics import Estimate, Planned, contrast, judged
from synthgen.bias.groups import Dimension
from synthgen.bias.reading import Facts

LEAST = 30
"""Minimum number of rows that mention the group."""
MARGIN = float(np.log2(1.25))
CURATION = "curation"
"""The name of all rules together."""


def selection(facts: Facts, dimensions: list[Dimension]) -> list[Measurement]:
    """The tests of all rules and groups. They are one family. Empty if curation rejected no row."""
    if facts.kept.all():
        return []
    passed = {CURATION: facts.kept, **{rule: ~rejected for rule, rejected in facts.rejected_by.items()}}
    tests = []
    for dimension in dimensions:
        for group in range(len(dimension.groups)):
            inside = dimension.has(facts.in_prompt | facts.in_answer, group)
            tests += [
                _test(facts, f"{dimension.name}: {dimension.groups[group]}", inside, *one) for one in passed.items()
            ]
    return judged(tests, "selection")


def _test(facts: Facts, subject: str, inside: npt.NDArray[np.bool_], rule: str, kept: npt.NDArray[np.bool_]) -> Planned:
    rows = int(inside.sum())
    effect, note = Estimate(float("nan"), float("nan"), float("nan"), rows, 0), ""
    if rows < LEAST:
        note = f"{rows} rows mention the group; {LEAST} are needed"
    elif not kept.any():
        note = "no row was kept"
    else:
        effect = _effect(facts, inside, kept)
    return Planned(
        name="selection",
        subject=f"{subject}, {rule}",
        about="the share of kept rows among those that mention the group, compared with all rows",
        unit="log2 of the ratio of shares",
        effect=effect,
        margin=MARGIN,
        note=note,
    )


def _effect(facts: Facts, inside: npt.NDArray[np.bool_], kept: npt.NDArray[np.bool_]) -> Estimate:
    """Half a row is added to the kept and to the dropped rows of the group, so the ratio is never 0."""
    units = facts.units
    sums = np.stack([np.bincount(facts.unit, weights, units) for weights in (kept & inside, kept)], 1)
    sizes = np.stack([np.bincount(facts.unit, weights, units) for weights in (inside, np.ones(facts.count))], 1)
    of_group = (sums[:, 0].sum() + 0.5) / (sizes[:, 0].sum() + 1)
    overall = sums[:, 1].sum() / facts.count
    factors = np.array([1 / of_group, -1 / overall]) / np.log(2)
    linear = contrast(sums, sizes, factors, int(inside.sum()))
    error, degrees = linear.error, linear.degrees
    if sums[:, 0].sum() in (0, inside.sum()):  # all rows of the group were kept, or none, so they show no spread
        carriers = int((sizes[:, 0] > 0).sum())
        least = np.sqrt(of_group * (1 - of_group) / max(carriers, 1)) / of_group / np.log(2)
        error, degrees = float(max(np.nan_to_num(error), least)), float(max(carriers - 1, 1))
    return Estimate(float(np.log2(of_group / overall)), error, degrees, linear.n, int((sizes[:, 0] > 0).sum()))
