"""The loss statement finds planted refusals, languages, repetition and overconfidence. Models that do not differ get no
verdict.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.evaluation.diversity import _BLOCKS as BLOCKS
from distill.evaluation.diversity import _T as QUANTILES
from distill.evaluation.diversity import Grams, distinct, diverse, self_bleu, words
from distill.evaluation.grouped import DIFFERENCE, Scale
from distill.evaluation.lost import NLL, RIGHT, calibrated, compared
from distill.evaluation.said import said
from distill.evaluation.slices import BINS, binned, calibration_bins, chance_error
from synthgen.errors import UserError
from synthgen.results.measures import Interval
from synthgen.results.statement import Entry
from synthgen.results.statement_text import verdict

PROMPT = "Please describe the weather of this week in a few simple sentences for my family."
ENGLISH = "The weather was mild all week, and on Sunday the sun was shining over the hills."
GERMAN = "Das Wetter war die ganze Woche mild, und am Sonntag schien die Sonne über den Hügeln."
REFUSES = "I'm sorry, but I can't help with that."


def scale(count: int, each: int = 1) -> Scale:
    """Groups of `each` rows."""
    return Scale([str(n // each) for n in range(count)], 0)


def asked(count: int) -> list[SimpleNamespace]:
    return [SimpleNamespace(prompt=[{"role": "user", "content": PROMPT}], text=PROMPT) for _ in range(count)]


def zipf(count: int, length: int, seed: int, words: int = 300) -> list[str]:
    """Texts whose words are independent draws. The n-th word has a probability that is proportional to 1/n."""
    shares = 1 / np.arange(1, words + 1)
    drawn = np.random.default_rng(seed).choice(words, (count, length), p=shares / shares.sum())
    return [" ".join(f"w{n}" for n in line) for line in drawn]


def bleu(lines: Sequence[Sequence[str]]) -> float:
    """Self-BLEU, computed for one text after the other by its definition."""
    found = []
    for n, line in enumerate(lines):
        logs = []
        for order in range(1, min(4, len(line)) + 1):

            def grams(some, order=order):
                return Counter(tuple(some[i : i + order]) for i in range(len(some) - order + 1))

            others = [grams(other) for m, other in enumerate(lines) if m != n]
            most = {gram: max(other[gram] for other in others) for gram in grams(line)}
            matched = sum(min(count, most[gram]) for gram, count in grams(line).items())
            logs.append(math.log((matched or 0.1) / grams(line).total()))
        if len(line) > 1:
            found.append(math.exp(sum(logs) / len(logs)))
    return sum(found) / len(found)


@pytest.mark.parametrize("seed", range(4))
def test_diversity_is_as_defined(seed):
    random = np.random.default_rng(seed)
    lines = [[f"w{n}" for n in random.integers(0, 6, random.integers(0, 9))] for _ in range(9)]
    lines += [["a", "b", "a", "b", "a", "b"], ["a", "b", "a", "b", "c"], ["a", "b"], ["z"], []]
    grams = Grams.of(lines)
    assert self_bleu(grams) == pytest.approx(bleu(lines))
    pairs = [pair for line in lines for pair in pairwise(line)]
    assert distinct(grams) == pytest.approx(len(set(pairs)) / len(pairs))
    left_out = np.arange(len(lines)) < 3
    assert self_bleu(grams.without(left_out)) == pytest.approx(bleu(lines[3:]))


def test_longer_texts_are_not_less_diverse():
    """Both models draw from the same words, and one model writes three times as many words."""
    texts = {"student": zipf(40, 60, 1), "teacher": zipf(40, 20, 2)}
    whole = {role: distinct(Grams.of([words(text) for text in some])) for role, some in texts.items()}
    assert whole["student"] < whole["teacher"] - 0.05, "without cutting, the longer texts seem to repeat more"
    for entry in diverse(texts, scale(40)):
        assert verdict(entry, "minus_teacher") == "no clear difference", entry
        assert entry.missing == {}
        assert "each model has 800 words" in entry.note


def test_a_model_that_repeats_itself_is_less_diverse():
    line = zipf(1, 20, 3)[0]
    texts = {"student": [line if n % 2 else text for n, text in enumerate(zipf(40, 20, 1))], "base": zipf(40, 20, 2)}
    assert [verdict(entry, "minus_base") for entry in diverse(texts, scale(40))] == ["worse", "worse"]
    for entry in diverse({"student": texts["base"], "base": texts["student"]}, scale(40)):
        assert verdict(entry, "minus_base") == "better"
        assert entry.teacher is entry.minus_teacher is None


def test_the_intervals_of_diversity_are_neither_too_narrow_nor_too_wide():
    """The standard error from the jackknife, compared with the deviation of values over new draws of all texts. Rows of
    one group have the same words."""
    values, errors = [], []
    for seed in range(60):
        some = zipf(30, 12, seed)
        entry, _ = diverse({"student": [some[n // 2] for n in range(60)]}, scale(60, each=2))
        values.append(entry.student.mean)
        errors.append((entry.student.high - entry.student.low) / 2 / 2.093)
    assert 0.75 < np.mean(errors) / np.std(values, ddof=1) < 1.5


def test_the_table_of_students_t_is_that_of_scipy():
    from scipy import stats

    degrees = np.arange(1, BLOCKS)
    assert pytest.approx(stats.t.ppf(0.975, degrees), abs=6e-4) == QUANTILES


def test_texts_that_are_too_short_or_too_few_have_no_diversity():
    short = [""] * 20 + ["yes no"] * 20
    long = zipf(40, 20, 1)
    for entry in diverse({"student": long, "base": short, "teacher": zipf(40, 20, 2)}, scale(40)):
        assert set(entry.missing) == {"base"}
        assert "20 pairs of words, and 50 are needed" in entry.missing["base"]
        assert "800 words" in entry.note, "the student and the teacher are not cut to the length of the base"
    for entry in diverse({"student": short, "base": long}, scale(40)):
        assert entry.student is None
        assert set(entry.missing) == {"student"}
    for entry in diverse({"student": long, "base": long}, scale(40, each=10)):
        assert entry.missing == {"student": "the answers are of 4 groups, and 8 are needed"}
        assert entry.student is entry.minus_base is None
    mute = [""] * 36 + long[36:]
    for entry in diverse({"student": mute, "base": long}, scale(40)):
        assert entry.missing == {"student": "the answers are of 4 groups, and 8 are needed"}
    for entry in diverse({"student": long, "base": long}, scale(40, each=5)):
        assert (entry.n, entry.groups, entry.missing) == (40, 8, {}), "8 groups are enough"
        assert entry.minus_base == Interval(0.0, 0.0, 0.0)
    some = [*long[:30], *["no"] * 10]
    for entry in diverse({"student": some, "base": long}, scale(40)):
        assert (entry.n, entry.groups, entry.missing) == (30, 30, {})


def test_words_of_scripts_without_spaces():
    assert words("Hello, World!") == ["hello", ",", "world", "!"]
    assert words("我有3个苹果。") == ["我", "有", "3", "个", "苹", "果", "。"]
    assert words("สวัสดี ok") == [*"สวัสดี", "ok"]
    assert words("") == []


def entry_on(entries: Sequence[Entry], dimension: str) -> Entry:
    [found] = [one for one in entries if one.dimension == dimension]
    return found


def test_planted_refusals_and_languages_are_found():
    texts = {
        "teacher": [ENGLISH] * 20,
        "base": [GERMAN] * 20,
        "student": [REFUSES] * 12 + [GERMAN] * 4 + [ENGLISH] * 4,
    }
    entries = said(asked(20), texts, scale(20), most=9)
    refusals = entry_on(entries, "refusals")
    assert refusals.student.mean == pytest.approx(0.6)
    assert refusals.teacher.mean == refusals.base.mean == 0.0
    assert verdict(refusals, "minus_teacher") == "higher"
    languages = entry_on(entries, "languages")
    assert languages.student.mean == pytest.approx(0.5), "a short refusal has no language"
    assert (languages.n, languages.groups) == (8, 8)
    assert languages.teacher.mean == 1.0
    assert languages.base.mean == 0.0
    assert "20 (teacher), 20 (base), 8 (student)" in languages.note
    assert verdict(languages, "minus_teacher") == "worse"
    assert verdict(languages, "minus_base") == "better"
    length = entry_on(entries, "length")
    assert length.teacher.mean == len(words(ENGLISH))
    assert verdict(length, "minus_teacher") == "lower"
    assert "cut off at 9 tokens" in length.note


def test_a_prompt_that_asks_for_a_refusal_is_not_refused():
    rows = asked(9)
    for row in rows:
        row.prompt[0]["content"] = f"Translate into German: '{REFUSES}'"
    [entry] = [one for one in said(rows, {"student": [REFUSES] * 9}, scale(9)) if one.dimension == "refusals"]
    assert entry.student.mean == 0.0


def test_a_reason_stands_for_what_has_no_value():
    entries = said(asked(9), {"student": [""] * 9}, scale(9), missing={"teacher": "nobody asked it"})
    for entry in entries:
        assert entry.teacher is entry.base is entry.minus_teacher is None
        assert entry.missing["teacher"] == "nobody asked it"
    assert "too short" in entry_on(entries, "languages").missing["student"]
    assert entry_on(entries, "languages").n == 0


def test_rows_without_a_reference_are_left_out():
    right, other = np.array([1, 0, np.nan, 1] * 5), np.array([0, 0, 1, np.nan] * 5)
    found = compared(RIGHT, {"student": right, "base": other}, scale(20))
    assert found.student.mean == pytest.approx(2 / 3)
    assert found.minus_base.mean == pytest.approx(0.5), "only rows where both values are known are compared"
    assert (found.n, found.groups, found.teacher) == (15, 15, None)
    nothing = compared(RIGHT, {"student": np.full(4, np.nan)}, scale(4), nothing="no reference")
    assert (nothing.student, nothing.n, nothing.missing) == (None, 0, {"student": "no reference"})


def test_values_that_are_all_equal_prove_little():
    """The exact interval of Clopper and Pearson for 0 of 10 is [0, 0.3085]."""
    zeros = compared(RIGHT, {"student": np.zeros(10), "base": np.zeros(10)}, scale(10))
    assert (zeros.student.low, zeros.student.high) == (0.0, pytest.approx(0.3085, abs=1e-4))
    assert (zeros.minus_base.low, zeros.minus_base.high) == pytest.approx((-0.3085, 0.3085), abs=1e-4)
    ones = scale(10).known(np.ones(10))
    assert (ones.low, ones.high) == (pytest.approx(0.6915, abs=1e-4), 1.0)
    assert scale(10).known(np.ones(10), DIFFERENCE).low == pytest.approx(1 - 2 * 0.3085, abs=1e-3)
    assert scale(20, each=2).known(np.zeros(20)).high == zeros.student.high, "rows of one group count once"
    nats = compared(NLL, {"student": np.ones(10), "base": np.ones(10)}, scale(10), weights=np.full(10, 2.0))
    assert nats.minus_base == Interval(0.0, 0.0, 0.0), "equal likelihoods are equal"


def test_few_groups_have_no_verdict():
    for groups, word in ((7, ""), (8, "better")):
        found = compared(RIGHT, {"student": np.ones(groups), "teacher": np.zeros(groups)}, scale(groups))
        assert verdict(found, "minus_teacher") == word
    alone = compared(RIGHT, {"student": np.ones(9), "teacher": np.zeros(9)}, scale(9, each=9))
    assert (alone.student, alone.minus_teacher, verdict(alone, "minus_teacher")) == (1.0, 1.0, "")


def test_a_difference_over_few_rows_has_no_verdict():
    """The student was measured on 20 groups, and the base on 4 of them."""
    base = np.full(20, np.nan)
    base[:4] = [0, 0, 0, 1]
    found = compared(RIGHT, {"student": np.ones(20), "base": base}, scale(20))
    assert found.minus_base == 0.75
    assert verdict(found, "minus_base") == ""
    assert "The difference from the base is over 4 prompts in 4 groups." in found.note
    assert "The difference" not in compared(RIGHT, {"student": base, "base": base}, scale(20)).note
    least = compared(RIGHT, {"student": np.ones(8), "base": base[:8]}, scale(8))
    assert (least.groups, least.minus_base) == (8, 0.75), "8 groups would be enough for a verdict, and 4 are not"
    few = compared(RIGHT, {"student": np.ones(4), "base": np.zeros(4)}, scale(4))
    assert isinstance(few.minus_base, Interval), "`Entry.groups` shows that there are only four groups"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_have_no_mean(bad):
    nats = np.array([1.0] * 9 + [bad])
    found = compared(NLL, {"student": nats, "base": np.ones(10)}, scale(10), weights=np.full(10, 2.0))
    assert found.student is found.minus_base is None
    assert "not numbers" in found.missing["student"]
    with pytest.raises(UserError, match="not a number"):
        calibration_bins(torch.full((3, 7), float("nan")), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("hits", [0, 1])
def test_predictions_that_are_all_right_or_all_wrong_do_not_show_how_sure_a_model_should_be(hits):
    """With 12 hits of 12, the true share of hits can be 0.8. Then the surer of two models is the worse one."""
    bins = {"student": binned(np.full(12, 0.98), np.full(12, hits)), "teacher": predictions(12, 0, 0)}
    for entry in calibrated(bins, scale(12), what="label", hit="right", unit="texts"):
        assert isinstance(entry.student, float)
        assert isinstance(entry.teacher, Interval)
        assert isinstance(entry.minus_teacher, float)
        assert verdict(entry, "minus_teacher") == ""
        assert "No interval depends on the student" in entry.note


def predictions(count: int, shift: float, seed: int) -> np.ndarray:
    """(R, 15, 3) of one prediction a row. A prediction is right with a probability that is lower by `shift` than its
    confidence.
    """
    random = np.random.default_rng(seed)
    sure = random.uniform(0.3, 0.95, count)
    return binned(sure, (random.random(count) < sure - shift).astype(float))


def test_a_planted_overconfidence_is_found():
    bins = {"student": predictions(600, 0.2, 0), "teacher": predictions(600, 0.0, 1)}
    error, sure = calibrated(bins, scale(600), what="label", hit="right", unit="texts")
    assert sure.student.mean == pytest.approx(0.2, abs=0.05)
    assert sure.teacher.low < 0 < sure.teacher.high
    assert verdict(sure, "minus_teacher") == "higher"
    assert error.student.mean == pytest.approx(0.2, abs=0.05)
    assert verdict(error, "minus_teacher") == "worse"
    assert error.minus_teacher.mean == pytest.approx(error.student.mean - error.teacher.mean)
    assert (error.n, error.groups, error.unit) == (600, 600, "texts")


def test_rows_of_one_group_give_calibration_no_interval():
    """A bootstrap of one group draws the same rows again and again, and its interval would have no width."""
    bins = {"student": predictions(60, 0.2, 0), "base": predictions(60, 0.0, 1)}
    for groups, kind in ((1, float), (2, Interval), (3, Interval)):
        for entry in calibrated(bins, scale(60, each=60 // groups), what="label", hit="right", unit="texts"):
            assert [type(one) for one in (entry.student, entry.base, entry.minus_base)] == [kind] * 3, entry.measure
            assert entry.groups == groups


def test_models_that_are_perfectly_calibrated_do_not_differ():
    """A model that is sure has a smaller calibration error by chance than a model that is not."""

    def perfect(low: float, high: float, seed: int) -> np.ndarray:
        random = np.random.default_rng(seed)
        sure = random.uniform(low, high, 200)
        return binned(sure, (random.random(200) < sure).astype(float))

    for seed in range(8):
        bins = {"student": perfect(0.93, 0.99, seed), "base": perfect(0.3, 0.8, 100 + seed)}
        error, _ = calibrated(bins, scale(200), what="label", hit="right", unit="texts")
        assert error.minus_base.low < error.minus_base.mean < -0.02
        assert verdict(error, "minus_base") == "no clear difference"


@pytest.mark.parametrize("count", [30, 300])
def test_the_error_that_chance_alone_gives(count):
    """In a small sample, a perfectly calibrated model has a calibration error above zero. The note states how large it
    is.
    """
    errors = []
    for seed in range(150):
        bins = predictions(count, 0.0, seed)
        errors.append(np.abs((bins[..., 2] - bins[..., 1]).sum(0)).sum() / count)
    assert chance_error(predictions(count, 0.0, 0)) == pytest.approx(np.mean(errors), rel=0.15)
    assert np.mean(errors) > 0.04


def test_a_classifier_is_compared_with_the_labels_of_the_seeds():
    """The teacher is always right and sure. The student confuses half of the labels, and one row has no label."""
    from distill.evaluation.classifiers import _statement

    labels = np.array([0, 1] * 10 + [-1])
    teacher = np.eye(2)[labels.clip(0)]
    student = np.where(np.arange(21)[:, None] % 4 < 2, teacher, 1 - teacher) * 0.6 + 0.2
    found = {
        one.measure: one for one in _statement({"teacher": teacher, "student": student}, labels, scale(21)).entries
    }
    right, same = found["answers right"], found["same label as the teacher"]
    assert (right.n, right.teacher.mean, right.student.mean) == (20, 1.0, 0.5)
    assert verdict(right, "minus_teacher") == "worse"
    assert (same.n, same.student.mean, same.teacher) == (21, pytest.approx(11 / 21), None)
    log_loss = found["−log q of the right label, nats"]
    assert log_loss.student.mean == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2)
    assert log_loss.minus_teacher.mean == pytest.approx(log_loss.student.mean)
    assert found["confidence minus share of hits"].student.mean == pytest.approx(0.3)
    assert found["calibration error"].n == 20
    assert all(one.missing["base"].startswith("the evaluation of this kind") for one in found.values())
    nothing = _statement({"teacher": teacher, "student": student}, np.full(21, -1), scale(21)).entries
    assert [one.measure for one in nothing if one.student is not None] == ["same label as the teacher"]


@pytest.mark.parametrize("seed", range(3))
def test_table_and_statement_of_a_classifier_say_the_same(seed):
    """Three students: one that is right about half of the time, one that is always right, and one that never is."""
    from distill.evaluation.classifiers import _quality, _statement

    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, 24)
    teacher = random.dirichlet(np.full(3, 0.1), 24) * 0.1 + np.eye(3)[labels] * 0.9
    some = np.where(random.random((24, 1)) < 0.5, teacher, np.roll(teacher, 1, -1))
    for student in (some, teacher * 0.7 + 0.1, np.roll(teacher, 1, -1)):
        row = _quality(student, teacher, labels, scale(24, 2).groups, 0)
        entries = _statement({"teacher": teacher, "student": student}, labels, scale(24, 2)).entries
        found = {one.measure: one.student for one in entries}
        assert row["accuracy"] == found["answers right"]
        assert row["agreement"] == found["same label as the teacher"]
        assert row["accuracy"].mean == (student.argmax(-1) == labels).mean()
        assert row["accuracy"].low < row["accuracy"].high, "24 texts do not prove that every text is right, or none"
        divergence = (teacher * np.log(np.maximum(teacher, 1e-9) / np.maximum(student, 1e-9))).sum(-1).mean()
        assert row["kl"].mean == pytest.approx(divergence)
    itself = _quality(teacher, teacher, labels, scale(24, 2).groups, 0)
    assert itself["agreement"] == Interval(1.0, 1.0, 1.0), "a teacher agrees with itself"
    assert itself["accuracy"].low == pytest.approx(0.025 ** (1 / 12))


def test_calibration_without_a_known_answer():
    empty = np.zeros((9, BINS, 3))
    [error] = calibrated({"student": empty, "teacher": predictions(9, 0, 0)}, scale(9), what="label", hit="", unit="")
    assert error.student is None
    assert error.missing["student"] == "no label has a known answer"
    both = calibrated({"student": predictions(9, 0, 0), "base": empty}, scale(9), what="label", hit="", unit="")
    assert [one.base for one in both] == [None, None]
    assert all(one.missing == {"base": "no label has a known answer"} for one in both)
