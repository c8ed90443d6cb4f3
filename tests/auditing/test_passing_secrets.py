"""Tests the measurement of secrets that pass from seeds into the teacher's texts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from support.small import small_task, small_teacher

import synthgen
from synthgen.auditing import NO_FACTS
from synthgen.auditing.privacy.canaries import make
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
