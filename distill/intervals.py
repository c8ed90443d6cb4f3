"""Means with their 95% intervals: a percentile bootstrap that draws whole clusters with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000

Array = np.ndarray[Any, np.dtype[Any]]


def interval(sums_R: Array, weights_R: Array, clusters: Sequence[str], seed: int) -> dict[str, float]:
    """Mean a token with its 95% percentile bootstrap interval; whole clusters are drawn with replacement."""
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    total = np.bincount(place, sums_R, len(names))
    weight = np.bincount(place, weights_R, len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    means = total[drawn].sum(1) / weight[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(sums_R.sum() / weights_R.sum()), "low": float(low), "high": float(high)}
