"""The texts about an export say what its manifest and its audit say, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from synthgen.exporting import facts
from synthgen.exporting.card import About
from synthgen.exporting.description import _sources
from synthgen.results.audit import Audited, Finding, Intent, Measurement, StoredAudit
from synthgen.results.training import Passage, Training

SEED = {"source": "questions", "role": "seed", "license": "CC0-1.0"}
OTHER = {"source": "web pages", "role": "dataset", "license": "unknown"}
MODEL = {"source": "some/model", "role": "generator", "license": "MIT"}
JUDGE = {"source": "a judge", "role": "judge", "license": "MIT"}
NOBODY = "The license of the rows is not known: nobody stated it."
TESTED = Measurement("membership", "corpus", "about", "share", "absent", n=9, estimate=0.5)


def about(*sources: dict[str, str], license: str | None = None, **more: Any) -> About:
    manifest: Any = {
        "strategy": "answer",
        "prompt_version": "demo@1",
        "teachers": {"t": {"model": "some/model", "revision": "abc"}, "u": {"model": "a judge", "revision": ""}},
        **more.pop("manifest", {}),
    }
    return About("rows", "croissant", True, license, sources, manifest=manifest, **more)  # type: ignore[arg-type]


def audit_of(*findings: Finding, **audits: Audited) -> StoredAudit:
    return StoredAudit(
        "ALLOW", True, Intent("research", ["train"], "no"), list(findings), date="2026-01-02", audits=audits
    )


@pytest.mark.parametrize(
    ("sources", "license", "lines"),
    [
        ([], None, [NOBODY]),
        ([], "MIT", []),
        ([SEED, MODEL], None, []),
        ([SEED, OTHER], None, ["The license of web pages (dataset) is not known."]),
        ([OTHER], "MIT", ["The license of web pages (dataset) is not known."]),
    ],
)
def test_a_license_that_nobody_stated_is_a_limitation(sources, license, lines):
    assert facts.limitations(about(*sources, license=license)) == lines
    rejected = about(*sources, license=license, rejected=12)
    assert facts.limitations(rejected) == [*lines, "12 rows that curation rejected are left out."]


def test_what_must_be_done_names_who_asks_for_it():
    asks = [Finding(name, "seed", "CC-BY-4.0", "ALLOW", obligations=["name the authors"]) for name in ("a", "b")]
    duty = "Obligation: name the authors. Asked for by a (CC-BY-4.0) and b (CC-BY-4.0)."
    assert facts.limitations(about(SEED, audit=audit_of(*asks))) == [duty]
    assert facts.duties(None) == []


def test_how_rows_came_to_be_names_models_and_beginnings():
    every = about(SEED, OTHER, MODEL, JUDGE)
    assert facts.collection(every) == (
        "Language models wrote the rows: some/model (revision abc). The strategy was `answer`. The prompts were made "
        "with the templates demo@1. The rows began with texts from questions (CC0-1.0) and web pages (unknown)."
    )
    bare = about(MODEL, manifest={"strategy": "", "prompt_version": "", "teachers": {}})
    assert facts.collection(bare) == "Language models wrote the rows: some/model."
    assert facts.collection(about(JUDGE, manifest={"strategy": "", "prompt_version": ""})) == ""
    assert facts.annotation(every) == ["Written by some/model (revision abc).", "Judged by a judge."]
    dataset = About("rows", "croissant", False, None, ())
    assert (facts.collection(dataset), facts.annotation(dataset), facts.preprocessing(dataset)) == ("", [], [])


def test_rules_that_were_off_are_not_said_to_have_been_applied():
    rules = {"echo": True, "language": False, "broken": None, "near": {"share": 0.8}}
    rows = about(manifest={"thresholds": rules, "dropped_by": {"echo": 3}})
    assert facts.preprocessing(rows) == ["echo: on", 'near: {"share": 0.8}', "echo was the first to reject 3 rows"]
    assert facts.preprocessing(about()) == []


@pytest.mark.parametrize(
    ("rules", "tests", "said"),
    [
        ({}, [], "The rows were not searched for personal data here."),
        ({"personal_data": None, "redact": None}, [], "The rows were not searched for personal data here."),
        ({"personal_data": {"kinds": []}}, [], "Curation rejected rows with personal data"),
        ({"redact": {"kinds": []}, "personal_data": {"kinds": []}}, [], "Curation replaced personal data"),
        ({}, [TESTED], "Curation did not search the rows for personal data. membership (corpus): not found, 50%."),
    ],
)
def test_a_search_for_personal_data_is_only_said_if_it_was_made(rules, tests, said):
    audit = audit_of(privacy=Audited("ALLOW", tests))
    found = facts.personal(about(manifest={"thresholds": rules}, audit=audit))
    assert found.startswith(said)
    assert found.endswith("here." if "here." in said else "Names of persons were not searched for.")


def test_uses_and_bias_without_an_audit_are_unknown():
    assert facts.uses(about()) == ["No audit of these rows was made, so it is not known what their licenses allow."]
    assert facts.biases(None) == ["Bias was not measured."]
    said = facts.uses(about(audit=audit_of()))
    assert said[:2] == [
        "This corpus may be used to train a student, for research use. The texts that were read state nothing against "
        "it.",
        "Date of the audit: 2026-01-02.",
    ]
    assert facts.biases(audit_of(bias=Audited("ALLOW", [TESTED]))) == [
        "membership, corpus: About. No difference that matters was found: 50%."
    ]


@pytest.mark.parametrize(
    ("training", "audit", "is_known"),
    [
        ({}, {}, True),
        ({"train": {"student": {"model": "a/base"}}}, {}, True),
        ({"train": {"student": {"layers": 2}}}, {}, True),
        ({"train": {"student": {"model": "another/base"}}}, {}, False),
        ({"curated_sha256": "0" * 64}, {}, False),
        ({"audit": None}, {}, False),
        ({}, {"use": "commercial"}, False),
        ({}, {"actions": ["train", "serve"]}, False),
        ({}, None, False),
    ],
)
def test_sources_of_a_student_are_known_only_from_an_audit_of_it(training, audit, is_known):
    """The audit must be of the student's rows, with the use, the actions and the base model of its training."""
    rows = about(SEED, manifest={"files": {"data/train-00000.parquet": {"rows": 1}}})
    passage = Passage(status="ALLOW", use="research", actions=["train"])
    values = {"student": "s", "learns_by": "", "learned_from": "", "steps": 1, "rows": 1, "metrics": {}}
    made = Training(**{**values, "curated_sha256": rows.corpus_sha256, "audit": passage, **training})
    base = [{"source": "a/base", "role": "student_base", "license": "MIT"}]
    if audit is not None:
        given = {"use": "research", "actions": ["train"], **audit}
        rows.audit = StoredAudit("ALLOW", True, Intent(competes="no", student=base, **given), [])
    assert _sources(made, rows) == (base if is_known else None)
