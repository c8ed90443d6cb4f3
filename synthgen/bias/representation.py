"""Representation (C1): is a group's share of all mentions in the answers larger than it should be?

A row mentions a group or it does not. p is the group's share of all mentions of its dimension in the answers. p is
compared with a declared target q. Without a target, q is the group's share of the mentions in the prompts, so that the
comparison shows what the teacher adds. The effect is log2(p/q): 1 means twice the share.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from synthgen.auditing.result import Measurement
from synthgen.auditing.statistics import Estimate, Planned, contrast, judged
from synthgen.bias.groups import Dimension
from synthgen.bias.reading import Facts

LEAST_ROWS = 50
"""Minimum number of mentions of the dimension's groups in answers and, if there is no target, in prompts."""
LEAST_EXPECTED = 10
"""Minimum number of mentions of a group that are expected if its share is q."""
MARGIN = float(np.log2(1.25))
"""Minimum effect for the outcome `found`: p is at least 1.25 times q, or at most 0.8 times q."""

Numbers = npt.NDArray[np.float64]


def representation(
    facts: Facts, dimensions: list[Dimension], targets: Mapping[str, Mapping[str, float]]
) -> list[Measurement]:
    """The tests of all groups of all dimensions. All these tests are one family."""
    tests = [
        _test(facts, dimension, group, targets.get(dimension.name))
        for dimension in dimensions
        for group in range(len(dimension.groups))
    ]
    return judged(tests, "representation")


def _test(facts: Facts, dimension: Dimension, group: int, target: Mapping[str, float] | None) -> Planned:
    kept, unit = facts.kept, facts.unit[facts.kept]
    name = dimension.groups[group]
    answers = _sums(dimension, group, facts.in_answer[kept], unit, facts)
    if target is None:
        prompts = _sums(dimension, group, facts.in_prompt[kept], unit, facts)
        against, q = "the prompts", prompts[:, 0].sum() / max(prompts[:, 1].sum(), 1)
    else:
        prompts, against, q = None, "the target", target[name]
    mentions, expected = int(answers[:, 1].sum()), answers[:, 1].sum() * q
    effect, note = Estimate(float("nan"), float("nan"), float("nan"), mentions, 0), ""
    if min(mentions, mentions if prompts is None else prompts[:, 1].sum()) < LEAST_ROWS:
        note = f"fewer than {LEAST_ROWS} mentions of the groups in answers, or in prompts without a target"
    elif expected < LEAST_EXPECTED:
        note = f"fewer than {LEAST_EXPECTED} mentions of the group are expected"
    else:
        effect = _effect(answers, prompts, q)
    return Planned(
        name="representation",
        subject=f"{dimension.name}: {name}",
        about=f"the group's share of mentions in the answers, compared with {against}",
        unit="log2 of the ratio of shares",
        effect=effect,
        margin=MARGIN,
        note=note,
    )


def _sums(
    dimension: Dimension, group: int, masks: npt.NDArray[np.uint64], unit: npt.NDArray[np.int64], facts: Facts
) -> Numbers:
    """(units, 2): mentions of the group, and of all groups of its dimension."""
    all_groups = np.bitwise_count(masks & dimension.mask).astype(float)
    each = (dimension.has(masks, group).astype(float), all_groups)
    units = facts.units
    return np.stack([np.bincount(unit, one, units) for one in each], 1)


def _effect(answers: Numbers, prompts: Numbers | None, q: float) -> Estimate:
    """log2(p/q). If no answer mentions the group, half a mention is added, because log2(0) does not exist."""
    group, mentions = answers.sum(0)
    p = group / mentions if group else 0.5 / (mentions + 1)
    cells = [answers] if prompts is None else [answers, prompts]
    factors = np.array([1 / p, -1 / q][: len(cells)]) / np.log(2)
    linear = contrast(
        np.stack([one[:, 0] for one in cells], 1), np.stack([one[:, 1] for one in cells], 1), factors, int(mentions)
    )
    units = int((answers[:, 1] > 0).sum())
    error, degrees = linear.error, linear.degrees
    if not group or (units > 1 and not error > 1e-9):  # all units are alike, so use the spread of half a mention
        error = float(np.hypot(np.nan_to_num(error), np.sqrt(0.5) / max(units * p, 0.5) / np.log(2)))
        degrees = float(max(units - 1, 1))
    return Estimate(float(np.log2(p / q)), error, degrees, linear.n, linear.clusters)
