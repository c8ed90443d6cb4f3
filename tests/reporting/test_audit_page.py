"""The audit on the page and the cards: first the verdict, then what to do, obligations, and tests of bias."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.audits import audited, measurement, source
from support.corpora import corpus_of, row
from test_report import page_of

import synthgen
from synthgen import corpus, durable
from synthgen.results import audit_text
from synthgen.results.audit import Finding, Intent, StoredAudit, audit_of, read_audit

TESTS = [
    measurement(),
    measurement(subject="men", outcome="absent", estimate=0.05, low=-0.1, high=0.18),
    measurement(subject="older people", outcome="inconclusive", estimate=0.2, low=-0.3, high=0.7, detectable=0.8),
    measurement(
        subject="<b>[x](y)",
        outcome="not measurable",
        **dict.fromkeys(("estimate", "low", "high", "p", "detectable", "margin")),
        note="only 12 rows mention the group",
    ),
    measurement(name="refusals", unit="share of prompts", estimate=0.01, low=-0.01, high=0.03, outcome="absent"),
]


@pytest.fixture
def run(tmp_path) -> Path:
    sources = [source("tests", "seed", "CC-BY-4.0"), source("some/model", "generator", "MIT")]
    return corpus_of(tmp_path / "run", [row(f"x {n}", n, sources=sources) for n in range(4)])


def card(run: Path) -> str:
    return (run / "generated" / "README.md").read_text()


def test_without_an_audit_nothing_is_said_to_be_well(run):
    page, _ = page_of(run)
    assert audit_text.NOT_AUDITED in page.text
    assert "synthgen audit RUN" in page.text
    assert audit_text.NOT_AUDITED in card(run)
    assert audit_text.NOT_MEASURED in card(run)


def test_a_corpus_that_may_be_used(run):
    audited(run, duties=[["name the authors"], ["name the authors"]])
    page, html = page_of(run)
    assert "This corpus may be used to train a student, share the rows and publish the student, for research use." in (
        page.text
    )
    assert "Fulfill the obligations before" in page.text
    assert "name the authors asked for by some/model (MIT) and tests (CC-BY-4.0)" in page.text
    assert '<span class="tag ALLOW">ALLOW</span></td><td class="n">4</td><td class="n">100.0%</td>' in html
    assert audit_text.NOT_MEASURED in page.text
    assert "have changed since this audit" not in page.text
    assert "<svg" not in html.split("Tests of bias")[1].split("<h2>")[0]


def refused(run: Path, **changes: Any) -> dict[str, Any]:
    report = audited(run, TESTS)
    findings = report["findings"]
    findings[0] |= {"status": "DENY", "reasons": ["commercial use is not granted"]}
    findings[1] |= {"status": "UNKNOWN", "notes": ["state its license"]}
    repairs = [{"text": "leave out 3 of 4 kept rows", "rows": 3, "command": "synthgen audit RUN --keep-allowed -o OUT"}]
    rows = {"DENY": 3, "ALLOW": 1}
    values = {"status": "DENY", "passed": False, "findings": findings, "repairs": repairs, "rows": rows, **changes}
    report |= values
    (run / "audit" / "report.json").write_text(json.dumps(report))
    return report


def test_a_corpus_that_may_not_be_used_says_why_and_what_to_do(run):
    report = refused(run)
    page, html = page_of(run)
    first = report["findings"][0]
    assert (
        "This corpus may not be used to train a student, share the rows and publish the student, for research use, "
        f"because of {first['source']} ({first['role']}, {first['terms']}): commercial use is not granted." in page.text
    )
    steps = page.text.split("What to do next")[1].split("How many rows")[0]
    assert "Leave out 3 of 4 kept rows (3 rows). synthgen audit RUN --keep-allowed -o OUT" in steps
    assert f"{report['findings'][1]['source']}: state its license." in steps
    assert "Then audit again." in steps
    assert '<td><span class="tag DENY">DENY</span></td><td class="n">3</td><td class="n">75.0%</td>' in html


def test_a_verdict_that_a_person_accepted_says_so(run):
    accepted = "some/model (MIT) accepted by A. Person on 2026-01-01: we have a contract"
    refused(run, passed=True, waivers=[accepted], repairs=[])
    page, _ = page_of(run)
    assert f"A person accepted this: {accepted}." in page.text
    assert "no student is trained" not in page.text


def test_every_test_of_bias_is_a_sentence_with_its_interval(run):
    refused(run)
    page, html = page_of(run)
    text = page.text.split("Tests of bias")[1]
    places = [text.index(heading) for heading in audit_text.OUTCOMES.values()]
    assert places == sorted(places), "what was found is first"
    assert "A difference was found: 0.651 times (95% interval 0.536 to 0.785)." in text
    assert "No difference that matters was found: 1.04 times (95% interval 0.933 to 1.13)." in text
    assert "Effects between 0.871 and 1.15 times do not matter here." in text
    assert "There are too few data to tell: 1.15 times (95% interval 0.812 to 1.62)." in text
    assert "The smallest effect that these data would show in 80 of 100 cases is 1.74 times." in text
    assert "No difference that matters was found: 1 percentage point (95% interval −1 to 3)." in text
    assert "This cannot be measured here. Only 12 rows mention the group." in text
    assert "<b>[x](y)" in text, "text of rows is shown and is no markup"
    assert html.split("Tests of bias")[1].split("<h2>")[0].count("<svg") == 2, "one plot for each unit"


def test_tests_of_bias_that_are_not_shown_are_counted(run):
    """The page shows 20 tests of each outcome."""
    many = [measurement(subject=f"group {n}", outcome="absent") for n in range(23)]
    audited(run, [*many, *(measurement(subject=f"found {n}") for n in range(20))])
    page, html = page_of(run)
    assert page.text.count("more are in audit/report.json") == 1
    assert "3 more are in audit/report.json" in page.text
    for name, is_shown in (("group 0", True), ("group 19", True), ("group 20", False), ("found 19", True)):
        assert (f"<b>{name}</b>" in html) is is_shown, name


@pytest.mark.parametrize(
    ("count", "ends"),
    [(0, "for research use."), (1, "reason 0."), (3, "reason 2."), (4, "of 1 more."), (6, "of 3 more.")],
)
def test_a_verdict_names_three_findings_and_counts_the_others(count, ends):
    findings = [Finding(f"source {n}", "seed", "MIT", "DENY", [f"reason {n}"]) for n in range(count)]
    findings.append(Finding("another", "seed", "MIT", "ALLOW", ["reason 9"]))
    said = audit_text.verdict(StoredAudit("DENY", False, Intent("research", ["train"], "no"), findings))
    assert said.startswith("This corpus may not be used to train a student, for research use")
    assert said.endswith(ends)
    assert [f"reason {n}" in said for n in range(count)] == [n < 3 for n in range(count)]
    assert ("more" in said, "another" in said) == (count > 3, False)


def test_the_card_has_the_verdict_the_duties_and_the_tests(run):
    refused(run)
    report = json.loads((run / "audit" / "report.json").read_text())
    report["findings"][0] |= {"obligations": ["name the authors"], "duties": ["credit"], "texts": ["MIT: https://mit"]}
    (run / "audit" / "report.json").write_text(json.dumps(report))
    synthgen.export(run, "hub", run.parent / "out")
    text = (run.parent / "out" / "README.md").read_text()
    first = report["findings"][0]
    assert "**This corpus may not be used to train a student" in text
    assert f"- Date of the audit: {report['date']}" in text
    assert "- Rows: 3 DENY, 1 ALLOW" in text
    assert f"- To be credited: {first['source']} ({first['terms']}): MIT: https://mit" in text
    assert f"- [ ] name the authors (asked for by {first['source']} ({first['terms']}))" in text
    assert "Differences that were found:\n\n- representation, women: How often" in text
    assert r"&lt;b>\[x\](y): How often" in text
    assert audit_text.NOT_MEASURED not in text


def test_the_audit_writes_its_verdict_into_the_card_of_the_corpus(run):
    audited(run)
    assert "**This corpus may be used to train a student" in card(run)
    assert "- To be credited: tests (CC-BY-4.0)" in card(run)
    assert audit_text.NOT_MEASURED in card(run)
    assert audit_text.NOT_AUDITED not in card(run)


def test_an_audit_of_other_rows_is_not_that_of_this_corpus(run):
    audited(run, corpus_sha256="0" * 64)
    page, _ = page_of(run)
    assert "The rows of the corpus have changed since this audit." in page.text
    synthgen.export(run, "hub", run.parent / "out")
    assert audit_text.NOT_AUDITED in (run.parent / "out" / "README.md").read_text()


def test_the_latest_audit_of_a_corpus_counts(run):
    folder, sha256 = run / "generated", durable.digest(corpus.manifest(run / "generated")["files"])
    assert audit_of(folder, sha256) is None
    report = audited(run, date="2026-01-01")
    (own,) = (run / "audit").glob("*/report.json")
    own.write_text(json.dumps({**report, "date": "2026-02-01"}))
    found = audit_of(folder, sha256)
    assert found is not None
    assert found.date == "2026-02-01"
    assert audit_of(folder, "0" * 64) is None


def test_reports_of_older_versions_are_read(run):
    report = audited(run, TESTS)
    path = run / "audit" / "report.json"
    assert [one.subject for one in read_audit(path).measurements] == [one["subject"] for one in TESTS]
    for name in ("audits", "rows", "date", "corpus_sha256"):
        del report[name]
    for finding in report["findings"]:
        for name in ("duties", "texts"):
            del finding[name]
    path.write_text(json.dumps(report))
    assert read_audit(path).measurements == []
    page, _ = page_of(run)
    assert "have changed since this audit" in page.text


@pytest.mark.parametrize(
    ("status", "begin"),
    [
        (
            "CONTESTED",
            "This corpus may be used to train a student, share the rows and publish the student, for research",
        ),
        ("UNKNOWN", "It is not known whether this corpus may be used to train a student"),
    ],
)
def test_the_verdict_of_each_status(run, status, begin):
    report = audited(run, status=status, passed=status == "CONTESTED")
    path = run / "audit" / "report.json"
    assert audit_text.verdict(read_audit(path)).startswith(begin)
    report["findings"] = [
        {**one, "status": status, "reasons": [f"reason {n}"]} for n, one in enumerate(report["findings"] * 3)
    ]
    path.write_text(json.dumps(report))
    said = audit_text.verdict(read_audit(path))
    assert "because of" in said
    assert said.count("reason ") == 3
    assert said.endswith("and because of 3 more.")


def test_what_tests_of_bias_found_is_no_dispute_about_licenses(run):
    report = audited(run, TESTS)
    bias = {**report["findings"][0], "role": "bias", "status": "CONTESTED", "reasons": ["differs"], "obligations": []}
    (run / "audit" / "report.json").write_text(
        json.dumps({**report, "status": "CONTESTED", "findings": [*report["findings"], bias]})
    )
    page, _ = page_of(run)
    said = page.text.split("Audit: what may")[1].split("How many rows")[0]
    assert (
        "for research use. The texts that were read state nothing against it. Tests of bias found 1 difference" in said
    )
    assert "disputed" not in said
    assert "Read the differences that the tests of bias found" in said
