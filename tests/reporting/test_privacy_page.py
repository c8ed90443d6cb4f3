"""Tests the table of privacy on the page and the cards, and the gate of training after a finding."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.corpora import corpus_of, curating, row
from support.small import small_task, small_teacher
from test_report import page_of

import synthgen
from synthgen import auditing
from synthgen.auditing.gate import check
from synthgen.auditing.result import AuditResult, Measurement
from synthgen.cards import environment
from synthgen.errors import GateDenied
from synthgen.recipe import Recipe
from synthgen.results import audit_text

MAIL = "ann@example.org"
SOURCES = [
    {
        "id": "tests",
        "role": "seed",
        "license": "CC0-1.0",
        "terms_date": None,
        "made_by": None,
        "account": None,
        "tools": [],
    }
]


def recipe_with(path: Path, **privacy: Any) -> Recipe:
    path.write_text(json.dumps({"id": "s9", "q": f"Ask {MAIL}."}) + "\n")
    seeds = [{"path": str(path), "source": "tests", "license": "CC0-1.0", "id": "id"}]
    values = {**curating().model_dump(), "seeds": seeds, "audit": {"privacy": privacy}}
    return Recipe.model_validate(values)


@pytest.fixture
def run(tmp_path) -> Path:
    """One of two rows has a value from a third seed."""
    return corpus_of(tmp_path / "run", [row(f"Ask {MAIL}.", 0, sources=SOURCES), row("Nobody.", 1, sources=SOURCES)])


def test_without_tests_it_is_said_that_privacy_was_not_measured(run):
    synthgen.audit(curating(), run)
    page, _ = page_of(run)
    assert audit_text.PRIVACY_NOT_MEASURED in page.text
    assert audit_text.PRIVACY_NOT_MEASURED in (run / "generated" / "README.md").read_text()


def test_a_leak_is_on_the_page_the_card_and_the_report_without_its_value(run, tmp_path):
    report = synthgen.audit(recipe_with(tmp_path / "seeds.jsonl"), run)
    page, html = page_of(run)
    card = (run / "generated" / "README.md").read_text()
    written = (run / "audit" / "report.md").read_text()
    assert (report.status, report.passed) == ("CONTESTED", True)
    assert "Tests of privacy found 1 leak" in page.text
    assert "Tests of privacy found 1 leak" in card
    assert "1 value in 1 row from another prompt, another seed or a private source" in page.text
    line = next(one for one in card.splitlines() if "personal data from elsewhere" in one)
    assert line.startswith(
        "| corpus | personal data from elsewhere, all kinds | found | 50% (9.45 to 90.5) | 0% | – | 2 |"
    )
    assert "row r0" in line
    assert "Tests that found something: 2 of 3 in the corpus." in page.text
    assert "**Tests that found something: 2 of 3 in the corpus.**" in card
    assert '<span class="tag DENY">found</span></td><td class="n">50% (9.45 to 90.5)</td>' in html
    assert "| personal data from elsewhere, all kinds | corpus | found | 0.500 [0.095, 0.905] | share | 0 |" in written
    for path in run.rglob("*"):
        if path.is_file() and path.suffix in (".md", ".json", ".html"):
            assert MAIL not in path.read_text().partition("Rows to read")[0], path
    assert "a corpus that reveals nothing" not in card, "no test shows that"


def test_the_key_deny_closes_the_gate_and_no_other_key_changes_the_intent(run, tmp_path):
    path = tmp_path / "seeds.jsonl"
    source = run / "generated"
    found = recipe_with(path)
    synthgen.audit(found, run)
    assert check(found, source).status == "CONTESTED"
    assert check(recipe_with(path, entities=["email"], seed=3), source).status == "CONTESTED"
    denied = recipe_with(path, deny=["personal_data"])
    with pytest.raises(GateDenied, match="was audited for"):
        check(denied, source)
    assert not synthgen.audit(denied, run).passed
    with pytest.raises(GateDenied, match="personal data"):
        check(denied, source)
    assert check(found, source).status == "CONTESTED"
    assert "may not be used" in (source / "README.md").read_text()


def test_a_run_audits_its_student_once_and_shows_it_on_page_and_card(tmp_path, monkeypatch):
    teacher = small_teacher(tmp_path / "teacher")
    privacy = {"extraction_rows": 0, "membership_rows": 20}
    path = small_task(tmp_path / "task", teacher, seeds=16, split={"test": 0.5}, audit={"privacy": privacy})
    recipe = synthgen.load_recipe(path)
    done = synthgen.run(recipe, tmp_path / "run")
    assert [*done.seconds] == ["generate", "curate", "audit", "train", "evaluate", "audit student", "report"]
    student = tmp_path / "run" / "student"
    card, page = (student / "README.md").read_text(), (tmp_path / "run" / "report.html").read_text()
    for subject in ("student", "untrained student", "teacher"):
        assert f"| {subject} | membership by loss |" in card
        assert f"<td>{subject}</td>" in page
    assert "| corpus | personal data from elsewhere, all kinds | not found |" in card
    assert "was trained on these rows yet" not in card + page
    asked: list[Path] = []
    monkeypatch.setattr(auditing, "audit", lambda recipe, place, **others: asked.append(place))
    auditing.audit_student(recipe, student)
    assert not asked, "the report is newer than the student and the recipe"
    written, now = tmp_path / "run" / "recipe.yaml", time.time() + 5
    os.utime(written, (now, now))
    auditing.audit_student(recipe, student)
    assert asked == [student], "other settings need another audit"


def test_small_shares_are_not_rounded_to_zero_in_the_report():
    """The bound of nothing in 100,000 rows is 0.003%, and a report must not say 0.000."""
    small = Measurement("names", "corpus", "a share", "share", "found", 10**5, 10**5, 1e-5, 2e-6, 3e-5, null=0.0)
    intent = {"use": "research", "actions": ["train"], "competes": "no"}
    result = AuditResult("ALLOW", measurements=(small,))
    report = auditing.Report("ALLOW", True, intent, "", [], {}, "2026-11-30", {"privacy": result})
    assert "| 1e-05 [2e-06, 3e-05] |" in environment().get_template("audit.md.j2").render(audit=report)
