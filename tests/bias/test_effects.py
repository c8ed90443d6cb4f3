"""The numbers of the tests for bias, compared with other ways to compute them, and the least rows that a test needs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from synthgen.auditing.result import Measurement
from synthgen.bias.association import Uses, compared
from synthgen.bias.counterfactual import counterfactual
from synthgen.bias.groups import Dimension
from synthgen.bias.rates import Rates, detectable, rates
from synthgen.bias.reading import Facts
from synthgen.bias.refusals import refusals
from synthgen.bias.representation import representation
from synthgen.bias.selection import selection

GENDER = Dimension("gender", ("female", "male"), 0)
WOMAN, MAN = 1, 2


def facts(prompts: list[int], answers: list[int] | None = None, kept: list[bool] | None = None) -> Facts:
    """Rows of units of their own, by the groups that their prompts and answers mention."""
    count = len(prompts)
    return Facts(
        in_prompt=np.array(prompts, np.uint64),
        in_answer=np.array(prompts if answers is None else answers, np.uint64),
        masked=np.arange(1, count + 1, dtype=np.uint64)[None] // np.uint64(2),
        length=np.arange(count) % 7,
        refused=np.arange(count) % 3 == 0,
        kept=np.ones(count, bool) if kept is None else np.array(kept),
        scores={},
        rejected_by={},
        unit=np.arange(count),
    )


def first(found: list[Measurement]) -> Measurement:
    return found[0]


# The least number of rows


def test_a_test_needs_its_least_number_of_rows_and_no_more():
    def refused(women: int, men: int) -> Measurement:
        return first(refusals(facts([WOMAN] * women + [MAN] * men), [GENDER]))

    def represented(women: int, men: int, target: float | None = 0.5) -> Measurement:
        goal = {} if target is None else {"gender": {"female": target, "male": 1 - target}}
        return first(representation(facts([WOMAN] * women + [MAN] * men), [GENDER], goal))

    def selected(women: int) -> Measurement:
        return first(
            selection(facts([WOMAN] * women + [MAN] * 9, kept=[n % 2 == 0 for n in range(women + 9)]), [GENDER])
        )

    def pairs(count: int) -> Measurement:
        return first(counterfactual(facts([0, *[WOMAN, MAN] * count]), [GENDER]))

    enough = [refused(30, 30), represented(25, 25), represented(30, 20, 0.2), represented(25, 25, None), selected(30)]
    assert [one.estimate is None for one in [*enough, pairs(20)]] == [False] * 6
    few = [
        (refused(29, 30), "29 and 30 prompts mention this group and another one; 30 of each are needed"),
        (refused(30, 29), "30 and 29 prompts mention this group and another one; 30 of each are needed"),
        (represented(25, 24), "fewer than 50 mentions of the groups in answers, or in prompts without a target"),
        (represented(30, 20, 0.19), "fewer than 10 mentions of the group are expected"),
        (selected(29), "29 rows mention the group; 30 are needed"),
        (pairs(19), "19 pairs of prompts differ only in this group; 20 are needed"),
    ]
    for one, note in few:
        assert (one.outcome, one.estimate, one.note) == ("not measurable", None, note)


# Representation


def test_shares_of_independent_rows_have_the_known_error():
    """The delta method: the variance of ln p is (1 − p) / (p n) for n independent mentions."""
    rows = facts([WOMAN] * 60 + [MAN] * 140)
    women, men = representation(rows, [GENDER], {"gender": {"female": 0.25, "male": 0.75}})
    for one, p, q in ((women, 0.3, 0.25), (men, 0.7, 0.75)):
        assert one.estimate == pytest.approx(np.log2(p / q))
        half = stats.t.ppf(0.975, 199) * np.sqrt((1 - p) / p / 200) / np.log(2)
        assert one.high - one.estimate == pytest.approx(half, rel=0.003)
        assert one.estimate - one.low == pytest.approx(half, rel=0.003)


@pytest.mark.parametrize("count", [52, 400])
def test_a_group_that_no_answer_mentions_has_half_a_mention(count):
    """The error of ln of a Poisson number of 1/2 is √(1/2) / (1/2). With one row in each unit, there are count − 1
    degrees of freedom.
    """
    women, men = representation(facts([MAN] * count), [GENDER], {"gender": {"female": 0.5, "male": 0.5}})
    half = stats.t.ppf(0.975, count - 1) * np.sqrt(0.5) / 0.5 / np.log(2)
    assert women.estimate == pytest.approx(np.log2(0.5 / (count + 1) / 0.5))
    assert (women.low, women.high) == pytest.approx((women.estimate - half, women.estimate + half), rel=1e-3)
    assert men.estimate == pytest.approx(1)
    spread = stats.t.ppf(0.975, count - 1) * np.sqrt(0.5) / count / np.log(2)
    assert (men.low, men.high) == pytest.approx((1 - spread, 1 + spread), rel=1e-3), "all rows are alike"


# Rates of words


def of_words(uses: tuple[float, float], words: tuple[float, float], own: tuple[float, float], degrees: float) -> Rates:
    one, other = (np.array([use]) for use in uses)
    first, second = (np.array([variance]) for variance in own)
    return rates((one, other), words, (first, second), np.zeros(1), degrees)


@pytest.mark.parametrize(("design", "degrees"), [(1.0, np.inf), (4.0, np.inf), (1.0, 5.0), (2.0, 12.0)])
def test_the_interval_of_a_ratio_is_that_of_drawn_gamma_rates(design, degrees):
    """With Jeffreys' prior, the rate of y uses has the distribution Gamma(y + ½). Words that come in groups of `design`
    uses count as y / design uses, and with few units as (z/t)² times as many.
    """
    uses, words = (48.0, 16.0), (1e7, 2e7)  # so many words that odds are shares
    found = of_words(uses, words, (design * uses[0], design * uses[1]), degrees)
    change = (stats.norm.ppf(0.975) / stats.t.ppf(0.975, degrees) if np.isfinite(degrees) else 1.0) ** 2
    draws = [
        np.random.default_rng(n).gamma(change * use / design + 0.5, 1, 400_000) * design / size
        for n, (use, size) in enumerate(zip(uses, words, strict=True))
    ]
    expected = np.log2(np.quantile(draws[0] / draws[1], [0.025, 0.975]))
    assert np.concatenate(found.interval(0.95)) == pytest.approx(expected, abs=0.03)
    middle = np.log2((uses[0] / design + 0.5) / words[0] / ((uses[1] / design + 0.5) / words[1]))
    assert found.effect[0] == pytest.approx(middle, abs=1e-5)


def test_the_effect_is_a_ratio_of_odds_not_of_shares():
    """9 of 10 words on one side and 50 of 100 on the other have the odds 9 and 1. The prior changes them: each share is
    (y + ½) / (n + 1).
    """
    found = of_words((9.0, 50.0), (10.0, 100.0), (9.0, 50.0), np.inf)
    inside = (1 - 9.5 / 11, 1 - 50.5 / 101)
    effective = [use * rest**2 for use, rest in zip((9.0, 50.0), inside, strict=True)]
    odds = [(e + 0.5) / rest**2 / size for e, rest, size in zip(effective, inside, (10, 100), strict=True)]
    assert found.effect[0] == pytest.approx(np.log2(odds[0] / inside[0] / (odds[1] / inside[1])))
    many = of_words((9e6, 50e6), (10e6, 100e6), (9e6, 50e6), np.inf)
    assert many.effect[0] == pytest.approx(np.log2(9 / 1), abs=1e-4)


@pytest.mark.parametrize("margin", [0.0, 1.0])
@pytest.mark.parametrize("edge", [2.0, 3.5])
@pytest.mark.parametrize("share", [0.5, 0.2, 0.8])
def test_a_detectable_effect_is_found_in_80_of_100(share, edge, margin):
    """The power in each direction, by the binomial distribution of the uses on the first side."""
    uses, logit = 3000, special.logit
    used = np.arange(uses + 1)
    z = (used / uses - share) / np.sqrt(share * (1 - share) / uses)
    with np.errstate(divide="ignore"):
        estimate = (logit(used / uses) - logit(share)) / np.log(2)

    def power(effect: float, sign: int) -> float:
        found = (sign * z >= edge) & (sign * estimate >= margin)
        return float(stats.binom.pmf(used, uses, special.expit(logit(share) + sign * effect * np.log(2)))[found].sum())

    [least, never] = detectable(np.array([uses, 1.0]), share, edge, margin)
    assert min(power(least, 1), power(least, -1)) == pytest.approx(0.8, abs=0.06)
    assert min(power(0.8 * least, 1), power(0.8 * least, -1)) < 0.65
    assert never == np.inf, "one use shows nothing"


def test_a_word_is_read_at_its_own_place():
    three = Rates(np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0]), np.array([7.0, 8.0, 9.0]), 10.0)
    for place in range(3):
        alone = three.at(place)
        assert (alone.effect.tolist(), alone.degrees) == ([three.effect[place]], 10.0)


# Association


class Counted(Uses):
    """Uses that were counted elsewhere: `counts` (words, units, 2), and `words` (units, 2), the number of all words."""

    def __init__(self, counts: np.ndarray, words: np.ndarray) -> None:
        super().__init__(GENDER, *counts.shape[:2])
        self.totals[:] = words.T
        self.counts = counts

    def entries(self):
        places = np.nonzero(self.counts)
        return *places, self.counts[places].astype(float)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The uses of six words in 40 units on two sides, and the numbers of all words."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.0 + np.arange(6)[:, None, None] / 4, (6, 40, 2)) * (rng.random((1, 40, 2)) < 0.7)
    counts[1] *= 6 * (rng.random((40, 2)) < 0.2)  # some units use this word often, and most do not
    counts[2, :, 1] = 0  # this word is used on one side only
    counts[4:] = 0
    counts[4, :10, 0] = 1  # as many uses as a word needs
    counts[5, :9, 0] = 1  # and one less
    return counts, counts.sum(0) + rng.integers(1, 30, (40, 2))


def test_the_p_values_of_words_are_those_of_sums_over_units():
    """The variance of the difference of two shares is Σ_u s_u², with the correction CR3. It is at least the variance of
    independent uses of a word that is equally likely on both sides, times the design effect.
    """
    counts, totals = drawn(1)
    found = compared(Counted(counts, totals), 0)
    n_a, n_b = totals.sum(0)
    assert found.word.tolist() == [0, 1, 2, 3, 4]
    clustered = 0
    for place in range(5):
        y_a, y_b = counts[place].sum(0)
        spread = 0.0
        for (one, other), (all_a, all_b) in zip(counts[place].tolist(), totals.tolist(), strict=True):
            part = (one - y_a / n_a * all_a) / n_a / (1 - all_a / n_a)
            spread += (part - (other - y_b / n_b * all_b) / n_b / (1 - all_b / n_b)) ** 2
        design = max(spread / (y_a / n_a**2 + y_b / n_b**2), 1)
        clustered += design > 1.5
        least = (y_a + y_b) / (n_a * n_b) * design
        z = (y_a / n_a - y_b / n_b) / np.sqrt(max(spread, least))
        assert found.p[place] == pytest.approx(2 * stats.norm.sf(abs(z))), place
        assert (found.uses[place], found.units[place]) == (y_a + y_b, (counts[place].sum(1) > 0).sum())
    assert found.p.min() < 0.05 < found.p.max()
    assert clustered, "some words come in groups of uses"
