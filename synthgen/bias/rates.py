"""The ratio of odds of a word on two sides, with its interval and the smallest ratio that a scan can find.

The interval is that of the ratio of two Poisson rates with Jeffreys' prior: Price and Bonett, Computational Statistics
and Data Analysis 34 (2000). The number of uses of a side is replaced by an effective number, because a unit may use a
word several times: Kish, Survey Sampling (1965). The effective number e of independent uses has the same relative
variance, 1/e, as the uses y of the side. With few units, this variance is uncertain, so the interval multiplies e by
(z/t)², the squared ratio of the quantiles of the normal distribution and of Student's t: Korn and Graubard, Survey
Methodology 24 (1998). The prior adds half an effective use to each side. So a word that occurs on one side only has a
finite ratio, and the prior does not pull frequent words toward a ratio of 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

PRIOR = 0.5
"""Effective uses that are added to each side."""
_LEAST_DESIGN = 0.25  # the effective number of uses is at most 4 times the number of uses


@dataclass(frozen=True)
class Rates:
    """The rates of W words on two sides a and b. `first` and `second` (W) are the effective numbers of uses on side a
    and on side b. `shift` (W) is the logarithm to the base 2 of the ratio of odds, minus the logarithm of first /
    second. `degrees` are the degrees of freedom of the variances.
    """

    first: Numbers
    second: Numbers
    shift: Numbers
    degrees: float

    def at(self, place: int) -> Rates:
        """The rates of the word at this index alone."""
        alone = slice(place, place + 1)
        return Rates(self.first[alone], self.second[alone], self.shift[alone], self.degrees)

    @property
    def effect(self) -> Numbers:
        """log2 of the ratio of odds, (W)."""
        return np.log2((self.first + PRIOR) / (self.second + PRIOR)) + self.shift

    def interval(self, level: float) -> tuple[Numbers, Numbers]:
        """The interval of `effect` with this level of confidence: (low, high), each (W)."""
        from scipy import special

        tail = (1 - level) / 2
        change = (special.ndtri(tail) / special.stdtrit(self.degrees, tail)) ** 2
        a, b = change * self.first + PRIOR, change * self.second + PRIOR
        odds = (special.betaincinv(a, b, one) / special.betaincinv(b, a, 1 - one) for one in (tail, 1 - tail))
        low, high = (np.log2(one) + self.shift for one in odds)
        return low, high


def rates(
    uses: tuple[Numbers, Numbers],
    words: tuple[float, float],
    own: tuple[Numbers, Numbers],
    cross: Numbers,
    degrees: float,
) -> Rates:
    """Compare the frequencies of W words in two groups of texts.

    All pairs have one entry for each group. `uses` holds the counts of each word, (W,). `words` holds the number of all
    words in the group's texts. `own` holds the variances of `uses` over units, (W,), and `cross` is the covariance
    between the two groups, (W,). `degrees` are the degrees of freedom of these variances.
    """
    share = [(used + PRIOR) / (size + 1) for used, size in zip(uses, words, strict=True)]
    pooled = (own[0] + own[1]) / np.maximum(uses[0] + uses[1], 1)
    design = [
        np.maximum(np.where(used > 0, spread / np.maximum(used, 1), pooled), _LEAST_DESIGN)
        for used, spread in zip(uses, own, strict=True)
    ]
    both = (uses[0] > 0) & (uses[1] > 0)
    alone = design[0] / np.maximum(uses[0], 1) + design[1] / np.maximum(uses[1], 1)
    common = np.where(both, 2 * cross / np.maximum(uses[0] * uses[1], 1), 0)
    design = [np.maximum(one * np.maximum(1 - common / alone, 0), _LEAST_DESIGN) for one in design]
    design = [one / (1 - part) ** 2 for one, part in zip(design, share, strict=True)]  # of odds instead of shares
    shift = np.log2(design[0] / design[1] * words[1] / words[0]) + np.log2((1 - share[1]) / (1 - share[0]))
    return Rates(uses[0] / design[0], uses[1] / design[1], shift, degrees)


def detectable(uses: Numbers, share: float, edge: float, margin: float, power: float = 0.8) -> Numbers:
    """The smallest effects that a test finds with the probability `power`, in both directions, (W). Infinite where no
    effect is found that often. The test finds an effect if the effect is at least `edge` times as large as its standard
    error.

    `uses` (W) is the effective number of uses of each word on both sides together, and `share` is the share of all
    words that the first side has. For given `uses`, the number of uses on the first side is binomial, so the formula is
    that of the test of one share: Fleiss, Statistical Methods for Rates and Proportions (1981), section 1.6. The
    estimate must also be at least `margin`.
    """
    from scipy import special

    beta = special.ndtri(power)
    effects = []
    for null in (share, 1 - share):
        spread = np.sqrt(null * (1 - null))
        least = null * np.sqrt(uses) + edge * spread  # √uses times the smallest share that is found
        half = np.sqrt(uses) * least + beta**2 / 2
        root = (half + np.sqrt(np.maximum(half**2 - (uses + beta**2) * least**2, 0))) / (uses + beta**2)
        effect = special.logit(np.clip(root, 0, 1 - 1e-12)) - special.logit(null)
        effect = np.maximum(effect, margin * np.log(2) + beta / np.sqrt(uses) / spread)
        effects.append(np.where(np.sqrt(uses) > least, effect, np.inf))
    return np.asarray(np.maximum(*effects) / np.log(2))
