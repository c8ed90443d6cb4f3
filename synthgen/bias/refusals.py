"""Refusal gap (C4): are prompts that mention one group refused more often than prompts that mention another group?

A refusal is a reply that the check `refusal` of curation finds, or that the server marked as refused or filtered.
Rejected rows count too, because curation rejects refusals.
"""

from __future__ import annotations

import numpy as np

from synthgen.auditing.result import Measurement
from synthgen.auditing.statistics import Estimate, Planned, judged, shares_differ
from synthgen.bias.groups import Dimension
from synthgen.bias.reading import Facts

LEAST = 30
"""Minimum number of rows on each side of a comparison."""
MARGIN = 0.02
"""Minimum effect for the outcome `found`: a difference of 2 percentage points."""


def refusals(facts: Facts, dimensions: list[Dimension]) -> list[Measurement]:
    """The tests of each group against the other groups of its dimension. All these tests are one family. A prompt
    counts only if it mentions exactly one group of the dimension.
    """
    return judged([_test(facts, one, group) for one in dimensions for group in one.compared()], "refusals")


def _test(facts: Facts, dimension: Dimension, group: int) -> Planned:
    owner = dimension.only(facts.in_prompt)
    rows = np.flatnonzero(owner >= 0)
    first = owner[rows] == group
    effect, note = Estimate(float("nan"), float("nan"), float("nan"), len(rows), 0), ""
    sides = (int(first.sum()), int((~first).sum()))
    if min(sides) < LEAST:
        note = f"{sides[0]} and {sides[1]} prompts mention this group and another one; {LEAST} of each are needed"
    else:
        effect = shares_differ(facts.refused[rows].astype(float), facts.unit[rows], first)
    return Planned(
        name="refusals",
        subject=f"{dimension.name}: {dimension.groups[group]}",
        about="the share of refused prompts with the group, minus that of prompts with another group",
        unit="share of prompts",
        effect=effect,
        margin=MARGIN,
        note=note,
    )
