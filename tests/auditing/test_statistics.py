"""Effects with intervals for clusters of rows: values by hand, coverage, corrections, and the three outcomes."""

from __future__ import annotations

import numpy as np
import pytest

from synthgen.auditing.statistics import (
    Estimate,
    Planned,
    benjamini_hochberg,
    bootstrap,
    contrast,
    crossed,
    difference,
    holm,
    judged,
    mean,
    outcome,
    paired,
    ratio,
    share,
    share_interval,
    shares_differ,
    sign_flip,
)

SIZES = np.array([40, 12, 7, 3, 1, 1])
CLUSTERS = np.repeat(np.arange(len(SIZES)), SIZES)


def normal(seed: int, size: int = len(CLUSTERS)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size)


def drawn(rng, clusters, icc=0.1, share=0.4):
    """0/1 values in clusters whose sizes follow a power law. Returns (values, clusters)."""
    sizes = np.minimum(np.ceil(10 * (rng.pareto(1.5, clusters) + 1)), 2000).astype(int)
    places = np.repeat(np.arange(clusters), sizes)
    each = rng.beta(share * (1 - icc) / icc, (1 - share) * (1 - icc) / icc, clusters)
    return (rng.random(len(places)) < each[places]).astype(float), places


def test_clusters_of_one_row_give_the_t_interval_of_a_mean():
    values = normal(1, 30)
    found = mean(values, np.arange(30))
    assert found.error == pytest.approx(values.std(ddof=1) / np.sqrt(30))
    assert found.degrees == pytest.approx(29)
    assert found.interval() == pytest.approx(
        (values.mean() - 2.0452296 * found.error, values.mean() + 2.0452296 * found.error)
    )


@pytest.mark.parametrize("kind", ["mean", "difference"])
def test_error_and_degrees_are_those_of_the_quadratic_form(kind):
    """Draws independent normal rows many times, and compares the error and the degrees of freedom with the spread of
    the draws.
    """
    cells = np.arange(len(CLUSTERS)) % 3 > 0
    draws = [
        mean(normal(seed), CLUSTERS) if kind == "mean" else difference(normal(seed), CLUSTERS, cells)
        for seed in range(800)
    ]
    squares = np.array([one.error**2 for one in draws])
    assert squares.mean() == pytest.approx(np.var([one.value for one in draws]), rel=0.12)
    assert draws[0].degrees == pytest.approx(2 * squares.mean() ** 2 / squares.var(), rel=0.3)


@pytest.mark.parametrize("clusters", [5, 30, 300])
def test_interval_of_clusters_with_power_law_sizes_holds_95_percent(clusters):
    rng = np.random.default_rng(clusters)
    held = 0
    for _ in range(400):
        low, high = mean(*drawn(rng, clusters)).interval()
        held += low <= 0.4 <= high
    low, high = share_interval(held, 400)
    assert low <= 0.95 <= high, held


def test_interval_of_rows_taken_as_independent_does_not_hold():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        values, _ = drawn(rng, 30)
        low, high = mean(values, np.arange(len(values))).interval()
        held += low <= 0.4 <= high
    assert share_interval(held, 400)[1] < 0.9


def test_swapped_groups_flip_the_sign_and_order_changes_nothing():
    values, first = normal(2), normal(3) > 0
    found, swapped = difference(values, CLUSTERS, first), difference(values, CLUSTERS, ~first)
    assert (swapped.value, swapped.error) == pytest.approx((-found.value, found.error))
    order = np.random.default_rng(4).permutation(len(values))
    mixed = difference(values[order], CLUSTERS[order] + 7, first[order])
    assert (mixed.value, mixed.error, mixed.degrees) == pytest.approx((found.value, found.error, found.degrees))


def test_copies_inside_a_cluster_add_no_certainty():
    values, places = normal(5, 20), np.arange(20)
    many = mean(np.repeat(values, 50), np.repeat(places, 50))
    assert many.error == pytest.approx(mean(values, places).error)


def test_ratio_and_its_logarithm():
    numerators, denominators = np.array([3.0, 0, 5, 2, 4]), np.array([1.0, 1, 2, 0, 3])
    found = ratio(numerators, denominators, np.arange(5))
    assert found.value == pytest.approx(2)
    assert found.logged().value == pytest.approx(1)
    assert found.logged().error == pytest.approx(found.error / 2 / np.log(2))
    assert not ratio(-numerators, denominators, np.arange(5)).logged().measurable


def test_paired_values_are_judged_by_their_differences():
    first, second = normal(6), normal(7)
    assert paired(first, second, CLUSTERS) == mean(first - second, CLUSTERS)


def test_seeds_that_differ_widen_the_interval_of_items_crossed_with_seeds():
    items = normal(8)
    alike = crossed(np.array([items, items, items]), CLUSTERS)
    assert alike == mean(items, CLUSTERS)
    apart = crossed(np.array([items - 1, items, items + 1]), CLUSTERS)
    assert apart.error > alike.error
    assert 2 < apart.degrees < 3
    assert crossed(items, CLUSTERS) == alike


def test_interval_of_seeds_and_items_holds():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        seeds, groups = rng.normal(0, 0.1, (3, 1)), rng.normal(0, 0.2, 25)[np.repeat(np.arange(25), 12)]
        low, high = crossed(seeds + groups + rng.normal(0, 0.7, (3, 300)), np.repeat(np.arange(25), 12)).interval()
        held += low <= 0 <= high
    assert share_interval(held, 400)[1] > 0.94


def test_no_refusal_in_few_clusters_does_not_show_that_there_is_none():
    none = np.zeros(20)
    assert share(none, np.arange(20)).interval() == pytest.approx((-0.1684, 0.1684), abs=1e-4)
    assert outcome(share(none, np.arange(20)), 1, 0.02) == "inconclusive"
    assert outcome(share(np.zeros(2000), np.arange(2000)), 1, 0.02) == "absent"
    assert not mean(none, np.arange(20)).measurable
    first = np.arange(4000) < 20
    assert outcome(shares_differ(np.zeros(4000), np.arange(4000), first), 1, 0.02) == "inconclusive"


@pytest.mark.parametrize("clusters", [np.zeros(9, int), np.array([0] * 4 + [1] * 5)])
def test_groups_in_one_cluster_each_are_not_measurable(clusters):
    found = difference(normal(9, 9), clusters, np.arange(9) < 4)
    assert not found.measurable
    assert outcome(found, 0.0, 0.1) == "not measurable"


def test_a_group_without_rows_is_not_measurable():
    assert not contrast(np.zeros((3, 2)), np.array([[1, 0], [2, 0], [3, 0]]), np.array([1, -1]), 6).measurable


def test_bootstrap_of_a_mean_agrees_with_linearization():
    values = normal(10, 400)
    low, high = bootstrap(np.stack([values, np.ones(400)], 1), lambda sums: sums[:, 0] / sums[:, 1])
    assert (low, high) == pytest.approx(mean(values, np.arange(400)).interval(), abs=0.02)


def test_sign_flips_by_hand_and_at_random():
    assert sign_flip(np.array([1.0, 2, 3]), np.arange(3)) == 2 / 8
    assert sign_flip(np.array([1.0, 1, -2]), np.array([0, 0, 1])) == 1
    assert sign_flip(np.zeros(5), np.arange(5)) == 1
    far = normal(11, 100) + 1
    assert sign_flip(far, np.arange(100), flips=999) == 1 / 1000
    values = normal(12, 100) + 0.2
    assert sign_flip(values, np.arange(100)) == pytest.approx(mean(values, np.arange(100)).p_value(), abs=0.02)


def test_corrections_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert benjamini_hochberg([0.01, 0.04, 0.03, 0.9]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.9])
    assert len(holm([])) == len(benjamini_hochberg([])) == 0


def test_three_outcomes():
    assert outcome(Estimate(0.2, 0.01, 100, 1000, 101), 0.001, 0.1) == "found"
    # the effect is not significant, but not small
    assert outcome(Estimate(0.2, 0.01, 100, 1000, 101), 0.06, 0.1) == "inconclusive"
    assert outcome(Estimate(0.05, 0.01, 100, 1000, 101), 0.001, 0.1) == "absent"  # the effect is significant, but small
    assert outcome(Estimate(0.05, 0.1, 100, 1000, 101), 0.6, 0.1) == "inconclusive"


def test_detectable_effect_is_found_in_80_of_100():
    rng = np.random.default_rng(1)
    size, margin = 60, 0.0
    effect = (1.0 / np.sqrt(size)) * (2.0010 + 0.8477)
    found = [mean(rng.normal(effect, 1, size), np.arange(size)) for _ in range(1000)]
    low, high = share_interval(sum(outcome(one, one.p_value(), margin) == "found" for one in found), 1000)
    assert low <= 0.8 <= high
    assert np.mean([one.detectable() for one in found]) == pytest.approx(effect, rel=0.02)
    assert Estimate(0, 0.01, 1e6, 9, 9).detectable(margin=0.5) == pytest.approx(0.5 + 0.0084, abs=1e-4)
    assert Estimate(0, 0.01, 1e6, 9, 9).detectable(tests=10) > Estimate(0, 0.01, 1e6, 9, 9).detectable()


def test_a_family_is_corrected_together_and_leaves_out_what_is_not_measurable():
    effects = [Estimate(0.3, 0.12, 1e6, 500, 400), Estimate(0.3, 0.1, 1e6, 500, 400), mean(np.ones(3), np.zeros(3))]
    planned = [Planned("gap", f"group {n}", "a gap", "share", one, 0.1) for n, one in enumerate(effects)]
    first, second, third = judged(planned, "gaps")
    assert (first.outcome, second.outcome, third.outcome) == ("found", "found", "not measurable")
    assert second.corrected_p == pytest.approx(2 * second.p)
    assert (third.estimate, third.low, third.p, third.corrected_p) == (1, None, None, None)
    assert third.note


def test_interval_of_a_share():
    assert share_interval(0, 300) == pytest.approx((0, 0.0122), abs=1e-4)
    assert share_interval(300, 300)[1] == 1
    assert share_interval(50, 100) == pytest.approx((0.3983, 0.6017), abs=1e-4)
