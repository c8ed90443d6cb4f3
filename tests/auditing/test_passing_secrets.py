"""Tests the measurement of secrets that pass from seeds into the teacher's texts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.small import small_task, small_teacher

import synthgen
from synthgen.auditing import NO_FACTS
from synthgen.auditing.privacy.canaries import DIGITS, make
from synthgen.auditing.result import Subject
from synthgen.errors import RecipeError
from synthgen.manifest import make as manifest
from synthgen.privacy.passing import audit_passing, counted, with_secret
from synthgen.recipe.privacy import PrivacySection


def row(number: int, text: str, copy: str = "") -> SimpleNamespace:
    return SimpleNamespace(seed_id=f"canary-{number}{copy}", completion=[{"role": "assistant", "content": text}])


def test_secrets_are_found_in_the_texts_of_their_own_rows():
    canaries = make(5, (1,), 0)
    spaced = [f"{one.secret[:4]} {one.secret[4:6]}-{one.secret[6:]}" for one in canaries]
    rows = [
        row(0, f"It is {canaries[0].secret}."),
        row(1, "I cannot say."),
        row(1, f"It is {spaced[1]}.", "#2"),
        row(2, f"Not {canaries[0].secret}, and not {canaries[2].secret[:7]}."),
        row(3, ""),
    ]
    test = counted(canaries, iter(rows))  # the teacher did not answer canary 4
    assert (test.value, test.n, test.note) == (0.5, 4, "2 of 4 secrets")
    assert test.p < 1e-5
    none = counted(canaries, iter([]))
    assert none.why_not
    assert counted(canaries, iter([row(3, "no")])).p == 1


def test_the_test_of_secrets_is_exact():
    """A random text has a code of D digits at each of its places with the probability 10^-D, and a share of secrets is
    binomial.
    """
    from scipy import stats

    canaries = make(9, (1,), 0)
    codes = [one.secret for one in canaries]
    silent = [row(n, "No.") for n in range(2, 9)]
    assert counted(canaries, iter([row(0, codes[0]), *silent])).p == pytest.approx(10.0**-DIGITS)
    test = counted(canaries, iter([row(0, f"It is {codes[0]}"), row(1, codes[1][:-1] + "x"), *silent]))
    assert test.p == pytest.approx(8 * 10.0**-DIGITS), "7 places in the first text, and 1 in the second"
    assert test.interval == pytest.approx(tuple(stats.binomtest(1, 9).proportion_ci(method="exact")))
    assert test.upper == pytest.approx(stats.binomtest(1, 9).proportion_ci(0.9, method="exact").high)
    assert (1 - test.detectable) ** 9 == pytest.approx(0.2), "four times in five, at least one secret would be seen"


def test_one_secret_is_a_finding_and_few_seeds_show_nothing():
    from synthgen.auditing.privacy.onesided import judged

    canaries = make(100, (1,), 0)
    silent = [row(n, "no") for n in range(100)]
    assert judged([counted(canaries, iter(silent))], "f")[0].outcome == "absent"
    assert judged([counted(canaries, iter(silent[:20]))], "f")[0].outcome == "inconclusive"
    assert judged([counted(canaries, iter([*silent[1:], row(0, canaries[0].secret)]))], "f")[0].outcome == "found"


def test_the_secret_stands_in_a_field_that_the_question_shows():
    (canary,) = make(1, (1,), 0)
    fields = {"unused": "a long text that no template shows", "question": "1 + 1?", "id": "q", "number": 3}
    changed = with_secret(fields, canary, lambda one: f"Q: {one['question']}")
    assert changed == {**fields, "question": f"1 + 1? The access code of {canary.name} is {canary.secret}."}
    both = {"context": "a long text about sums", "question": "1 + 1?"}
    for order in (both, dict(reversed(both.items()))):
        changed = with_secret(order, canary, lambda one: f"{one['context']} {one['question']}")
        assert (changed["question"], canary.secret in str(changed["context"])) == ("1 + 1?", True), "the longest text"
    with pytest.raises(RecipeError, match="no field of text"):
        with_secret({"number": 3}, canary, str)


def test_the_teacher_is_asked_about_canary_seeds_and_nothing_of_them_is_kept(tmp_path):
    recipe = synthgen.load_recipe(small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=6))
    subject = Subject(tmp_path, manifest("curated", NO_FACTS, {}), recipe=recipe)
    before = sorted(tmp_path.rglob("*"))
    found = audit_passing(subject, PrivacySection(teacher_canaries=4))
    (measured,) = found.measurements
    assert (measured.n, measured.estimate, measured.outcome) == (4, 0.0, "inconclusive")
    assert found.status == "ALLOW"
    assert sorted(tmp_path.rglob("*")) == before
    assert audit_passing(subject, PrivacySection()).measurements == ()
    (tmp_path / "task" / "seeds.jsonl").unlink()
    (measured,) = audit_passing(subject, PrivacySection(teacher_canaries=4)).measurements
    assert measured.outcome == "not measurable"
    assert "seeds.jsonl" in measured.note
