"""Means with 95% intervals from a percentile bootstrap that draws whole clusters with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from synthgen.results.measures import Interval

RESAMPLES = 2000

Array = np.ndarray[Any, np.dtype[Any]]


def interval(sums_R: Array, weights_R: Array, clusters: Sequence[str], seed: int) -> Interval:
    """Return Σ sums / Σ weights over the R rows, with its 95% percentile bootstrap interval.

    Rows of one cluster are not independent. Whole clusters are therefore drawn with replacement, `RESAMPLES` times.
    """
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    total = np.bincount(place, sums_R, len(names))
    weight = np.bincount(place, weights_R, len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    means = total[drawn].sum(1) / weight[drawn].sum(1)
    return spread(float(sums_R.sum() / weights_R.sum()), means)


def spread(mean: float, draws: Array) -> Interval:
    """Return the value `mean` with the 2.5% and 97.5% quantiles of its bootstrap draws."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(mean, float(low), float(high))
