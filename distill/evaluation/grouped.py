"""Means over held-out rows, with intervals from a bootstrap that draws whole groups of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.intervals import Array, interval
from synthgen.results.measures import Interval, Value

SHARE, DIFFERENCE = (0.0, 1.0), (-1.0, 1.0)
_TAIL = 0.025  # the probability outside a 95% interval on each side


@dataclass(frozen=True)
class Scale:
    """How means and their intervals are computed: the rows' groups, and the seed of the bootstrap."""

    groups: Sequence[str]
    seed: int

    def of(self, sums_R: Array, weights_R: Array | None = None, places: Sequence[int] | None = None) -> Value:
        """Σ sums / Σ weights over the rows, or over the rows `places`. The value is a plain number when all these rows
        belong to one group, because a bootstrap needs several groups. None when there are no rows, or when a group has
        no weight.
        """
        chosen = np.arange(len(self.groups)) if places is None else np.asarray(places, int)
        weights_R = np.ones(len(self.groups)) if weights_R is None else weights_R
        names, group_of = np.unique(np.asarray(self.groups)[chosen], return_inverse=True)
        if not len(chosen) or not np.bincount(group_of, weights_R[chosen]).all():
            return None
        if len(names) == 1:
            return float(sums_R[chosen].sum() / weights_R[chosen].sum())
        return interval(sums_R[chosen], weights_R[chosen], list(names[group_of]), self.seed)

    def known(self, values_R: Array, bounds: tuple[float, float] | None = SHARE) -> Value:
        """The mean of the values that are not NaN, with its interval. None when all are NaN.

        `bounds` are the smallest and the largest possible value: SHARE, DIFFERENCE (of shares), or None for values
        without bounds. When all values are equal, all resamples have the same mean, and the bootstrap would give an
        interval without width. The interval is then computed from the bounds. If the G groups that were measured
        agree, at most the share 1 − 0.025^(1/G) of all groups has another value (Clopper and Pearson, Biometrika 26,
        1934). The other value may be any value between the bounds.
        """
        places = [int(n) for n in np.flatnonzero(~np.isnan(values_R))]
        return widened(self.of(values_R, places=places), bounds, len({self.groups[n] for n in places}))


def widened(value: Value, bounds: tuple[float, float] | None, groups: int) -> Value:
    """A mean of shares of a number of groups, with an interval that is not a point; see `Scale.known`."""
    if bounds is None or not isinstance(value, Interval) or value.low < value.high:
        return value
    low, high = bounds
    differ = 1 - _TAIL ** (1 / groups)
    return Interval(value.mean, value.mean - differ * (value.mean - low), value.mean + differ * (high - value.mean))
