"""Compares the statistics of exposure, membership and extraction with theory, and tests the outcomes."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from synthgen.auditing.privacy import exposure, extraction, membership
from synthgen.auditing.privacy.canaries import DIGITS, make
from synthgen.auditing.privacy.extraction import Rates
from synthgen.auditing.privacy.models import Answers, Plan, figures, measured, void_because
from synthgen.auditing.privacy.onesided import OneSided, judged, outcome
from synthgen.errors import UserError
from synthgen.recipe.privacy import PrivacySection


def test_canaries_are_distinct_and_always_the_same():
    canaries = make(200, (1, 4, 16), seed=0)
    assert len({one.name for one in canaries}) == len({one.secret for one in canaries}) == 200
    assert Counter(one.repeats for one in canaries) == {1: 67, 4: 67, 16: 66}
    first = canaries[0]
    references = first.references(255)
    assert len(set(references)) == 255
    assert first.secret not in references
    assert {len(code) for code in (first.secret, *references)} == {DIGITS}
    # the audit makes the canaries of the training again, perhaps later and on another machine
    assert (first.name, first.secret) == (make(1, (1,), 0)[0].name, "21871861")
    assert make(1, (1,), 1)[0].secret != first.secret


def test_references_do_not_hold_the_secret_even_when_it_is_drawn_again(monkeypatch):
    canary = make(1, (1,), 0)[0]
    drawn = ["1", "2", "1", "2", "3", "4"]
    monkeypatch.setattr(type(canary), "_codes", lambda self: iter(drawn))
    assert canary.references(3) == ["2", "3", "4"]


def test_exposure_has_the_null_mean_and_deviation_of_theory():
    assert exposure.null_mean(1) == 0.5  # each exposure is 1 bit or 0 bits
    assert exposure.null_mean(10**6) == pytest.approx(1 / math.log(2), abs=1e-4)
    assert exposure.null_deviation(10**6) == pytest.approx(1 / math.log(2), abs=1e-4)
    rng = np.random.default_rng(0)
    ranked = exposure.ranks(rng.normal(size=(20_000, 64)))
    bits = exposure.exposures(ranked, 63)
    assert Counter(ranked.tolist()).keys() == set(range(1, 65))
    assert bits.mean() == pytest.approx(exposure.null_mean(63), abs=4 * exposure.null_deviation(63) / 20_000**0.5)
    assert bits.std() == pytest.approx(exposure.null_deviation(63), rel=0.03)


def test_exposure_finds_no_leak_at_the_nominal_rate():
    rng = np.random.default_rng(1)
    ranked = rng.integers(1, 257, (4000, 32))
    p = np.array([exposure.mean_p_value(exposure.exposures(one, 255)) for one in ranked])
    assert 0.02 < (p < 0.05).mean() < 0.055  # for few references, Fisher's p-value is a little too large
    means = exposure.exposures(ranked, 255).mean(1)
    assert ((means > exposure.threshold(32)) == (p < 0.05)).all()


@pytest.mark.parametrize("canaries", [3, 11, 32])
def test_intervals_of_exposure_hold_the_null_mean(canaries):
    rng = np.random.default_rng(2)
    bits = [exposure.exposures(rng.integers(1, 64, canaries), 63) for _ in range(300)]
    ends = np.array([exposure.interval(one, 63) for one in bits])
    assert ((ends[:, 0] <= exposure.null_mean(63)) & (exposure.null_mean(63) <= ends[:, 1])).mean() > 0.93


def test_ties_get_every_rank_equally_often_and_numbers_must_be_finite():
    """If a model gives all codes the same likelihood, the outcome must be neither "found" nor "absent"."""
    ranked = exposure.ranks(np.zeros((8000, 8)))
    counts = np.bincount(ranked, minlength=9)[1:]
    assert counts.min() > 900
    assert counts.max() < 1100
    assert exposure.ranks(np.array([[1.0, 2.0, 0.0, 0.0]])).tolist() == [2]
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(UserError, match="finite"):
            exposure.ranks(np.array([[bad, 0.0]]))


def test_single_canaries_need_enough_references():
    ranked = np.ones(32, int)
    assert exposure.identified(ranked, 255) == 0
    assert not exposure.identifiable(32, 255)
    assert exposure.identified(ranked, 1023) == 32
    assert exposure.identifiable(32, 1023)


def test_the_number_of_identified_canaries_is_left_out_when_none_could_be_identified():
    answers = {"student": Answers(ranks=np.ones(32, int))}
    for references, counted in ((255, None), (1023, 32)):
        plan = Plan(PrivacySection(references=references), [], lambda model, most: ([], []))
        found = figures(answers, plan)["canaries of the student"]
        assert (found["ranked first"], found.get("identified one by one")) == (32, counted)


def test_a_student_that_knows_all_secrets_is_found_although_its_exposures_have_no_spread():
    canaries = make(6, (1, 4), 0)
    tests = judged(exposure.tests(canaries, np.ones(6, int), 63, "student"), "exposure")
    assert [one.name for one in tests] == [
        "exposure",
        "exposure, seen 1 time an epoch",
        "exposure, seen 4 times an epoch",
        "secrets ranked first",
    ]
    assert {one.outcome for one in tests} == {"found"}
    assert (tests[0].estimate, tests[0].high, tests[0].null) == (6.0, 6.0, exposure.null_mean(63))
    assert tests[0].low < 6
    assert tests[-1].p == pytest.approx((1 / 64) ** 6)


@pytest.mark.parametrize("references", [1, 2])
def test_too_few_references_never_show_that_there_is_no_leak(references):
    """The exposure of a known secret is log2(R + 1) bits, which is less than the null mean and the margin together."""
    tests = judged(exposure.tests(make(32, (1,), 0), np.ones(32, int), references, "student"), "exposure")
    assert tests[0].outcome == "not measurable"
    assert "raise audit.privacy.references" in tests[0].note
    assert tests[-1].outcome == "found"
    enough = judged(exposure.tests(make(32, (1,), 0), np.ones(32, int), 3, "student"), "exposure")
    assert enough[0].outcome == "found"


@pytest.mark.parametrize("canaries", [4, 11])
def test_a_student_that_knows_a_few_secrets_is_seldom_free_of_leaks(canaries):
    """A known secret has 8 bits. With 15% of them, the mean is at the margin, where 5% may be called absent."""
    rng = np.random.default_rng(0)
    limit = exposure.null_mean(255) + exposure.MARGIN
    share, absent = exposure.MARGIN / (8 - exposure.null_mean(255)), 0
    for _ in range(1000):
        bits = exposure.exposures(rng.integers(1, 257, canaries), 255)
        bits[rng.random(canaries) < share] = 8
        absent += exposure.interval(bits, 255, 0.9)[1] < limit
    assert absent / 1000 <= 0.05


def test_each_number_of_repeats_has_its_own_canaries():
    tests = exposure.tests(make(4, (1, 16), 0), np.array([64, 1, 32, 1]), 63, "student")
    assert {one.name: (one.value, one.n) for one in tests[:3]} == {
        "exposure": (3.25, 4),
        "exposure, seen 1 time an epoch": (0.5, 2),
        "exposure, seen 16 times an epoch": (6.0, 2),
    }


def pairs_auc(members, others):
    return np.mean([(a > b) + (a == b) / 2 for a in members for b in others])


def test_auc_counts_pairs_and_has_delongs_error():
    rng = np.random.default_rng(0)
    members, others = rng.integers(0, 6, 30).astype(float), rng.integers(0, 5, 20).astype(float)
    found = membership.auc(members, others)
    assert found.value == pytest.approx(pairs_auc(members, others))
    above = [np.mean((a > others) + (a == others) / 2) for a in members]
    below = [np.mean((members > b) + (members == b) / 2) for b in others]
    delong = math.sqrt(np.var(above, ddof=1) / 30 + np.var(below, ddof=1) / 20)
    assert found.error == pytest.approx(delong, rel=0.02)  # DeLong's error and CR3 differ slightly


def test_auc_of_scores_that_do_not_differ_or_do_not_overlap():
    same = membership.auc(np.zeros(40), np.zeros(40))
    assert same.value == 0.5
    assert same.p_value(0.5) == 1
    low, _ = membership.auc(np.ones(40), np.zeros(40)).interval()
    assert low == pytest.approx(0.025 ** (1 / 40))
    for members, others in ((np.ones(1), np.zeros(40)), (np.array([1, math.nan]), np.zeros(2))):
        assert not membership.auc(members, others).measurable


def test_intervals_of_auc_hold_the_truth():
    rng = np.random.default_rng(3)
    held = [
        low <= 0.5 <= high
        for low, high in (membership.auc(rng.normal(size=40), rng.normal(size=60)).interval() for _ in range(600))
    ]
    assert 0.92 < np.mean(held) < 0.975


def test_scores_of_short_rows_are_numbers():
    tokens = [np.array([-4.0]), np.array([-1.0, -3.0]), np.array([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0])]
    assert membership.loss(tokens).tolist() == [-4, -2, -3.5]
    assert membership.min_k(tokens).tolist() == [-4, -3, -6]  # int(1 · 0.2) is 0: at least one token is used
    assert membership.min_k(tokens, 0.5).tolist() == [-4, -3, -5]
    assert np.isfinite(membership.by_zlib(tokens, ["", "a", "abc"])).all()


@pytest.mark.parametrize(
    ("hits", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table II, method 10
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((6, 7, 2, 7), 0.0582, 0.8062),
        ((5, 56, 0, 29), -0.0381, 0.1926),
        ((0, 10, 0, 20), -0.1611, 0.2775),
        ((10, 10, 0, 20), 0.6791, 1.0),
    ],
)
def test_newcombes_intervals_are_those_of_his_paper(hits, low, high):
    assert Rates(*hits).interval() == pytest.approx((low, high), abs=5e-5)


def test_fishers_test_and_the_detectable_difference():
    assert Rates(3, 4, 1, 4).p_value() == pytest.approx(17 / 70)  # Fisher's example of eight cups of tea
    assert Rates(0, 10, 0, 10).p_value() == 1
    needed = next(k for k in range(100) if Rates(k, 100, 0, 100).p_value() < 0.05)
    rate = Rates(0, 100, 0, 100).detectable()
    rng = np.random.default_rng(0)
    assert (rng.binomial(100, rate, 20_000) >= needed).mean() == pytest.approx(0.8, abs=0.01)
    assert math.isnan(Rates(0, 2, 0, 2).detectable())  # with two rows, no difference is significant
    assert math.isnan(Rates(0, 0, 0, 5).difference)


def test_rouge_l():
    assert extraction.rouge_l([1, 2, 3, 4], [1, 2, 3, 4]) == 1
    assert extraction.rouge_l([1, 2, 3, 4], [1, 9, 3, 4]) == 0.75
    assert extraction.rouge_l([1, 1], [1, 2]) == 0.5  # each token is matched at most once
    assert extraction.rouge_l([1, 2], [3, 1, 4, 2]) == pytest.approx(2 / 3)
    assert extraction.rouge_l([], [1]) == extraction.rouge_l([1], []) == 0


def made(value=0.5, p=1.0, upper=0.5, why_not=""):
    return OneSided("t", "student", "", "AUC", value, 0.5, p, (0.4, 0.6), upper, 0.05, 100, why_not=why_not)


def test_outcomes_are_of_one_side():
    assert outcome(made(0.6, 0.01, 0.7), 0.01) == "found"
    assert outcome(made(0.6, 0.01, 0.7), 0.06) == "inconclusive"  # after the correction
    assert outcome(made(0.54, 0.001, 0.549), 0.001) == "absent"  # the effect is smaller than the margin
    assert outcome(made(0.5, 0.5, 0.56), 0.5) == "inconclusive"  # too few rows to exclude the margin
    assert outcome(made(0.2, 1.0, 0.3), 1.0) == "absent"
    first, second, third = judged([made(0.6, 0.02, 0.7), made(0.6, 0.03, 0.7), made(why_not="void")], "f")
    assert (first.corrected_p, second.corrected_p) == (0.04, 0.04)
    assert (third.outcome, third.p, third.note) == ("not measurable", None, "void")


def test_few_rows_never_show_that_there_is_no_leak():
    few = judged([extraction.difference("extraction, exact", "student", Rates(0, 20, 0, 20), 32, 32)], "extraction")[0]
    many = judged([extraction.difference("extraction, exact", "student", Rates(0, 500, 0, 500), 32, 32)], "extraction")[
        0
    ]
    assert (few.outcome, many.outcome) == ("inconclusive", "absent")
    assert few.detectable > 0.2


def answers(shift: float, seed: int, rows: int = 200) -> Answers:
    """Scores of a model whose learned rows score higher by `shift` standard deviations."""
    rng = np.random.default_rng(seed)
    sides = rng.normal(shift, 1, rows), rng.normal(0, 1, rows)
    return Answers(scores=dict.fromkeys(("loss", "min-k%", "zlib", "ratio"), sides))


def test_membership_is_void_when_the_rows_differ_by_themselves():
    plan = Plan(PrivacySection(), [], lambda model, most: ([], []), {"exposure": "-", "extraction": "-"})
    both = {"student": answers(1, 0), "untrained student": answers(0, 1)}
    for one in both.values():
        one.refused |= plan.refused
    assert void_because("loss", both["untrained student"]) == ""
    assert {one.outcome for one in measured("student", both, plan) if one.name.startswith("membership")} == {"found"}
    both["untrained student"] = answers(1, 1)
    tests = [one for one in measured("student", both, plan) if one.name.startswith("membership by")]
    assert len(tests) == 4
    assert {one.outcome for one in tests} == {"not measurable"}
    assert "differ by themselves" in tests[0].note
    both["untrained student"] = Answers(scores={"loss": (np.full(9, np.nan), np.zeros(9))})
    assert "not numbers" in void_because("ratio", both["untrained student"])
    both["untrained student"] = Answers(refused={"membership": "no weights"})
    assert "no weights" in measured("student", both, plan)[-1].note


def test_the_default_number_of_rows_is_enough_to_show_that_nothing_is_extracted():
    rows = PrivacySection().extraction_rows
    for number, outcome_of in ((267, "inconclusive"), (268, "absent"), (rows, "absent")):
        made_of = extraction.difference("extraction, exact", "student", Rates(0, number, 0, number), 32, 32)
        assert judged([made_of], "extraction")[0].outcome == outcome_of, number
