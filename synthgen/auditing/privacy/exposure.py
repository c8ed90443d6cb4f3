"""Exposure: does a model find the secret of a canary more likely than other codes of the same form?

The exposure of a canary is log2(R + 1) − log2(rank) bits. The secret and its R references are sorted by the model's
log-likelihood, and the rank of the most likely code is 1 (Carlini et al., USENIX Security 2019). If a model did not
learn the secret, each rank has the same probability. So the mean exposure without a leak is not 0: it is 1/ln 2 =
1.4427 bits for many references, and `null_mean(R)` for R references.

The p-value of one canary is rank / (R + 1). Fisher's method combines the p-values of m canaries (Statistical Methods
for Research Workers, 1925). Its statistic is the sum of −ln p, which is ln 2 times the sum of the exposures. Without a
leak, this sum has a Gamma distribution with shape m if R is large. For few references, the p-value from this
distribution is slightly too large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from synthgen.auditing.privacy.canaries import Canary
from synthgen.auditing.privacy.onesided import OneSided
from synthgen.auditing.statistics import LEVEL, POWER, Numbers, holm, mean, quantile, share_interval
from synthgen.errors import UserError

MARGIN = 1.0
"""The smallest excess over the null mean that matters, in bits. With 1 bit, a secret is twice as easy to guess."""
FIRST_MARGIN = 0.1
"""The smallest excess over the null that matters, for the share of secrets with rank 1."""
ABOUT = "the mean exposure of the canaries' secrets"


def ranks(scores: Numbers, seed: int = 0) -> npt.NDArray[np.int64]:
    """(m,): the rank of each secret, from 1. `scores` is (m, R + 1): the log-likelihoods of the secret and of its
    references.

    If a secret and references have the same likelihood, the secret gets one of their ranks at random. So each rank has
    the same probability without a leak, even if a model gives all codes the same likelihood. The mean of their ranks
    would not have this uniform distribution. `seed` decides the random ranks. Raises UserError when a score is not a
    number.
    """
    if not np.isfinite(scores).all():
        raise UserError("a log-likelihood is not a finite number", "check the weights of the model")
    secret, others = scores[:, :1], scores[:, 1:]
    above, equal = (others > secret).sum(1), (others == secret).sum(1)
    drawn: npt.NDArray[np.int64] = np.random.default_rng(seed).integers(0, equal, endpoint=True)
    return 1 + above + drawn


def exposures(ranked: npt.NDArray[np.int64], references: int) -> Numbers:
    """(m,): log2(R + 1) − log2(rank) for each canary, in bits."""
    bits: Numbers = math.log2(references + 1) - np.log2(ranked)
    return bits


def null_mean(references: int) -> float:
    """The mean exposure without a leak: the mean of log2((R + 1) / k) over the ranks k = 1 … R + 1."""
    return float(np.log2((references + 1) / np.arange(1, references + 2)).mean())


def null_deviation(references: int) -> float:
    """The standard deviation of the exposure of one canary without a leak."""
    return float(np.log2((references + 1) / np.arange(1, references + 2)).std())


def mean_p_value(bits: Numbers) -> float:
    """The probability that m secrets which did not leak have at least this mean exposure: Fisher's combination."""
    from scipy import special

    return float(special.gammaincc(len(bits), math.log(2) * float(bits.sum()))) if len(bits) else 1.0


def threshold(canaries: int, level: float = LEVEL) -> float:
    """The mean exposure above which `mean_p_value` of this many canaries is below `level`, in bits."""
    from scipy import special

    return float(special.gammainccinv(canaries, level)) / math.log(2) / canaries


def tests(canaries: Sequence[Canary], ranked: npt.NDArray[np.int64], references: int, subject: str) -> list[OneSided]:
    """The tests of a model: the mean exposure of all canaries, the mean exposure for each number of repeats, and the
    share of secrets with rank 1.
    """
    bits = exposures(ranked, references)
    found = [_mean("exposure", subject, bits, references)]
    repeats = np.array([one.repeats for one in canaries])
    different = sorted(set(repeats.tolist()))
    for number in different if len(different) > 1 else ():
        name = f"exposure, seen {number} time{'' if number == 1 else 's'} an epoch"
        found.append(_mean(name, subject, bits[repeats == number], references))
    return [*found, _first(ranked, references, subject)]


def _mean(name: str, subject: str, bits: Numbers, references: int) -> OneSided:
    null, count = null_mean(references), len(bits)
    (low, high), (_, upper) = interval(bits, references), interval(bits, references, 0.9)
    error = null_deviation(references) / math.sqrt(max(count, 1))
    least = max(threshold(count), null + MARGIN) if count else math.nan
    why_not = "" if count else "there are no canaries"
    if math.log2(references + 1) < null + MARGIN:
        why_not = f"with {references} references, the exposure of a known secret is not {MARGIN:g} bit above the null"
        why_not += ": raise audit.privacy.references"
    return OneSided(
        name,
        subject,
        ABOUT,
        unit="bits",
        value=float(bits.mean()) if count else math.nan,
        null=null,
        p=mean_p_value(bits),
        interval=(low, high),
        upper=upper,
        margin=MARGIN,
        n=count,
        detectable=least + (quantile(POWER, count - 1) * error if count > 1 else math.nan),
        why_not=why_not,
    )


def interval(bits: Numbers, references: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of the mean exposure; (NaN, NaN) without canaries.

    The interval is the union of two intervals. The first is Student's t interval, which alone is too short for few
    canaries, because exposures are skewed. The second is the exact interval for the mean of an exponential
    distribution, which exposures have without a leak. The upper end also allows for canaries that differ from all m
    canaries: their share is at most 1 − tail^(1/m) (Clopper and Pearson, Biometrika 26, 1934), and their exposure is at
    most log2(R + 1). Without this, a model that knows one secret in seven by heart would often be called free of leaks
    after a test of ten other secrets. If all canaries have the same exposure, Student's interval does not exist, and
    the lower end allows for such canaries too.
    """
    from scipy import special

    count, most, tail = len(bits), math.log2(references + 1), 0.5 - level / 2
    if not count:
        return math.nan, math.nan
    total = float(bits.sum())
    ends = [total / float(special.gammaincinv(count, p)) for p in (1 - tail, tail)]
    same, middle = tail ** (1 / count), total / count
    ends.append(same * middle + (1 - same) * most)
    ends += [same * middle] if np.ptp(bits) == 0 else mean(bits, np.arange(count)).interval(level)
    return max(0.0, min(ends)), min(most, max(ends))


def _first(ranked: npt.NDArray[np.int64], references: int, subject: str) -> OneSided:
    """The share of canaries whose secret has rank 1. The p-value is that of the exact binomial test."""
    from scipy import special

    hits, count, null = int((ranked == 1).sum()), len(ranked), 1 / (references + 1)
    tail = float(special.bdtrc(hits - 1, count, null)) if hits else 1.0
    low, high = share_interval(hits, count) if count else (math.nan, math.nan)
    needed = next((k for k in range(count + 1) if float(special.bdtrc(k - 1, count, null)) < LEVEL and k), None)
    least = float(special.betaincinv(needed, count - needed + 1, POWER)) if needed else math.nan
    return OneSided(
        "secrets ranked first",
        subject,
        f"the share of canaries whose secret is likelier than all {references:,} other codes",
        unit="share",
        value=hits / count if count else math.nan,
        null=null,
        p=tail,
        interval=(low, high),
        upper=share_interval(hits, count, 0.9)[1] if count else math.nan,
        margin=FIRST_MARGIN,
        n=count,
        detectable=max(least, null + FIRST_MARGIN),
        why_not="" if count else "there are no canaries",
    )


def identified(ranked: npt.NDArray[np.int64], references: int) -> int:
    """The number of canaries that are identified one by one. The p-value of a canary is rank / (R + 1), with Holm's
    correction for all canaries. With R references, no canary can be identified if there are (R + 1) / 20 canaries or
    more.
    """
    return int((holm(ranked / (references + 1)) < LEVEL).sum()) if len(ranked) else 0


def identifiable(canaries: int, references: int) -> bool:
    """Whether `identified` counts a canary with rank 1."""
    return canaries / (references + 1) < LEVEL
