"""Membership: can the rows that a student learned be told from rows of the same kind that it did not learn?

Four scores are computed for each row. A higher score means that the row is more likely to be a learned row.

- loss: the mean log-probability of the completion's tokens (Yeom et al., CSF 2018).
- min-k%: the mean of the lowest 20% of these log-probabilities, but of at least one token (Shi et al., "Detecting
  Pretraining Data from Large Language Models", ICLR 2024).
- zlib: the log-probability of the completion, divided by the number of bytes of its text after compression by zlib
  (Carlini et al., USENIX Security 2021).
- ratio: the loss score, minus the loss score under the untrained student (Carlini et al., S&P 2022, with one reference
  model).

The area under the ROC curve (AUC) is the probability that a learned row has a higher score than a row that was held
out. The AUC is 0.5 without a leak. Its interval is DeLong's (Biometrics 44, 1988), which needs independent rows.
Therefore only one row of each seed is used.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthgen.auditing.statistics import Estimate, Numbers, difference, quantile

MARGIN = 0.05
"""The smallest difference from an AUC of 0.5 that matters."""
SHARE = 0.2
"""The share of tokens whose log-probabilities min-k% uses."""
NULL = 0.5


def loss(tokens: Sequence[Numbers]) -> Numbers:
    """(N,): the mean log-probability of each row's tokens, in nats a token."""
    return np.array([float(one.mean()) for one in tokens])


def min_k(tokens: Sequence[Numbers], share: float = SHARE) -> Numbers:
    """(N,): the mean of the lowest log-probabilities of each row, in nats a token. `share` is the share of the tokens
    that is used, but at least one token is used.
    """
    return np.array([float(np.sort(one)[: max(1, int(len(one) * share))].mean()) for one in tokens])


def by_zlib(tokens: Sequence[Numbers], texts: Sequence[str]) -> Numbers:
    """(N,): the sum of each row's log-probabilities, divided by the number of bytes of the text after compression.
    zlib adds a header, so the number of bytes is never 0.
    """
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    return np.array([float(one.sum()) / size for one, size in zip(tokens, sizes, strict=True)])


def auc(members: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> Estimate:
    """The AUC with DeLong's standard error. A pair of equal scores counts as one half.

    If all members have higher scores than all others, or all have lower scores, the standard error is 0. Then the
    interval has the half-width 1 − 0.025^(1/n), where n is the number of rows of the smaller side. NaN when one side
    has fewer than two rows, or when a score is not a number.
    """
    both = np.concatenate([members, others])
    if min(len(members), len(others)) < 2 or not np.isfinite(both).all():
        return Estimate(math.nan, math.nan, math.nan, len(both), len(both))
    above = _above(members, others)  # for each member, the share of others below it
    below = 1 - _above(others, members)  # for each other row, the share of members above it
    first = np.arange(len(both)) < len(members)
    # the mean of `above` minus the mean of −below has the variance of DeLong's AUC
    found = difference(np.concatenate([above, -below]), np.arange(len(both)), first)
    value = float(above.mean())
    if found.error > 1e-12:
        return Estimate(value, found.error, found.degrees, found.n, found.clusters)
    fewer = min(len(members), len(others))
    half = 1 - 0.025 ** (1 / fewer)
    return Estimate(value, half / quantile(0.975, fewer - 1), fewer - 1, found.n, found.clusters)


def _above(scores: Numbers, others: Numbers) -> Numbers:
    """For each score, the share of `others` below it; equal scores count one half."""
    ordered = np.sort(others)
    low, high = (np.searchsorted(ordered, scores, side) for side in ("left", "right"))
    return np.asarray((low + high) / 2 / len(others), float)
