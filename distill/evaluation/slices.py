"""Divides the held-out rows into slices, which are also measured separately, and computes the calibration error.

slices(records)                       # → {"strategy: answer": [0, 2, …], "length: longest third": […], …}
calibration(bins_RBX, clusters, 0)    # → Interval(0.031, 0.024, 0.040)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from distill.held_out import HeldOut
from distill.intervals import RESAMPLES, Array, spread
from synthgen.errors import UserError
from synthgen.results.measures import Interval

BINS = 15
_FEWEST = 8  # minimum number of rows of a slice


def slices(records: Sequence[HeldOut]) -> dict[str, list[int]]:
    """Return the indices of the rows in each slice: by strategy, by correctness of the answer, and by length.

    The lengths of the completions are divided into thirds. When all rows have the same value of a property, there are
    no slices by this property. Slices with fewer than eight rows are left out.
    """
    lengths = [len(r.token_ids or ()) for r in records]
    edges: Array = np.quantile(lengths or [0], [1 / 3, 2 / 3])
    thirds = ("shortest third", "middle third", "longest third")
    answers = {r.id: next((s["value"] for s in r.scores if s["name"] == "answer"), None) for r in records}
    found: dict[str, list[int]] = {}
    for name, values in (
        ("strategy", [r.strategy or "" for r in records]),
        ("answer", ["unchecked" if answers[r.id] is None else "right" if answers[r.id] else "wrong" for r in records]),
        ("length", [thirds[int(np.searchsorted(edges, length))] for length in lengths]),
    ):
        if len(set(values)) > 1:
            for value in sorted(set(values)):
                rows = [n for n, other in enumerate(values) if other == value]
                if len(rows) >= _FEWEST:
                    found[f"{name}: {value}"] = rows
    return found


def calibration_bins(z_TV: torch.Tensor, labels_T: torch.Tensor) -> Array:
    """Divide the positions into 15 bins of equal width by the probability of the likeliest token, and return (15, 3).

    The columns are, for each bin: the number of positions, the sum of these probabilities, and the number of positions
    at which the likeliest token is right.

    Raises UserError when a probability is not a number.
    """
    best_T, choice_T = z_TV.float().softmax(-1).max(-1)
    if bool(best_T.isnan().any()):
        raise UserError(
            "a model gives a token of a held-out row a probability that is not a number, so it cannot be measured",
            "look for NaN in the weights of the student; train again with a lower train.learning_rate",
        )
    place = (best_T * BINS).long().clamp(max=BINS - 1)
    columns = torch.stack([torch.ones_like(best_T), best_T, (choice_T == labels_T).float()], -1).double()
    return np.asarray(torch.zeros(BINS, 3, dtype=torch.float64).index_add_(0, place.cpu(), columns.cpu()).numpy())


def binned(confidence_N: Array, hits_N: Array) -> Array:
    """Return (N, 15, 3): for each of N predictions, the counts of `calibration_bins` for this prediction alone."""
    place = np.minimum((confidence_N * BINS).astype(int), BINS - 1)
    found = np.zeros((len(place), BINS, 3))
    found[np.arange(len(place)), place] = np.stack([np.ones(len(place)), confidence_N, hits_N], -1)
    return found


def calibration(bins_RBX: Array, clusters: Sequence[str], seed: int) -> Interval:
    """Return the expected calibration error of the next token, with its 95% bootstrap interval over clusters.

    The error is defined by Guo et al. 2017, arXiv 1706.04599. The estimate is biased upward in small samples, so
    compare models on the same rows. `chance_error` says how large the bias can be.
    """
    return spread(*calibration_draws(bins_RBX, clusters, seed))


def calibration_draws(bins_RBX: Array, clusters: Sequence[str], seed: int) -> tuple[float, Array]:
    """Return the calibration error, and its value in each bootstrap resample of the clusters. With the same clusters
    and the same seed, all models get the same resamples.
    """
    names, place = np.unique(np.asarray(clusters), return_inverse=True)
    each = np.zeros((len(names), BINS, 3))
    np.add.at(each, place, bins_RBX)
    drawn = np.random.default_rng(seed).integers(0, len(names), (RESAMPLES, len(names)))
    counts = np.stack([np.bincount(row, minlength=len(names)) for row in drawn])
    return float(_error(each.sum(0))), _error(np.tensordot(counts, each, 1))


def chance_error(bins_RBX: Array) -> float:
    """Return the calibration error that a perfectly calibrated model with these confidences would show by chance alone.

    In a bin with n predictions of mean confidence p, the number of hits then has a variance of at most n·p·(1 − p). Its
    distribution is treated as normal. The mean absolute deviation of a normal distribution is √(2/π) of its standard
    deviation. Predictions are treated as independent.
    """
    count_B, sure_B, _ = bins_RBX.sum(0).T
    mean_B = sure_B / count_B.clip(1)
    return float(np.sqrt(2 / np.pi * count_B * (mean_B * (1 - mean_B)).clip(0)).sum() / count_B.sum())


def _error(bins: Array) -> Array:
    """Return Σ |hits − probability| / Σ tokens over the bins, the calibration error. `bins` is (…, 15, 3), and the
    result is (…).
    """
    return np.asarray(np.abs(bins[..., 2] - bins[..., 1]).sum(-1) / bins[..., 0].sum(-1))
