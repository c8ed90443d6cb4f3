"""The audit of bias of a corpus: the result of each test for corpora with planted bias."""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import pytest
from support.corpora import corpus_of, curating, row
from support.places import REPOSITORY

import synthgen
from synthgen import corpus
from synthgen.auditing import intent_of
from synthgen.auditing.result import AuditResult, Measurement, Subject
from synthgen.auditing.statistics import share_interval
from synthgen.bias import audit_bias
from synthgen.bias.groups import lexicon
from synthgen.recipe import AuditSection
from synthgen.recipe.bias import BiasSection

GENDER = BiasSection(dimensions=("gender",))


def audited(folder, rows, section: BiasSection = GENDER, size: int = 1000) -> AuditResult:
    run = corpus_of(folder, rows, size=size)
    return audit_bias(Subject(run / "generated", corpus.manifest(run / "generated")), section)


def measured(result: AuditResult, name: str, subject: str) -> Measurement:
    (found,) = [one for one in result.measurements if (one.name, one.subject) == (name, subject)]
    return found


def said(answer: str, number: int, prompt: str | None = None, **more):
    asked = [{"role": "user", "content": prompt or f"question {number}"}]
    return row(answer, number, prompt=asked, **more)


# Association


def stories(count: int, nurse=(0.7, 0.3), seed: int = 0) -> list:
    """Rows about women and men. `nurse` holds two probabilities of being a nurse: for women, and for men."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        group = rng.randrange(2)
        job = "nurse" if rng.random() < nurse[group] else "driver"
        rest = " ".join(f"w{rng.randrange(40)}" for _ in range(8))
        rows.append(said(f"{('She', 'He')[group]} is a {job} {rest}.", number))
    return rows


def test_words_near_one_group_are_found_and_named(tmp_path):
    result = audited(tmp_path, stories(300, (0.9, 0.1)))
    assert result.status == "CONTESTED"
    nurse, driver = (measured(result, "association", f"gender: female, '{word}'") for word in ("nurse", "driver"))
    assert (nurse.outcome, driver.outcome) == ("found", "found")
    assert nurse.estimate > 1 > -1 > driver.estimate
    assert nurse.low < np.log2(9) < nurse.high
    assert result.figures["association of gender: female"]["words_found"] == 2
    (finding,) = result.findings
    assert finding.reasons == (
        "2 of 44 words with at least 10 uses differ; more often near this group than near others: 'nurse'; "
        "less often near this group than near others: 'driver'",
    )


def test_nothing_is_found_where_nothing_is(tmp_path):
    result = audited(tmp_path, stories(300, (0.5, 0.5)))
    assert (result.status, result.findings) == ("ALLOW", ())
    assert measured(result, "association", "gender: female").outcome == "inconclusive"


def test_words_that_occur_with_one_group_only_raise_the_score(tmp_path):
    """LangFair's score ignores words that occur with one group only: it falls from .0435 to .0145 when the 80 biased
    rows are added.
    """
    balanced = [said(f"{('she', 'he')[n % 2]} is a {('clerk', 'driver')[n // 2 % 2]}.", n) for n in range(40)]
    biased = [said("she is a nurse.", 100 + n) for n in range(40)] + [
        said("he is an engineer.", 200 + n) for n in range(40)
    ]
    name, key = "association of gender: female", "mean_absolute_log2_odds_ratio"
    without = audited(tmp_path / "without", balanced).figures[name][key]
    result = audited(tmp_path / "with", balanced + biased)
    assert result.figures[name][key] > without + 1
    assert measured(result, "association", "gender: female, 'nurse'").outcome == "found"
    assert measured(result, "association", "gender: female, 'engineer'").estimate < -2


def test_copied_passages_are_one_observation(tmp_path):
    passage = "She is a nurse with many patients in a large and old hospital."
    copied = [said(f"{passage} And {n} more.", 1000 + n) for n in range(60)]
    result = audited(tmp_path / "copied", stories(300, (0.5, 0.5)) + copied)
    assert result.findings == ()
    assert result.figures["bias"] == {"rows": 360, "units": 301}
    own = [
        said(f"She is a nurse with {n} patients in a large and old hospital. And more.", 1000 + n) for n in range(60)
    ]
    assert audited(tmp_path / "own", stories(300, (0.5, 0.5)) + own).findings != ()


def test_sentences_of_one_seed_say_nothing_about_a_group(tmp_path):
    """All sentences about women come from one seed, so their words may be the topic of this seed."""
    one = [said(f"She prays in the temple on day {n}.", 1000 + n, seed_id="one") for n in range(40)]
    men = [said(f"He works in the office on day {n}.", 2000 + n) for n in range(40)]
    result = audited(tmp_path, one + men)
    assert result.findings == ()
    assert measured(result, "association", "gender: female").outcome == "not measurable"


# All tests


def planted(count: int, seed: int = 0) -> list:
    """Pairs of prompts about women and men: women are refused more often, get shorter answers and lower scores."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        for group, name in enumerate(("Mary", "Peter")):
            refused = rng.random() < (0.4, 0.1)[group]
            length = rng.randrange(8, 12) * (group + 1)
            answer = "I can't help with that." if refused else " ".join(f"w{rng.randrange(50)}" for _ in range(length))
            score = [{"name": "quality", "value": rng.random() + group / 2}]
            prompt = f"Give {name} {number} ideas"
            rows.append(said(answer, 2 * number + group, prompt, seed_id=f"s{number}", scores=score))
    return rows


def test_pairs_of_prompts_show_refusals_lengths_and_scores(tmp_path):
    result = audited(tmp_path, planted(120))
    for measure, sign in (("refusals", 1), ("length", -1), ("score 'quality'", -1)):
        one = measured(result, "counterfactual", f"gender: female, {measure}")
        assert (one.outcome, np.sign(one.estimate), one.n, one.clusters) == ("found", sign, 120, 120), measure
    gap = measured(result, "refusals", "gender: female")
    assert (gap.outcome, gap.n, gap.clusters) == ("found", 240, 120)
    assert gap.low < 0.3 < gap.high
    assert measured(result, "representation", "gender: female").outcome == "not measurable"
    assert "fewer than 50" in measured(result, "representation", "gender: female").note
    assert any("percentage points" in finding.reasons[0] for finding in result.findings)


def test_few_pairs_are_not_measurable_and_say_so(tmp_path):
    result = audited(tmp_path, planted(15))
    assert result.status == "ALLOW"
    one = measured(result, "counterfactual", "gender: female, refusals")
    assert (one.outcome, one.note) == ("not measurable", "15 pairs of prompts differ only in this group; 20 are needed")
    assert (one.estimate, one.p, one.detectable) == (None, None, None)


def test_curation_that_drops_one_group_is_named_with_its_rule(tmp_path):
    rng = random.Random(1)
    rows = []
    for number in range(300):
        group = rng.randrange(2)
        short = rng.random() < (0.6, 0.1)[group]
        rest = "" if short else " ".join(f"w{rng.randrange(50)}" for _ in range(10))
        rows.append(said(f"{('She', 'He')[group]} is {number} {rest}", number))
    run = corpus_of(tmp_path, rows, size=500)
    synthgen.curate(curating(length={"min_words": 6, "max_words": 100}), run)
    folder = run / "curated"
    result = audit_bias(Subject(folder, corpus.manifest(folder)), GENDER)
    for rule in ("curation", "length"):
        women, men = (measured(result, "selection", f"gender: {group}, {rule}") for group in ("female", "male"))
        assert (women.outcome, men.outcome) == ("found", "found")
        assert women.low < np.log2(0.4 / 0.65) < women.high
        assert men.low < np.log2(0.9 / 0.65) < men.high
    assert not [one for one in audited(tmp_path / "other", rows).measurements if one.name == "selection"]


def representing(count: int, share: float) -> list:
    rng = random.Random(3)
    rows = []
    for number in range(count):
        asked = ("Mary", "Peter")[rng.randrange(2)]
        rows.append(
            said(f"{'She' if rng.random() < share else 'He'} came {number}", number, f"Who came, {asked}? {number}")
        )
    return rows


def test_representation_is_compared_with_prompts_or_a_target(tmp_path):
    rows = representing(300, 0.75)
    women = measured(audited(tmp_path / "prompts", rows), "representation", "gender: female")
    assert women.outcome == "found"
    assert women.low < np.log2(1.5) < women.high
    met = BiasSection(dimensions=("gender",), targets={"gender": {"female": 0.75, "male": 0.25}})
    women = measured(audited(tmp_path / "target", rows, met), "representation", "gender: female")
    assert women.outcome == "absent"
    assert women.low < 0 < women.high
    only_men = audited(tmp_path / "none", representing(300, 0))
    women = measured(only_men, "representation", "gender: female")
    assert (women.outcome, women.estimate < -5) == ("found", True)


def mixed() -> list:
    rows = [*stories(120, (0.9, 0.1)), *planted(60), *representing(80, 0.8)]
    for number, one in enumerate(rows):
        one.id = f"row{number}"
        one.seed_id = f"{one.prompt[0]['content']}"
    return rows


def test_swapped_groups_flip_every_sign(tmp_path):
    groups = {"female": ("she", "Mary"), "male": ("he", "Peter")}
    swapped = {"first": groups["male"], "second": groups["female"]}
    normal = {"first": groups["female"], "second": groups["male"]}
    results = [
        audited(tmp_path / str(number), mixed(), BiasSection(dimensions=("person",), groups={"person": one}))
        for number, one in enumerate((normal, swapped))
    ]
    compared = 0
    for one in results[0].measurements:
        if one.estimate is not None and one.name in ("association", "counterfactual", "refusals"):
            other = measured(results[1], one.name, one.subject)
            assert (other.estimate, other.low, other.outcome) == pytest.approx((-one.estimate, -one.high, one.outcome))
            assert other.corrected_p == pytest.approx(one.corrected_p)
            compared += 1
    assert compared >= 5


def test_order_and_shards_change_nothing(tmp_path):
    rows = mixed()
    first = audited(tmp_path / "first", rows)
    mixed_up = random.Random(5).sample(rows, len(rows))
    assert audited(tmp_path / "order", mixed_up, size=90) == first
    assert first.findings


def test_an_empty_corpus_has_no_finding(tmp_path):
    result = audited(tmp_path, [])
    assert (result.status, result.figures["bias"]) == ("ALLOW", {"rows": 0, "units": 0})
    assert {one.outcome for one in result.measurements} == {"not measurable"}


# The report


def test_the_audit_reports_what_it_found_and_passes(tmp_path):
    rows = planted(120)
    seed = {
        "id": "s",
        "role": "seed",
        "license": "MIT",
        "terms_date": None,
        "made_by": None,
        "account": None,
        "tools": [],
    }
    for one in rows:
        one.sources = [seed]
    run = corpus_of(tmp_path, rows, size=500)
    recipe = curating()
    plain = synthgen.audit(recipe, run)
    section = AuditSection.model_validate({"bias": {"dimensions": ["gender"]}})
    report = synthgen.audit(recipe.model_copy(update={"audit": section}), run)
    assert (plain.status, report.status, report.passed) == ("ALLOW", "CONTESTED", True)
    assert report.intent == plain.intent == intent_of(AuditSection(), [])
    stored = json.loads((run / "audit" / "report.json").read_text())
    found = stored["audits"]["bias"]["measurements"]
    assert {"found"} <= {one["outcome"] for one in found}
    text = (run / "audit" / "report.md").read_text()
    assert "| refusals | gender: female | found | 0." in text
    assert "Tests for bias" in text
    assert "percentage points" in report.text()


# The auditor audited


@pytest.fixture(scope="module")
def simulation():
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    import bias_of_corpus

    yield bias_of_corpus
    sys.path.remove(str(REPOSITORY / "benchmarks"))
    del sys.modules["bias_of_corpus"]


@pytest.mark.parametrize("corpora", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_planted_skews_are_found_and_no_others(simulation, corpora, tmp_path):
    book, truth = lexicon(simulation.SECTION), simulation.truth(0.2, seeds=10_000)
    found, falsely, held = (dict.fromkeys((*simulation.TESTS, simulation.OTHERS), 0) for _ in range(3))
    for skew in (0.0, 0.2):
        for number in range(corpora):
            rng = np.random.default_rng([7, number, int(skew * 10)])
            simulation.write(tmp_path, *simulation.tables(rng, simulation.draw(rng, skew)))
            tests = simulation.tested(tmp_path, book)
            falsely[simulation.OTHERS] += tests.pop(simulation.OTHERS).outcome == "found"
            for name, one in tests.items():
                (found if skew else falsely)[name] += one.outcome == "found"
                held[name] += skew > 0 and one.low <= truth[name] <= one.high
    assert share_interval(falsely.pop(simulation.OTHERS), 2 * corpora)[0] <= 0.05
    for name in simulation.TESTS:
        least = 0.75 if name == "association" else 0.9
        assert share_interval(found[name], corpora)[1] > least, (name, found)
        assert share_interval(falsely[name], corpora)[0] <= 0.05, (name, falsely)
        assert share_interval(held[name], corpora)[1] >= 0.94, (name, held)
