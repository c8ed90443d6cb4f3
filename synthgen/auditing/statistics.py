"""Effects with intervals for the tests of bias. The unit is the cluster: rows of one cluster are not independent.

A cluster is a seed, a group of near duplicates, or a template. Values and clusters are numpy arrays: a value for each
row, and the index of each row's cluster.

    effect = difference(refused, clusters, of_first_group)   # an Estimate
    effect.interval()                                        # its 95% interval
    adjusted = holm([effect.p_value(), ...])                 # p-values, corrected for the number of tests
    outcome(effect, adjusted[0], margin=0.02)                # found, absent or inconclusive

Variances come from linearization. The clusters' residuals have the correction CR3, which is the jackknife over
clusters, and the degrees of freedom are Satterthwaite's (Bell and McCaffrey, Survey Methodology 28, 2002; Pustejovsky
and Tipton, Journal of Business and Economic Statistics 36, 2018). The residuals are scaled so that the variance is
unbiased if rows are independent. `benchmarks/bias_of_corpus.py` shows how often the intervals contain the true value.
scipy (extra `audit`) is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from synthgen.auditing.result import Measurement, Outcome

Array = npt.NDArray[Any]
Numbers = npt.NDArray[np.float64]

LEVEL = 0.05
"""The level of significance: the share of tests that find an effect where there is none."""
POWER = 0.8
"""The share of data sets in which an effect of the size `detectable` is found."""
PLANNED = 20
"""The largest number of tests for which `holm` is meant. Scans of many words use `benjamini_hochberg`."""


@dataclass(frozen=True)
class Estimate:
    """An effect: its `value`, its standard `error`, and the `degrees` of freedom of Student's t.

    The effect was computed from `n` rows in `clusters` clusters. `error` and `degrees` are NaN when there are too few
    clusters.
    """

    value: float
    error: float
    degrees: float
    n: int
    clusters: int

    @property
    def measurable(self) -> bool:
        """Whether the effect has an interval."""
        return bool(np.isfinite([self.value, self.error, self.degrees]).all() and self.error > 0)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The confidence interval, (low, high). Both ends are NaN when the effect is not measurable."""
        half = quantile(0.5 + level / 2, self.degrees) * self.error if self.measurable else np.nan
        return self.value - half, self.value + half

    def p_value(self, null: float = 0.0) -> float:
        """The two-sided p-value of the hypothesis that the effect is `null`. 1 when the effect is not measurable."""
        from scipy import special

        if not self.measurable:
            return 1.0
        return float(2 * special.stdtr(self.degrees, -abs(self.value - null) / self.error))

    def detectable(self, margin: float = 0.0, tests: int = 1) -> float:
        """The smallest effect that a test of data like these finds with a power of 80%. NaN when the effect is not
        measurable.

        An effect is found if its p-value is below 5% divided by `tests`, and its estimate is at least `margin`. The
        result is max(t(1 − 0.05/2/tests)·error, margin) + t(0.8)·error: Bloom, Evaluation Review 19 (1995).
        """
        if not self.measurable:
            return float("nan")
        least = max(quantile(1 - LEVEL / 2 / max(tests, 1), self.degrees) * self.error, margin)
        return least + quantile(POWER, self.degrees) * self.error

    def logged(self) -> Estimate:
        """The logarithm to the base 2 of a positive effect, such as a ratio. The error of the logarithm comes from the
        delta method.
        """
        if not self.value > 0:
            return Estimate(float("nan"), float("nan"), float("nan"), self.n, self.clusters)
        error = self.error / (self.value * np.log(2))
        return Estimate(float(np.log2(self.value)), float(error), self.degrees, self.n, self.clusters)


def quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t with these degrees of freedom, which may be a fraction."""
    from scipy import special

    return float(special.stdtrit(degrees, probability))


def mean(values: Array, clusters: Array) -> Estimate:
    """The mean of all rows' values."""
    return ratio(values, np.ones(len(values)), clusters)


def ratio(numerators: Array, denominators: Array, clusters: Array) -> Estimate:
    """Σ numerators / Σ denominators. No denominator is negative. A row with denominator 0 may have any numerator."""
    place, number = _numbered(clusters)
    sums, sizes = (np.bincount(place, one, number)[:, None] for one in (numerators, denominators))
    return contrast(sums, sizes, np.ones(1), len(numerators))


def paired(first: Array, second: Array, clusters: Array) -> Estimate:
    """The mean of first − second, which are values of the same rows under two conditions, such as two models or two
    names in a prompt.
    """
    return mean(np.asarray(first, float) - np.asarray(second, float), clusters)


def difference(values: Array, clusters: Array, in_first: Array) -> Estimate:
    """The mean of the rows where `in_first` is true, minus the mean of the other rows."""
    place, number = _numbered(clusters)
    cells = np.where(np.asarray(in_first, bool), 0, 1) + 2 * place
    sums = np.bincount(cells, values, 2 * number).reshape(-1, 2)
    sizes = np.bincount(cells, minlength=2 * number).reshape(-1, 2)
    return contrast(sums, sizes, np.array([1.0, -1.0]), len(values))


def contrast(sums: Array, sizes: Array, factors: Array, n: int) -> Estimate:
    """Σ_k factors[k]·(Σ_c sums[c, k] / Σ_c sizes[c, k]): a combination of K means. Each mean is over its own rows, and
    the rows are in C clusters.

    `sums` and `sizes` are (C, K). Let size_k be Σ_c sizes[c, k], s_ck = sizes[c, k] / size_k, and r_ck = sums[c, k] −
    s_ck·Σ_c sums[c, k]. A cluster's part of the error is u_c = Σ_k factors[k]·r_ck / (size_k·(1 − s_ck)). The variance
    is Σ u_c², scaled so that it is unbiased if rows are independent. With Ω as the covariance of all u_c for
    independent rows, the degrees of freedom are (tr Ω)² / tr Ω².
    """
    sums, sizes, factors = (np.asarray(one, float) for one in (sums, sizes, factors))
    total = sizes.sum(0)
    clusters = int((sizes > 0).any(1).sum())
    if not (total > 0).all():
        return Estimate(float("nan"), float("nan"), float("nan"), n, clusters)
    value = float(factors @ (sums.sum(0) / total))
    shares = sizes / total
    if ((sizes > 0).sum(0) < 2).any():
        return Estimate(value, float("nan"), float("nan"), n, clusters)
    weights = factors / total / (1 - shares)
    parts = (weights * (sums - shares * sums.sum(0))).sum(1)
    own, spread = weights * sizes, weights * shares  # Ω = diag(d) − own·spread′ − spread·own′ + spread·T·spread′
    d, t = (own * weights).sum(1), np.diag(total)
    diagonal = d - 2 * (own * spread).sum(1) + (spread**2 * total).sum(1)
    a, b, c = own.T @ own, own.T @ spread, spread.T @ spread
    squares = (d * (2 * diagonal - d)).sum() + 2 * np.sum(a * c) + 2 * np.sum(b * b.T)
    squares += np.trace(t @ c @ t @ c) - 4 * np.trace(b @ t @ c)
    expected = diagonal.sum()
    variance = (parts**2).sum() * (factors**2 / total).sum() / expected
    return Estimate(value, float(np.sqrt(variance)), float(expected**2 / squares), n, clusters)


def shares_differ(hits: Array, clusters: Array, in_first: Array) -> Estimate:
    """Like `difference` for hits that are 0 or 1. If no row is a hit, or if all rows are hits, the rows show no spread.
    Then the interval is ±(1 − 0.025^(1/clusters)), with the number of clusters in the smaller group. This is the
    interval for no hit among as many independent rows as there are clusters (Clopper and Pearson, Biometrika 26, 1934).
    """
    found = difference(hits, clusters, in_first)
    first = np.asarray(in_first, bool)
    return _bounded(found, min(len(np.unique(clusters[part])) for part in (first, ~first)))


def share(hits: Array, clusters: Array) -> Estimate:
    """Like `mean` for hits that are 0 or 1. There is an interval even if no row is a hit, or if all rows are hits."""
    return _bounded(mean(hits, clusters), len(np.unique(clusters)))


def _bounded(found: Estimate, clusters: int) -> Estimate:
    if found.error > 1e-12 or clusters < 2 or np.isnan(found.error):
        return found
    half = 1 - 0.025 ** (1 / clusters)
    return Estimate(found.value, half / quantile(0.975, clusters - 1), clusters - 1, found.n, found.clusters)


def crossed(differences: Array, clusters: Array) -> Estimate:
    """The mean of `differences` (S, N): N items, each measured with S training seeds. Both seeds and the clusters of
    items are samples, so the result holds for other seeds and other items.

    The variance is the variance of the items' means over seeds. If the seeds differ by more than the noise of their
    items, the variance of the seeds' means is added. The degrees of freedom are Satterthwaite's. The variance is close
    to the variance with two-way clusters (Cameron, Gelbach and Miller, Journal of Business and Economic Statistics 29,
    2011), and never less than the variance with clusters of items alone. In simulations with 3 or 5 seeds the 95%
    interval contained the true value in 92% to 98% of all cases. The coverage was lowest with 3 seeds that differ much.
    With one seed, the result holds for this seed only.
    """
    values = np.atleast_2d(np.asarray(differences, float))
    seeds = len(values)
    over_items = mean(values.mean(0), clusters)
    if seeds < 2 or not over_items.measurable:
        return over_items
    place, number = _numbered(clusters)
    means = values.mean(1)
    of_seeds = means.var(ddof=1) / seeds
    sums = np.array([np.bincount(place, one - middle, number) for one, middle in zip(values, means, strict=True)])
    both = ((sums - sums.mean(0)) ** 2).sum() / (seeds - 1) / seeds / values.shape[1] ** 2 * number / (number - 1)
    if of_seeds <= both:
        return over_items
    variance = over_items.error**2 + of_seeds
    degrees = variance**2 / (over_items.error**4 / over_items.degrees + of_seeds**2 / (seeds - 1))
    return Estimate(over_items.value, float(np.sqrt(variance)), float(degrees), over_items.n, over_items.clusters)


def bootstrap(
    sums: Array, statistic: Callable[[Array], Array], draws: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of any statistic of clusters' sums, from draws of whole clusters with replacement.

    `sums` is (C, M): M sums for each cluster. `statistic` maps sums over all clusters (draws, M) to (draws,). Use this
    function for at least 30 clusters of similar sizes. With fewer clusters, the interval is too short (see `contrast`).
    """
    sums = np.asarray(sums, float)
    rng = np.random.default_rng(seed)
    values = [
        statistic(rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size) @ sums)
        for size in _sizes(draws, max(1, 4_000_000 // max(len(sums), 1)))
    ]
    low, high = np.nanquantile(np.concatenate(values), [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _sizes(total: int, most: int) -> list[int]:
    return [min(most, total - start) for start in range(0, total, most)]


def sign_flip(values: Array, clusters: Array, flips: int = 10_000, seed: int = 0) -> float:
    """The two-sided p-value of the hypothesis that the clusters' sums (such as sums of paired differences) are
    symmetric about zero: Fisher, The Design of Experiments (1935). If at most `flips` sign changes are possible, all of
    them are tried. Otherwise `flips` random sign changes are tried, and the smallest possible p-value is 1/(flips + 1).
    """
    place, number = _numbered(clusters)
    sums = np.bincount(place, values, number)
    sums = sums[sums != 0]
    if not len(sums):
        return 1.0
    least = abs(sums.sum()) * (1 - 1e-12)
    if len(sums) < 60 and 2 ** len(sums) <= flips:
        bits = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float((np.abs((1 - 2 * bits) @ sums) >= least).mean())
    rng = np.random.default_rng(seed)
    reached = 0
    for size in _sizes(flips, max(1, 8_000_000 // len(sums))):
        signs = 1 - 2 * rng.integers(0, 2, (size, len(sums)), dtype=np.int8)
        reached += int((np.abs(signs @ sums) >= least).sum())
    return (1 + reached) / (1 + flips)


def holm(p_values: Sequence[float] | Array) -> Numbers:
    """Corrected p-values of planned tests. With these p-values, the chance of any false finding is at most the level.
    Holm, Scandinavian J. of Statistics 6 (1979).
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return _in_place(np.minimum(stepped, 1.0), order)


def benjamini_hochberg(p_values: Sequence[float] | Array) -> Numbers:
    """Corrected p-values of a scan. Among the findings with a corrected p-value below 5%, at most about 5% are false.
    Benjamini and Hochberg, J. of the Royal Statistical Society B 57 (1995).
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p, kind="stable")
    stepped = p[order] * len(p) / np.arange(1, len(p) + 1)
    return _in_place(np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0), order)


def _in_place(ordered: Numbers, order: Array) -> Numbers:
    adjusted = np.empty(len(ordered))
    adjusted[order] = ordered
    return adjusted


def outcome(estimate: Estimate, corrected_p: float, margin: float) -> Outcome:
    """The outcome of a test. `found`: the corrected p-value is below 5%, and the effect is at least `margin`. `absent`:
    the 90% interval lies within ±margin, which is the test of equivalence TOST at the level 5% (Schuirmann, Journal of
    Pharmacokinetics and Biopharmaceutics 15, 1987). `not measurable`: there is no interval. `inconclusive`: all other
    cases.
    """
    if not estimate.measurable:
        return "not measurable"
    if corrected_p < LEVEL and abs(estimate.value) >= margin:
        return "found"
    low, high = estimate.interval(0.9)
    return "absent" if -margin < low and high < margin else "inconclusive"


@dataclass(frozen=True)
class Planned:
    """A planned test: its effect, and the facts about the test that a `Measurement` states. `p` replaces the effect's
    own p-value, for example with the p-value of `sign_flip`.
    """

    name: str
    subject: str
    about: str
    unit: str
    effect: Estimate
    margin: float
    note: str = ""
    p: float | None = None


def judged(tests: Sequence[Planned], family: str) -> list[Measurement]:
    """The measurements of one family of planned tests, with Holm's correction for all measurable tests."""
    measurable = [one for one in tests if one.effect.measurable]
    p_values = [one.effect.p_value() if one.p is None else one.p for one in measurable]
    adjusted = {id(one): (p, q) for one, p, q in zip(measurable, p_values, holm(p_values).tolist(), strict=True)}
    return [_measurement(one, family, len(measurable), *adjusted.get(id(one), (None, None))) for one in tests]


def _measurement(test: Planned, family: str, tests: int, p: float | None, corrected: float | None) -> Measurement:
    effect = test.effect
    low, high = effect.interval()
    return Measurement(
        name=test.name,
        subject=test.subject,
        about=test.about,
        unit=test.unit,
        outcome=outcome(effect, 1.0 if corrected is None else corrected, test.margin),
        n=effect.n,
        clusters=effect.clusters,
        estimate=_number(effect.value),
        low=_number(low),
        high=_number(high),
        p=p,
        corrected_p=corrected,
        family=family,
        detectable=_number(effect.detectable(test.margin, tests)),
        margin=test.margin,
        note=test.note or ("" if effect.measurable else "too few clusters, or all rows are alike"),
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def share_interval(hits: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share of independent trials: Clopper and Pearson, Biometrika 26 (1934)."""
    from scipy import special

    tail = (1 - level) / 2
    low = float(special.betaincinv(hits, trials - hits + 1, tail)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, trials - hits, 1 - tail)) if hits < trials else 1.0
    return low, high


def wilson(share: float, units: float, level: float = 0.95) -> tuple[float, float]:
    """The interval of a share that was measured in `units` independent units (Wilson, Journal of the American
    Statistical Association 22, 1927). `units` must be positive.
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle, scale = share + z**2 / (2 * units), 1 + z**2 / units
    half = z * np.sqrt(share * (1 - share) / units + z**2 / (4 * units**2))
    low, high = float((middle - half) / scale), float((middle + half) / scale)
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # removes rounding errors at 0 and 1


def bound_of_none(units: int) -> float:
    """The upper end of the one-sided 95% interval of a share if none of `units` independent units is a hit: 1 −
    0.05^(1/units). It is 1% for 300 units, and 0.1% for 3,000 units. `units` must be positive.
    """
    return float(-np.expm1(np.log(0.05) / units))


def _numbered(clusters: Array) -> tuple[npt.NDArray[np.int64], int]:
    """The clusters as numbers from 0, and how many there are."""
    names = np.asarray(clusters)
    if names.dtype.kind in "iu" and len(names) and names.min() >= 0 and names.max() < 4 * len(names):
        used = np.bincount(names) > 0  # faster than sorting
        return (np.cumsum(used) - 1)[names], int(used.sum())
    different, place = np.unique(names, return_inverse=True)
    return place.astype(np.int64), len(different)
