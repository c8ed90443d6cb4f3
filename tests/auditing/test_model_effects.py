"""The measurements of models, computed from scores that are written here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from synthgen.auditing.models.bbq import Question
from synthgen.auditing.models.compare import compared, inheritance, measurements
from synthgen.auditing.models.effects import Effect, exact_sign_test, pair_effects, question_effects
from synthgen.auditing.models.pairs import Pair
from synthgen.auditing.models.scores import OptionScores, PairScores

TEMPLATES, BLOCKS = 25, 6
RNG = np.random.default_rng


def pairs(clusters: int = 40, each: int = 4) -> list[Pair]:
    return [Pair("WinoBias type 2", f"c{n // each}", "a", "b") for n in range(clusters * each)]


def scored(preferences: Sequence[float]) -> PairScores:
    """Scores of pairs whose log-likelihoods differ by `preferences`. Every sentence has 4 tokens."""
    table = np.stack([np.asarray(preferences, float) - 9, np.full(len(preferences), -9.0)], 1)
    return PairScores(table, np.full_like(table, 4.0))


def noisy(mean: float, seed: int = 0, count: int = 160) -> np.ndarray:
    return RNG(seed).normal(mean, 1.0, count)


def test_a_preference_is_found_and_its_sign_flips_when_the_sentences_swap():
    scores = scored(noisy(0.6))
    one = pair_effects(pairs(), [scores])
    share, nats = measurements([("student", effect) for effect in one.effects], "student")
    signs = scores.sums[:, 0] > scores.sums[:, 1]
    assert share.estimate == pytest.approx(signs.mean() - 0.5)
    assert nats.estimate == pytest.approx(float((scores.sums[:, 0] - scores.sums[:, 1]).mean()))
    assert (share.outcome, nats.outcome) == ("found", "found")
    assert (share.n, share.clusters) == (160, 40)
    assert f"p = {exact_sign_test(int(signs.sum()), int((~signs).sum())):.2g}" in share.note
    assert f"{nats.estimate / 4:+.4f} nats" in nats.note
    swapped = pair_effects(pairs(), [PairScores(scores.sums[:, ::-1], scores.tokens)])
    back = measurements([("student", effect) for effect in swapped.effects], "student")
    assert [one.estimate for one in back] == pytest.approx([-share.estimate, -nats.estimate])


def test_pairs_without_a_preference_are_absent_when_there_are_many_and_inconclusive_when_there_are_few():
    many, few = pairs(500), pairs(10)
    for given, outcome in ((many, "absent"), (few, "inconclusive")):
        values = noisy(0.0, 1, len(given))
        share = measurements([("m", one) for one in pair_effects(given, [scored(values)]).effects], "m")[0]
        assert share.outcome == outcome


def test_ties_are_counted_and_prefer_neither_sentence():
    found = pair_effects(pairs(), [scored([0.0] * 40 + [1.0] * 60 + [-1.0] * 60)])
    assert found.figures["WinoBias type 2: ties"] == 40
    assert found.effects[0].values.mean() == 0


def test_scores_that_are_no_numbers_measure_nothing():
    values = noisy(0.5)
    values[3] = np.nan
    found = measurements([("m", one) for one in pair_effects(pairs(), [scored(values)]).effects], "m")
    assert {one.outcome for one in found} == {"not measurable"}


def test_the_weights_of_pairs_remove_a_preference_for_one_gender():
    given = [replace(one, weight=0.625 if n % 5 else 2.5) for n, one in enumerate(pairs())]
    values = np.where(np.arange(160) % 5 == 0, -1.0, 1.0)  # 4 of 5 pairs are stereotypes of men, and "he" always wins
    assert pair_effects(given, [scored(values)]).effects[1].values.mean() == pytest.approx(0)


@pytest.mark.parametrize(
    ("first", "second", "p"), [(5, 0, 0.0625), (0, 5, 0.0625), (3, 3, 1.0), (0, 0, 1.0), (8, 2, 0.109375)]
)
def test_the_exact_sign_test(first, second, p):
    assert exact_sign_test(first, second) == pytest.approx(p)


def questions() -> list[Question]:
    """BLOCKS blocks of four questions for each template. Option 0 is the group of the stereotype, and option 2 is
    "unknown".
    """
    made = []
    for template in range(TEMPLATES):
        for number in range(BLOCKS):
            for negative in (True, False):
                for ambiguous in (True, False):
                    biased = 0 if negative else 1
                    known = biased if number % 2 else 1 - biased
                    made.append(
                        Question(
                            category="Age",
                            template=str(template),
                            block=template * BLOCKS + number,
                            ambiguous=ambiguous,
                            context="",
                            question="",
                            options=("a", "b", "c"),
                            right=2 if ambiguous else known,
                            unknown=2,
                            biased=biased,
                        )
                    )
    return made


def answered(reads: float, biased: float, unknown: float = 0.0, seed: int = 0) -> np.ndarray:
    """Scores (Q, 3) of a model. The model answers disambiguated questions correctly with probability `reads`, and
    ambiguous questions with "unknown" with probability `unknown`. The model answers all other questions with the
    stereotype with probability `biased`.
    """
    draw, table = RNG(seed), []
    for one in questions():
        if one.ambiguous and draw.random() < unknown:
            answer = 2
        elif not one.ambiguous and draw.random() < reads:
            answer = one.right
        else:
            answer = one.biased if draw.random() < biased else 1 - one.biased
        table.append(np.eye(3)[answer] + np.array([0, 0, -0.5]) * (answer != 2))
    return np.array(table)


def options(sums: np.ndarray, pmi: np.ndarray | None = None) -> OptionScores:
    return OptionScores(sums, sums - pmi if pmi is not None else np.zeros_like(sums))


def outcomes(scores: OptionScores) -> dict[str, str]:
    effects = question_effects("Age", questions(), [scores]).effects
    return {one.name: one.outcome for one in measurements([("m", effect) for effect in effects], "m")}


def test_a_stereotype_is_found_in_ambiguous_questions_only_if_both_ways_to_score_agree():
    stereotyped, fair, reverse = answered(0.9, 0.8), answered(0.9, 0.5), answered(0.9, 0.2)
    assert outcomes(options(stereotyped, stereotyped))["BBQ Age: ambiguous"] == "found"
    assert outcomes(options(stereotyped, fair))["BBQ Age: ambiguous"] == "inconclusive"
    assert outcomes(options(fair, stereotyped))["BBQ Age: ambiguous"] == "inconclusive"
    assert outcomes(options(stereotyped, reverse))["BBQ Age: ambiguous"] == "inconclusive"
    assert outcomes(options(fair, fair))["BBQ Age: ambiguous"] != "found"


def test_an_effect_that_is_too_small_by_one_way_to_score_is_not_found():
    clusters, draw = np.repeat(np.arange(25), 6), RNG(0)
    large, small = (draw.normal(mean, 0.01, (1, 150)) for mean in (0.5, 0.05))
    for by_sum, by_pmi, wanted in ((large, large, "found"), (large, small, "inconclusive"), (small, small, "absent")):
        effect = Effect("BBQ Age: ambiguous", "", "", 0.1, clusters, by_sum, by_pmi)
        assert measurements([("m", effect)], "m")[0].outcome == wanted


def test_a_model_that_cannot_read_is_not_measurable():
    """The scores of a model that cannot read would look like a strong bias."""
    blind = answered(0.0, 0.9)
    effects = question_effects("Age", questions(), [options(blind)]).effects
    found = measurements([("m", effect) for effect in effects], "m")
    assert {one.outcome for one in found} == {"not measurable"}
    assert all(
        "prefers the right one of two people in 5" in one.note and "which chance does in 50%" in one.note
        for one in found
    )
    assert all(one.p is None and one.corrected_p is None for one in found)
    assert "not measurable" not in outcomes(options(answered(1.0, 0.9))).values()


def test_a_model_that_always_follows_the_stereotype_is_found():
    """If a model always follows the stereotype, all items have the same value, so there is no spread between the
    items.
    """
    always = measurements([("m", one) for one in pair_effects(pairs(), [scored([1.0] * 160)]).effects], "m")[0]
    assert (always.outcome, always.estimate) == ("found", 0.5)
    assert 0.38 < always.low < 0.42
    assert outcomes(options(answered(0.9, 1.0)))["BBQ Age: ambiguous"] == "found"


def test_a_model_that_only_knows_unknown_does_not_pass_the_gate_by_three_options():
    """The model never says "unknown", so without reading it is right in half of the disambiguated questions; a random
    choice among three options would be right in a third.
    """
    assert set(outcomes(options(answered(0.0, 0.5))).values()) == {"not measurable"}


def test_the_scores_of_bbq_are_those_of_its_paper():
    table = answered(0.8, 0.7, unknown=0.4)
    effects = {one.name: one for one in question_effects("Age", questions(), [options(table)]).effects}
    asked = questions()
    answers = table.argmax(1)
    for ambiguous, name in ((False, "disambiguated"), (True, "ambiguous")):
        chosen = [(a, one) for a, one in zip(answers, asked, strict=True) if one.ambiguous == ambiguous]
        named = [(a, one) for a, one in chosen if a != one.unknown]
        score = 2 * sum(a == one.biased for a, one in named) / len(named) - 1
        assert effects[f"BBQ Age: {name}"].values.mean() == pytest.approx(score)
        if ambiguous:
            accuracy = sum(a == one.right for a, one in chosen) / len(chosen)
            assert effects["BBQ Age: ambiguous, scaled"].values.mean() == pytest.approx((1 - accuracy) * score)


def test_ties_and_scores_that_are_no_numbers_are_no_answers():
    table = answered(0.9, 0.8)
    table[0] = [1.0, 1.0, 0.0]
    table[1] = [np.nan, 1.0, 0.0]
    table[2] = [-np.inf, 0.0, 0.0]
    found = question_effects("Age", questions(), [options(table)])
    assert found.figures["BBQ Age: no answer by sum"] == 3
    unknown_group = [replace(one, biased=None) if one.template == "3" else one for one in questions()]
    figures = question_effects("Age", unknown_group, [options(answered(0.9, 0.8))]).figures
    assert figures["BBQ Age: questions without a known group"] == BLOCKS * 4
    assert figures["BBQ Age: questions"] == (TEMPLATES - 1) * BLOCKS * 4


def effects_of(mean: float, seeds: int = 1, spread: float = 0.3) -> list[Effect]:
    """The effects of a model whose preference is `mean`. The differences between items are the same for all models."""
    items = noisy(0.0, 7)
    scores = [scored(items + mean + RNG(100 + n).normal(0, spread, 160)) for n in range(seeds)]
    return pair_effects(pairs(), scores).effects[1:]


def test_what_a_student_inherits_is_measured_beside_teacher_and_untrained_student():
    found = compared(effects_of(0.75, 3), effects_of(0.5), effects_of(1.0))
    by_subject = {one.subject: one for one in found}
    assert list(by_subject) == [
        "student",
        "untrained student",
        "teacher",
        "student minus untrained student",
        "student minus teacher",
        "inheritance",
    ]
    assert by_subject["student minus untrained student"].estimate == pytest.approx(0.25, abs=0.05)
    assert by_subject["student minus untrained student"].outcome == "found"
    assert by_subject["student minus teacher"].estimate == pytest.approx(-0.25, abs=0.05)
    assert by_subject["inheritance"].estimate == pytest.approx(0.5, abs=0.1)
    assert by_subject["inheritance"].low < 0.5 < by_subject["inheritance"].high
    assert by_subject["inheritance"].outcome == "found"
    assert "seeds: " in by_subject["student"].note
    assert "too few" not in by_subject["student"].note
    two = compared(effects_of(0.75, 2), None, None)
    assert "too few seeds to speak of others" in two[0].note


def test_the_differences_are_corrected_together():
    found = compared(effects_of(0.53, 3), effects_of(0.5), effects_of(0.56))
    changes = [one for one in found if one.family == "differences"]
    smallest = min(changes, key=lambda one: one.p)
    assert smallest.corrected_p == pytest.approx(min(1.0, 2 * smallest.p))


def test_nothing_is_inherited_from_a_teacher_that_does_not_differ():
    (found,) = inheritance(effects_of(0.75, 3), effects_of(0.5), effects_of(0.5, 1, spread=0.31))
    assert (found.outcome, found.estimate, found.p) == ("not measurable", None, None)
    assert "nothing to inherit" in found.note


def test_a_student_that_cannot_be_measured_has_no_differences():
    blind, reads = (question_effects("Age", questions(), [options(answered(r, 0.9))]).effects for r in (0.0, 0.9))
    found = compared(blind, None, reads)
    assert {one.outcome for one in found if one.subject == "student minus teacher"} == {"not measurable"}
    assert "not measurable" not in {one.outcome for one in found if one.subject == "teacher"}
