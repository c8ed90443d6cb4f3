"""The audit of a corpus: the status of each row and source, and the report that is written."""

from __future__ import annotations

import datetime
import json
import random
from collections import Counter

import pytest
from support.corpora import corpus_of, curating, row
from support.training import with_train

import synthgen
from distill.finished import settings_of
from synthgen import corpus, durable
from synthgen.auditing.combinations import Term, occurring
from synthgen.auditing.judging import term_of
from synthgen.auditing.subjects import find
from synthgen.errors import UserError
from synthgen.recipe import TrainSection
from synthgen.results.training import Training


def source(name: str, role: str = "seed", license: str = "MIT", **more) -> dict:
    nothing = {"terms_date": None, "made_by": None, "account": None, "tools": []}
    return {"id": name, "role": role, "license": license, **nothing, **more}


def term(source: dict) -> Term:
    names = (source["id"], source["role"], source["license"], source["account"] or "", source["made_by"] or "")
    return Term(*names, tuple(source["tools"]))


def test_sets_of_sources_are_counted_without_their_rows(tmp_path):
    draw = random.Random(1)
    known = [source(n, r, t) for n in "ab" for r in ("seed", "generator") for t in ("MIT", "unknown")]
    known += [source("c", account="ours"), source("c", account="third_party", tools=["x", "y"], made_by="m")]
    rows = [row("x", n, sources=draw.sample(known, draw.randrange(4))) for n in range(500)]
    run = corpus_of(tmp_path, rows, size=100)
    folder = run / "generated"
    found = occurring(folder).every
    expected = Counter(tuple(sorted(term(s) for s in r.sources)) for r in rows)
    assert found == expected
    assert expected[()] > 0


def test_seeds_that_served_as_examples_are_one_source(tmp_path):
    examples = [source(name, "few_shot") for name in ("C# questions#1", "C# questions#a2", "p@1#examples")]
    run = corpus_of(tmp_path, [row(str(n), n, sources=[one]) for n, one in enumerate(examples)])
    found = {(one.source, one.role) for one in synthgen.audit(curating(), run).findings}
    assert found == {("C# questions", "few_shot"), ("p@1#examples", "few_shot")}


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


BY_SA = source("wiki", license="cc-by-sa-4.0")
NC_SA = source("forum", license="cc-by-nc-sa-4.0")


@pytest.mark.parametrize(
    ("rows", "counts"),
    [([[BY_SA], [NC_SA], [source("s")]], {"ALLOW": 1, "CONTESTED": 2}), ([[BY_SA, NC_SA]], {"DENY": 1})],
)
def test_sources_that_contradict_each_other_are_denied_together(tmp_path, rows, counts):
    """In the first corpus, each row alone passes the audit; in the second corpus, one row has both sources. A student
    learns from all rows together, so the audit denies both corpora.
    """
    run = corpus_of(tmp_path, [row(str(n), n, sources=sources) for n, sources in enumerate(rows)])
    report = synthgen.audit(curating(), run, use="research")
    assert report.rows == counts
    assert (report.status, report.passed) == ("DENY", False)
    (found,) = [one for one in report.findings if one.role == "conflict"]
    assert (found.source, found.terms) == ("forum + wiki", "CC-BY-NC-SA-4.0 + CC-BY-SA-4.0")
    assert "no license is allowed by the share-alike clauses" in found.reasons[0]
    blame = report.audits["license"].figures["blame"]
    assert blame == {"CC-BY-NC-SA-4.0 + CC-BY-SA-4.0": len(rows) - (len(rows) == 3)}


def test_a_source_that_contradicts_itself_is_named_once(tmp_path):
    run = corpus_of(tmp_path, [row("a", 0, sources=[source("s", license="gemma AND GPL-3.0-only")])])
    report = synthgen.audit(curating(), run)
    assert [(one.role, one.status) for one in report.findings] == [("seed", "DENY")]
    assert report.audits["license"].figures["blame"] == {"s (seed, gemma-2026-04-01 AND GPL-3.0-only)": 1}


def test_the_same_model_asked_by_two_accounts_is_two_sources(tmp_path):
    accounts = [source("gpt-4o", "generator", "openai", account=who) for who in ("ours", "third_party")]
    run = corpus_of(tmp_path, [row(str(n), n, sources=[one]) for n, one in enumerate(accounts)])
    recipe = synthgen.Recipe.model_validate({**curating().model_dump(), "audit": {"competes": "yes"}})
    assert synthgen.audit(recipe, run).rows == {"CONTESTED": 1, "DENY": 1}


def test_account_and_tools_of_a_students_source_are_judged():
    stated = {"source": "m", "role": "logits", "license": "mistral", "account": "third_party", "tools": ["web_search"]}
    assert term_of(stated) == Term("m", "logits", "mistral", "third_party", "", ("web_search",))
    assert term_of({"source": "m", "role": "logits", "license": "MIT"}) == Term("m", "logits", "MIT")


def test_the_smallest_sets_of_sources_that_fail_are_named_with_their_rows(tmp_path):
    nobody = source("n", "generator", "nobody-knows")
    rows = [[source("s"), nobody], [nobody, source("t", license="CC-BY-NC-4.0")], [source("s")]]
    run = corpus_of(tmp_path, [row(str(n), n, sources=sources) for n, sources in enumerate(rows)])
    blame = synthgen.audit(curating(), run).audits["license"].figures["blame"]
    assert blame == {"n (generator, nobody-knows)": 2, "t (seed, CC-BY-NC-4.0)": 1}


def test_rows_of_a_third_party_under_a_tag_of_its_repository_are_contested(tmp_path):
    """Outputs of text-davinci-003 were published under Apache-2.0. Apache-2.0 does not cancel OpenAI's contract."""
    made = {"made_by": "text-davinci-003", "account": "third_party"}
    data = source("their/rows", "dataset", "apache-2.0", **made)
    run = corpus_of(tmp_path, [row("a", 0, sources=[data])])
    recipe = synthgen.Recipe.model_validate({**curating().model_dump(), "audit": {"competes": "yes"}})
    report = synthgen.audit(recipe, run)
    (found,) = report.findings
    assert (found.status, report.rows, report.passed) == ("CONTESTED", {"CONTESTED": 1}, True)
    assert found.terms == "Apache-2.0 AND openai-tou-2023-03-14"
    assert any("who is a third party" in reason for reason in found.reasons)
    attribution = (run / "audit" / "attribution.md").read_text()
    assert "- text of Apache-2.0: https://" in attribution
    assert "- text of openai-tou-2023-03-14: https://" in attribution


def test_a_users_own_terms_stand_beside_the_catalog(tmp_path):
    run = corpus_of(tmp_path, [row("a", 0, sources=[source("s", license="our-deal")])])
    assert synthgen.audit(curating(), run).status == "UNKNOWN"
    facts = {"kind": "service", "commercial_use": "yes", "train_on_outputs": "allow", "student_terms": "none"}
    own = {"id": "our-deal-2026", "aliases": ["our-deal"], **facts, "seen": datetime.date(2026, 1, 31)}
    recipe = synthgen.Recipe.model_validate({**curating().model_dump(), "audit": {"terms": [own]}})
    report = synthgen.audit(recipe, run)
    assert (report.status, report.findings[-1].terms) == ("ALLOW", "our-deal-2026")
    assert report.intent["terms"][0]["seen"] == "2026-01-31"
    taken = {**own, "aliases": ["mit"]}
    recipe = synthgen.Recipe.model_validate({**curating().model_dump(), "audit": {"terms": [taken]}})
    with pytest.raises(UserError, match="have the name 'mit'"):
        synthgen.audit(recipe, run)


def test_the_report_lists_what_would_make_it_pass(tmp_path):
    rows = [
        [source("s")],
        [source("gpt", "generator", "openai")],
        [source("llama", "generator", "llama-3.1")],
        [source("llama", "generator", "llama-3.1")],
        [source("claude", "generator", "anthropic")],
        [source("wiki", license="unknown"), source("gpt", "generator", "openai")],
        [source("deal", license="nobody-knows")],
        [source("nc", license="CC-BY-NC-4.0")],
    ]
    run = corpus_of(tmp_path, [row(str(n), n, sources=some) for n, some in enumerate(rows)])
    intent = {"student_name": "Nice", "monthly_users": 1}
    recipe = synthgen.Recipe.model_validate({**curating().model_dump(), "audit": intent})
    report = synthgen.audit(recipe, run)
    first = "leave out 7 of 8 kept rows (7 rows): `synthgen audit RUN --keep-allowed -o OUT`"
    assert [one.line() for one in report.repairs] == [
        first,
        "set audit.competes in the recipe, which the terms of 'claude', 'gpt' ask for (3 rows)",
        "name the student so that it begins with 'Llama', not 'Nice' ('llama') (2 rows)",
        "describe the terms 'nobody-knows' of 'deal' under audit.terms (1 row)",
        "replace 'nc' (CC-BY-NC-4.0), or ask for permission (1 row)",
        "state the license of 'wiki' (1 row)",
        "use another teacher than 'claude' (anthropic-commercial-2025-06-17 AND anthropic-aup-2025-09-15), or ask "
        "for permission (1 row)",
    ]
    assert first in report.text()
    assert f"- {first}" in (run / "audit" / "report.md").read_text()
    passing = corpus_of(tmp_path / "good", [row("a", 0, sources=[source("s")])])
    assert synthgen.audit(recipe, passing).repairs == []


def test_a_student_is_not_judged_by_other_rows_than_it_learned(tmp_path):
    """The student was not trained on rows that were curated again later, nor on another corpus of the run."""
    run = corpus_of(tmp_path / "run", [row("one two three", n, sources=[source("s")]) for n in range(2)])
    synthgen.curate(curating(length=None, duplicates=False), run)
    learned = durable.digest(corpus.manifest(run / "curated")["files"])
    facts = {"student": "s", "learns_by": "l", "learned_from": "t", "steps": 1, "rows": 2, "metrics": {}}
    durable.write_json(run / "student" / "training.json", Training(**facts, curated_sha256=learned).to_dict())
    assert synthgen.audit(curating(), run / "student").corpus_sha256 == learned
    assert find(run).student == run / "student"
    synthgen.curate(curating(length=None), run, fresh=True)
    report = synthgen.audit(curating(), run / "student")
    assert (report.status, report.passed, report.corpus_sha256) == ("UNKNOWN", False, "")
    assert find(run).student is None


def test_a_student_is_judged_by_its_own_checkpoint(tmp_path):
    """The recipe of the run may name another checkpoint, or none."""
    run = corpus_of(tmp_path / "run", [row("one two three", 0, sources=[source("s")])])
    synthgen.curate(curating(length=None), run)
    learned = durable.digest(corpus.manifest(run / "curated")["files"])
    student = {"kind": "decoder", "model": "some/base", "license": "MIT"}
    section = TrainSection.model_validate({"student": student, "kd_weight": 0})
    facts = {"student": "s", "learns_by": "l", "learned_from": "t", "steps": 1, "rows": 1, "metrics": {}}
    training = Training(**facts, curated_sha256=learned, train=settings_of(section))
    durable.write_json(run / "student" / "training.json", training.to_dict())
    for recipe, status in ((curating(), "UNKNOWN"), (with_train(curating(), section.model_dump()), "ALLOW")):
        report = synthgen.audit(recipe, run / "student")
        (found,) = [one for one in report.findings if one.role == "student_base"]
        assert (found.source, found.status, report.status) == ("some/base", status, status)
    assert synthgen.audit(curating(), run).status == "ALLOW"


def test_a_provider_that_no_terms_ask_about_is_named(tmp_path):
    """A misspelt provider changes nothing, so the audit says so."""
    values = {"competes": {"opnai": "no", "Google": "no"}}
    recipe = synthgen.Recipe.model_validate({**curating().model_dump(), "audit": values})
    report = synthgen.audit(recipe, corpus_of(tmp_path, [row("a", 0)]))
    named = "audit.competes names 'opnai', but no terms ask whether a student competes with it; did you mean 'openai'?"
    assert report.notes == [named]
    assert f"note: {named}" in report.text()
