"""Known verdicts for licenses and terms, and rules that hold for all licenses and terms."""

from __future__ import annotations

import datetime
import itertools
import json
import random
from collections import Counter

import pytest
from support.corpora import corpus_of, curating, row

import synthgen
from synthgen import corpus
from synthgen.auditing.license import catalog, judge, source_combinations
from synthgen.auditing.result import STATUSES, Subject, worst
from synthgen.recipe import AuditSection

TODAY = datetime.date(2026, 1, 15)
OUTPUTS = ("generator", "logits", "rewriter", "seed", "dataset")


def status(terms: str, role: str = "generator", **intent) -> str:
    return judge("x", role, terms, AuditSection(**{"use": "commercial", **intent}), TODAY).status


@pytest.mark.parametrize(
    ("terms", "role", "intent", "expected"),
    [
        ("CC0-1.0", "seed", {}, "ALLOW"),
        ("MIT", "seed", {}, "ALLOW"),
        ("Apache-2.0", "generator", {}, "ALLOW"),
        ("CC-BY-NC-4.0", "seed", {}, "DENY"),
        ("CC-BY-NC-4.0", "seed", {"use": "research", "actions": ["train"]}, "ALLOW"),
        ("CC-BY-SA-4.0", "seed", {}, "CONTESTED"),
        ("CC-BY-ND-4.0", "seed", {}, "DENY"),
        ("CC-BY-ND-4.0", "dataset", {}, "DENY"),
        ("CC-BY-NC-4.0", "dataset", {}, "DENY"),
        ("anthropic", "dataset", {}, "DENY"),
        ("unknown", "dataset", {}, "UNKNOWN"),
        ("unknown", "seed", {}, "UNKNOWN"),
        ("some-license-nobody-wrote-down", "generator", {}, "UNKNOWN"),
        ("openai", "generator", {}, "UNKNOWN"),
        ("openai", "generator", {"competes": "no"}, "ALLOW"),
        ("openai", "generator", {"competes": "yes"}, "DENY"),
        ("anthropic", "generator", {}, "DENY"),
        ("deepseek-api", "generator", {}, "ALLOW"),
        ("llama-3", "generator", {"use": "research"}, "DENY"),
        ("llama-3", "generator", {"use": "research", "student_family": "llama", "actions": ["train"]}, "ALLOW"),
        ("llama-3.1", "generator", {"student_name": "Nice-Student"}, "DENY"),
        ("llama-3.1", "generator", {"student_name": "Llama-Nice"}, "CONTESTED"),
    ],
)
def test_golden(terms, role, intent, expected):
    assert status(terms, role, **intent) == expected


SHARE = {"actions": ["share_data"]}
RELEASE = {"actions": ["release_weights"]}
TRAIN = {"actions": ["train"]}


@pytest.mark.parametrize(
    ("entry", "role", "intent", "expected", "reason"),
    [
        ({"commercial_use": "no"}, "seed", SHARE, "DENY", "commercial use is not granted"),
        ({"commercial_use": "no"}, "seed", {**SHARE, "use": "research"}, "ALLOW", ""),
        ({"commercial_use": "conditional"}, "seed", SHARE, "CONTESTED", "under conditions"),
        ({"commercial_use": "unknown"}, "seed", SHARE, "UNKNOWN", "does not say whether commercial use"),
        *[({"train_on_outputs": "deny"}, role, TRAIN, "DENY", "may not be trained") for role in OUTPUTS],
        *[({"train_on_outputs": "deny"}, role, TRAIN, "ALLOW", "") for role in ("template", "student_base", "judge")],
        ({"train_on_outputs": "deny"}, "generator", SHARE, "ALLOW", ""),
        ({"train_on_outputs": "unknown"}, "generator", TRAIN, "UNKNOWN", "does not say whether models"),
        ({"train_on_outputs": "silent"}, "generator", TRAIN, "ALLOW", "do not mention training"),
        ({"train_on_outputs": "silent"}, "seed", TRAIN, "ALLOW", ""),
        ({"train_on_outputs": "allow"}, "generator", TRAIN, "ALLOW", "allow training explicitly"),
        ({"train_on_outputs": "allow"}, "dataset", TRAIN, "ALLOW", ""),
        ({"train_on_outputs": "research"}, "generator", TRAIN, "DENY", "for research only"),
        ({"train_on_outputs": "research"}, "generator", {**TRAIN, "use": "research"}, "ALLOW", "for research"),
        ({"train_on_outputs": "deny"}, "generator", {**TRAIN, "use": "research"}, "DENY", "may not be trained"),
        ({"train_on_outputs": "noncompete"}, "generator", {**TRAIN, "competes": "no"}, "ALLOW", "does not compete"),
        ({"train_on_outputs": "noncompete"}, "generator", TRAIN, "UNKNOWN", "does not set audit.competes"),
        (
            {"train_on_outputs": "family", "family": "f"},
            "generator",
            {**TRAIN, "student_family": "F"},
            "ALLOW",
            "the f",
        ),
        ({"train_on_outputs": "family", "family": "f"}, "generator", TRAIN, "DENY", "of the f family only"),
        ({"no_redistribution": True}, "generator", SHARE, "DENY", "may not be redistributed"),
        ({"no_redistribution": True}, "seed", RELEASE, "ALLOW", ""),
        ({"no_derivatives": True}, "seed", SHARE, "DENY", "rewritten rows"),
        ({"no_derivatives": True}, "dataset", SHARE, "DENY", "rewritten rows"),
        ({"no_derivatives": True}, "template", SHARE, "ALLOW", ""),
        ({"no_derivatives": True}, "seed", RELEASE, "ALLOW", ""),
        ({"student_terms": "contested"}, "seed", SHARE, "CONTESTED", "inherits these terms"),
        ({"student_terms": "contested"}, "seed", RELEASE, "CONTESTED", "inherits these terms"),
        ({"student_terms": "contested"}, "seed", TRAIN, "ALLOW", ""),
        ({"name_prefix": "P-"}, "seed", {**RELEASE, "student_name": "X"}, "DENY", "does not begin with 'P-'"),
        ({"name_prefix": "P-"}, "seed", {**RELEASE, "student_name": "P-X"}, "ALLOW", ""),
        ({"name_prefix": "P-"}, "seed", RELEASE, "ALLOW", ""),
        ({"name_prefix": "P-"}, "seed", {**SHARE, "student_name": "X"}, "ALLOW", ""),
    ],
)
def test_each_rule_alone(monkeypatch, entry, role, intent, expected, reason):
    """A license that allows all, with one rule changed."""
    plain = {"id": "t-1", "instrument": "license", "commercial_use": "yes", "train_on_outputs": "silent"}
    monkeypatch.setattr("synthgen.auditing.license.catalog", lambda: {"t": {**plain, **entry}})
    finding = judge("x", role, "T", AuditSection(**{"use": "commercial", **intent}), TODAY)
    assert finding.status == expected
    assert (reason in "".join(finding.reasons)) if reason else finding.reasons == ()
    assert bool(finding.obligations) == ("name_prefix" in entry and intent["actions"] == RELEASE["actions"])


def test_laws():
    """The worst of several statuses does not depend on their order. Commercial use never gets a better status than
    research. An unknown license never passes.
    """
    for some in itertools.permutations(STATUSES, 3):
        assert worst(some) == max(some, key=STATUSES.index)
    for terms in catalog():
        for role in ("seed", "generator", "template", "student_base"):
            research, commercial = (status(terms, role, use=use) for use in ("research", "commercial"))
            assert STATUSES.index(research) <= STATUSES.index(commercial), (terms, role)
    assert worst([]) == "ALLOW"


def test_every_finding_that_is_not_allow_says_why():
    for terms in catalog():
        finding = judge("x", "generator", terms, AuditSection(), TODAY)
        assert finding.status == "ALLOW" or finding.reasons, terms


def test_old_contracts_are_flagged():
    late = datetime.date(2027, 1, 1)
    assert judge("x", "generator", "openai", AuditSection(), late).notes
    assert not judge("x", "generator", "openai", AuditSection(), TODAY).notes
    assert not judge("x", "generator", "MIT", AuditSection(), late).notes
    read = datetime.date.fromisoformat(str(catalog()["openai"]["read_on"]))
    for days in (180, 181):
        notes = judge("x", "generator", "openai", AuditSection(), read + datetime.timedelta(days)).notes
        assert [f"read {days} days ago" in note for note in notes] == [True] * (days - 180)


def source(name: str, role: str = "seed", license: str = "MIT") -> dict:
    nothing = {"terms_date": None, "made_by": None, "account": None, "tools": []}
    return {"id": name, "role": role, "license": license, **nothing}


def test_sets_of_sources_are_counted_without_their_rows(tmp_path):
    draw = random.Random(1)
    known = [source(n, r, t) for n in "ab" for r in ("seed", "generator") for t in ("MIT", "unknown")]
    rows = [row("x", n, sources=draw.sample(known, draw.randrange(4))) for n in range(500)]
    run = corpus_of(tmp_path, rows, size=100)
    folder = run / "generated"
    found = source_combinations(Subject(folder, corpus.manifest(folder)))
    expected = Counter(tuple(sorted((s["id"], s["role"], s["license"]) for s in r.sources)) for r in rows)
    assert found == expected
    assert expected[()] > 0


def test_rows_are_counted_by_the_worst_of_their_sources(tmp_path):
    rows = [
        row("a", 0, sources=[source("s"), source("t", "generator", "Apache-2.0")]),
        row("b", 1, sources=[source("s"), source("d", "dataset", "nobody-knows")]),
        row("c", 2, sources=[]),
        row("d", 3, sources=[source("s")], finish_reason="length"),
    ]
    run = corpus_of(tmp_path, rows)
    synthgen.curate(curating(), run)
    report = synthgen.audit(curating(), run)
    assert report.rows == {"ALLOW": 2, "UNKNOWN": 2}
    assert (report.status, report.passed) == ("UNKNOWN", False)
    assert "nobody-knows" in report.text()


def test_each_intent_has_its_report_and_the_latest_lies_above(tmp_path):
    run = corpus_of(tmp_path, [row("a", 0, sources=[source("s", license="CC-BY-NC-4.0")])])
    first = synthgen.audit(curating(), run)
    (run / "audit" / "notes.txt").write_text("a person's own file stays where it is")
    second = synthgen.audit(curating(), run, use="research")
    assert (run / "audit" / "notes.txt").exists()
    folders = [p for p in (run / "audit").iterdir() if p.is_dir()]
    reports = [json.loads((p / "report.json").read_text()) for p in folders]
    assert {(r["intent"]["use"], r["status"]) for r in reports} == {
        ("commercial", first.status),
        ("research", second.status),
    }
    latest = json.loads((run / "audit" / "report.json").read_text())
    assert latest == json.loads(json.dumps(second.to_dict()))
    assert latest["status"] != first.status
    names = {"report.json", "report.md", "attribution.md"}
    assert all({p.name for p in folder.iterdir()} == names for folder in folders)


@pytest.mark.parametrize(("kind", "based"), [({"kind": "decoder", "layers": 1}, True), ({"kind": "classifier"}, False)])
def test_the_teacher_is_a_base_of_students_that_copy_its_layers(tmp_path, kind, based):
    recipe = curating()
    run = corpus_of(tmp_path, [row("a", 0, sources=[source("s")])])
    labels = {} if based else {"strategy": "classify", "generate": {"labels": ["a", "b"]}}
    values = {**recipe.model_dump(exclude={"teacher", "strategy", "generate", "logits"}), **labels}
    teacher = {"engine": "transformers", "model": "some/model", "license": "llama-3"}
    recipe = synthgen.Recipe.model_validate({**values, "teacher": teacher, "train": {"student": kind}})
    found = {(f.source, f.role, f.terms) for f in synthgen.audit(recipe, run).findings}
    assert (("some/model", "student_base", "llama-3") in found) == based
