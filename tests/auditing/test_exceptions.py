"""Permissions of rights holders, and waivers: the effects that they have, and the effects that they never have."""

from __future__ import annotations

import datetime
import random

import pytest
from click.testing import CliRunner
from pydantic import ValidationError
from support.corpora import corpus_of, curating, parts, row

import synthgen
from synthgen.auditing.algebra import join
from synthgen.auditing.catalogue import catalogue
from synthgen.auditing.combinations import Term
from synthgen.auditing.gate import check
from synthgen.auditing.judging import judge
from synthgen.auditing.result import STATUSES
from synthgen.auditing.rules import Role, verdict
from synthgen.cli import main
from synthgen.curation.allowed import keep_allowed
from synthgen.errors import GateDenied
from synthgen.recipe import AuditSection, Recipe, dump_recipe
from synthgen.recipe.exceptions import Permission
from synthgen.records import ROLES

TODAY = datetime.date.today()
YESTERDAY, TOMORROW = ((TODAY + datetime.timedelta(days)).isoformat() for days in (-1, 1))
BOOK = catalogue()
ACTIONS = ("train", "share_data", "release_weights", "serve")


def source(name: str, license: str = "MIT", role: str = "seed") -> dict:
    nothing = {"terms_date": None, "made_by": None, "account": None, "tools": []}
    return {"id": name, "role": role, "license": license, **nothing}


FREE, NC = source("free"), source("nc", "CC-BY-NC-4.0")
BY_SA, NC_SA = source("wiki", "cc-by-sa-4.0"), source("forum", "cc-by-nc-sa-4.0")
OF_NC = {"source": "nc", "terms": "CC-BY-NC-4.0"}
CONFLICT = {"role": "conflict", "terms": "CC-BY-SA-4.0 + CC-BY-NC-SA-4.0"}


def waiver(*covers: dict, **more: str) -> dict:
    return {"name": "A. Steward", "date": "2026-01-31", "reason": "asked the author", "covers": list(covers), **more}


def recipe_of(*waivers: dict, **audit) -> Recipe:
    values = curating().model_dump(exclude={"teacher", "logits", "strategy", "generate"})
    teacher = {"engine": "transformers", "model": "some/model", "license": "Apache-2.0"}
    train = {"student": {"kind": "decoder", "layers": 2}}
    return Recipe.model_validate(
        {**values, "teacher": teacher, "train": train, "audit": {"waivers": list(waivers), **audit}}
    )


def run_of(folder, *rows):
    run = corpus_of(folder, [row(f"text {n}", n, sources=some) for n, some in enumerate(rows)])
    synthgen.curate(curating(duplicates=False), run)
    return run


# Waivers


def test_a_waived_finding_keeps_its_verdict_and_opens_the_gate(tmp_path):
    run, recipe = run_of(tmp_path, [FREE], [NC]), recipe_of(waiver(OF_NC, until=TOMORROW))
    report = synthgen.audit(recipe, run)
    assert (report.status, report.passed, report.rows) == ("DENY", True, {"ALLOW": 1, "DENY": 1})
    words = f"waived by A. Steward on 2026-01-31, until {TOMORROW}: asked the author"
    assert {one.source: (one.status, one.waived) for one in report.findings} == {
        "free": ("ALLOW", ""),
        "nc": ("DENY", words),
        "some/model": ("ALLOW", ""),
    }
    assert (report.waivers, report.repairs) == ([f"nc (CC-BY-NC-4.0) {words}"], [])
    assert report.audits["license"].notes == ()
    for text in (report.text(), (run / "audit" / "report.md").read_text()):
        assert "passes because of waivers" in text
        assert words in text
    passage = check(recipe, run / "curated")
    assert (passage.status, passage.overridden, passage.waivers) == ("DENY", False, report.waivers)
    with pytest.raises(GateDenied, match="was audited for other values"):
        check(recipe_of(), run / "curated")
    keep_allowed(recipe, run, tmp_path / "out")
    assert list(parts(tmp_path / "out")[0]) == ["r0", "r1"]


@pytest.mark.parametrize(
    "covers",
    [
        {"source": "nc", "terms": "CC-BY-NC-SA-4.0"},
        {"source": "free", "terms": "CC-BY-NC-4.0"},
        {"source": "nc", "terms": "CC-BY-NC-4.0", "role": "dataset"},
        CONFLICT,
    ],
)
def test_a_waiver_covers_only_what_it_names(tmp_path, covers):
    report = synthgen.audit(recipe_of(waiver(covers)), run_of(tmp_path, [FREE], [NC]))
    assert not report.passed
    assert report.waivers == []
    (note,) = report.audits["license"].notes
    assert note.startswith("the waiver of A. Steward covers no finding about ")


@pytest.mark.parametrize(("more", "said"), [({"until": YESTERDAY}, "ended"), ({"date": TOMORROW}, "begins")])
def test_a_waiver_counts_from_its_day_to_its_last(tmp_path, more, said):
    report = synthgen.audit(recipe_of(waiver(OF_NC, **more)), run_of(tmp_path, [FREE], [NC]))
    assert not report.passed
    assert f"does not count: it {said} on" in report.audits["license"].notes[0]


@pytest.mark.parametrize("key", ["name", "reason"])
def test_a_waiver_without_a_name_or_a_reason_is_refused(key):
    with pytest.raises(ValidationError, match=f"'{key}' is blank"):
        recipe_of(waiver(OF_NC, **{key: "  "}))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"source": "nc", "date": TOMORROW}, f"does not count: it begins on {TOMORROW}"),
        ({"source": "nc", "until": YESTERDAY}, f"does not count: it ended on {YESTERDAY}"),
        ({"source": "nobody"}, "changes no verdict"),
        ({"terms": "CC-BY-NC-4.0"}, "changes no verdict"),
        ({"source": "nc"}, ""),
    ],
)
def test_a_permission_without_an_effect_is_named_in_a_note(tmp_path, more, said):
    values = {"granted_by": "The Author", "date": "2026-01-31", "allows": list(ACTIONS), **more}
    report = synthgen.audit(recipe_of(permissions=[values]), run_of(tmp_path, [FREE], [NC]))
    assert report.passed == (not said)
    assert [said in note for note in report.audits["license"].notes] == ([True] if said else [])


def test_a_waiver_that_ended_after_the_audit_closes_the_gate(tmp_path, monkeypatch):
    run, recipe = run_of(tmp_path, [FREE], [NC]), recipe_of(waiver(OF_NC, until=TODAY.isoformat()))
    synthgen.audit(recipe, run)
    assert check(recipe, run / "curated").waivers

    class Later(datetime.date):
        @classmethod
        def today(cls):
            return cls.fromisoformat(TOMORROW)

    monkeypatch.setattr("synthgen.auditing.gate.datetime.date", Later)
    with pytest.raises(GateDenied, match=r"the waiver of A. Steward ended on .*, since the audit of"):
        check(recipe, run / "curated")
    passage = check(recipe, run / "curated", override=True)
    assert (passage.overridden, len(passage.waivers)) == (True, 1)


def test_a_refusal_names_what_is_not_waived(tmp_path):
    """When the worst finding is waived, another finding decides, and the refusal names this other finding."""
    run, recipe = run_of(tmp_path, [FREE], [NC], [source("x", "nobody-knows")]), recipe_of(waiver(OF_NC))
    synthgen.audit(recipe, run)
    with pytest.raises(GateDenied, match=r"'x' \(seed, nobody-knows\)"):
        check(recipe, run / "curated")


def test_a_conflict_is_waived_by_its_own_name_alone(tmp_path):
    run = run_of(tmp_path, [BY_SA], [NC_SA], [FREE])
    sources = [{"source": "wiki", "terms": "CC-BY-SA-4.0"}, {"source": "forum", "terms": "CC-BY-NC-SA-4.0"}]
    for covers, passed in [(sources, False), ([CONFLICT], True)]:
        report = synthgen.audit(recipe_of(waiver(*covers), use="research"), run)
        assert report.passed == passed
        (found,) = [one for one in report.findings if one.role == "conflict"]
        assert (found.status, bool(found.waived)) == ("DENY", passed)
    keep_allowed(recipe_of(waiver(CONFLICT), use="research"), run, tmp_path / "out")
    assert len(parts(tmp_path / "out")[0]) == 3


def test_a_waiver_for_a_source_that_contradicts_itself_covers_no_other(tmp_path):
    both = source("both", "gemma AND GPL-3.0-only")
    accepted = waiver({"source": "both", "terms": "gemma-2026-04-01 AND GPL-3.0-only"})
    alone = run_of(tmp_path / "alone", [both], [FREE])
    assert synthgen.audit(recipe_of(accepted), alone).passed
    keep_allowed(recipe_of(accepted), alone, tmp_path / "out")
    assert len(parts(tmp_path / "out")[0]) == 2
    mixed = run_of(tmp_path / "mixed", [both], [source("g", "gemma", "generator")], [source("gpl", "GPL-3.0-only")])
    report = synthgen.audit(recipe_of(accepted), mixed)
    assert not report.passed
    assert [one.role for one in report.findings if one.status == "DENY" and not one.waived] == ["conflict"]


def test_rows_without_sources_cannot_be_waived(tmp_path):
    run = run_of(tmp_path, [FREE], [NC], [])
    assert not synthgen.audit(recipe_of(waiver(OF_NC)), run).passed


@pytest.mark.parametrize(
    ("exception", "said"),
    [
        ({"waivers": [waiver()]}, "at least 1 item"),
        ({"waivers": [waiver({"terms": "MIT"})]}, "a finding has a source, and a conflict has none"),
        ({"waivers": [waiver(OF_NC, date="2026-02-30")]}, "'date' is not a day of the calendar"),
        ({"waivers": [{**waiver(OF_NC), "reason": ""}]}, "at least 1 character"),
        ({"permissions": [{"granted_by": "x", "date": "2026-01-01", "allows": ["train"]}]}, "names a source"),
        ({"permissions": [{"granted_by": "x", "date": "2026-01-01", "source": "y", "allows": []}]}, "at least 1 item"),
    ],
)
def test_an_exception_says_who_when_why_and_for_what(exception, said):
    with pytest.raises(ValueError, match=said):
        AuditSection.model_validate(exception)


# Permissions


GPT = Term("gpt-4o@2024", "generator", "openai")
LLAMA = Term("m", "generator", "llama-3.1")
BY_GPT = Term("rows", "seed", "CC-BY-NC-4.0", made_by="gpt-4o")


def permission(**more) -> dict:
    return {"granted_by": "The Author", "date": "2026-01-31", "source": "nc", "allows": ["train"], **more}


def status(term: Term, *permissions: dict, **intent) -> str:
    section = AuditSection.model_validate({"permissions": list(permissions), "monthly_users": 5, **intent})
    return judge(term, section, TODAY, BOOK).verdict.status


def test_a_permission_allows_what_the_terms_forbid():
    nc, train = Term("nc", "seed", "CC-BY-NC-4.0"), {"actions": ["train"]}
    assert status(nc, **train) == "DENY"
    assert status(nc, permission(), **train) == "ALLOW"
    section = AuditSection.model_validate({"permissions": [permission()], **train})
    reasons = judge(nc, section, TODAY, BOOK).verdict.reasons
    assert "The Author gave permission on 2026-01-31 (commercial use is not granted)" in reasons


@pytest.mark.parametrize(
    ("term", "given", "intent", "expected"),
    [
        (Term("nc", "seed", "CC-BY-NC-4.0"), {}, {"actions": ["train", "share_data"]}, "DENY"),
        (Term("nc", "seed", "CC-BY-NC-4.0"), {"allows": ["train", "share_data"]}, {"actions": ["train"]}, "ALLOW"),
        (Term("other", "seed", "CC-BY-NC-4.0"), {}, {"actions": ["train"]}, "DENY"),
        (Term("nc", "seed", "CC-BY-NC-4.0"), {"terms": "MIT"}, {"actions": ["train"]}, "DENY"),
        (Term("nc", "seed", "CC-BY-NC-4.0"), {"terms": "cc-by-nc-4.0"}, {"actions": ["train"]}, "ALLOW"),
        (Term("nc", "seed", "CC-BY-NC-4.0"), {"source": "", "terms": "cc-by-nc-4.0"}, {"actions": ["train"]}, "DENY"),
        (Term("nc", "seed", "CC-BY-NC-4.0"), {"until": YESTERDAY}, {"actions": ["train"]}, "DENY"),
        (Term("nc", "seed", "CC-BY-NC-4.0"), {"date": TOMORROW}, {"actions": ["train"]}, "DENY"),
        (Term("nc", "seed", "unknown"), {}, {"actions": ["train"]}, "UNKNOWN"),
        (Term("nc", "seed", "nobody-knows"), {}, {"actions": ["train"]}, "UNKNOWN"),
        (GPT, {"source": "gpt-4o"}, {"competes": "yes", "actions": ["train"]}, "ALLOW"),
        (GPT, {"source": "gpt-4"}, {"competes": "yes", "actions": ["train"]}, "DENY"),
        (GPT, {"source": "", "terms": "openai"}, {"competes": "yes", "actions": ["train"]}, "ALLOW"),
        (BY_GPT, {"source": "gpt-4o"}, {"competes": "yes", "actions": ["train"]}, "DENY"),
        (BY_GPT, {"source": "gpt-4o", "terms": "CC-BY-NC-4.0"}, {"competes": "no", "actions": ["train"]}, "DENY"),
        (BY_GPT._replace(license="openai"), {"source": "gpt-4o"}, {"competes": "yes", "actions": ["train"]}, "ALLOW"),
        (LLAMA, {"source": "m"}, {"student_name": "Nice", "actions": ["release_weights"]}, "DENY"),
        (LLAMA, {"source": "m", "allows": list(ACTIONS)}, {"student_name": "Nice"}, "DENY"),
    ],
)  # fmt: skip
def test_a_permission_is_about_its_source_terms_days_and_actions(term, given, intent, expected):
    assert status(term, permission(**given), **intent) == expected


def test_a_conflict_needs_more_than_a_permission(tmp_path):
    run = run_of(tmp_path, [BY_SA], [NC_SA])
    given = [permission(source=name, allows=list(ACTIONS)) for name in ("wiki", "forum")]
    assert not synthgen.audit(recipe_of(use="research", permissions=given), run).passed


def test_laws_of_permissions():
    """For random terms, roles and uses: a permission never makes the status worse, and leaves all obligations and
    unknown facts. The verdict on several actions together joins the verdicts on each action.
    """
    draw, rank = random.Random(3), STATUSES.index
    for _ in range(1500):
        terms, role = BOOK.get(draw.choice(BOOK.ids())), Role(draw.choice(ROLES), draw.choice(["", "third_party"]))
        values = {"use": draw.choice(["research", "commercial"]), "competes": draw.choice(["yes", "no", "unknown"])}
        values |= draw.choice([{}, {"monthly_users": 10**9, "regions": ["EU"], "student_name": "Nice"}])
        actions = draw.sample(ACTIONS, draw.randrange(1, 5))
        intent = AuditSection.model_validate({**values, "actions": actions})
        before = verdict(terms, role, intent)
        each = [verdict(terms, role, intent.model_copy(update={"actions": (one,)})) for one in actions]
        assert join(each) == before
        allows = draw.sample(ACTIONS, draw.randrange(1, 5))
        given = Permission.model_validate(permission(source="x", allows=allows))
        after = verdict(terms, role, intent, [given])
        assert rank(after.status) <= rank(before.status)
        assert after.obligations == before.obligations
        assert before.status != "UNKNOWN" or after.status == "UNKNOWN"
        if "unknown" in (terms.commercial_use, terms.train_on_outputs):
            assert rank(after.status) >= rank("UNKNOWN")
        if not set(allows) & set(actions):
            assert after == before


# The exit code


def test_the_exit_code_may_be_stricter_and_never_looser(tmp_path):
    cases = {
        "ALLOW": ([FREE], (), [0, 0]),
        "CONTESTED": ([source("m", "llama-3.1", "judge"), source("g", "anthropic", "judge")], (), [0, 1]),
        "UNKNOWN": ([source("x", "nobody-knows")], (), [1, 1]),
        "DENY": ([NC], (), [1, 1]),
        "waived": ([NC], (waiver(OF_NC),), [0, 1]),
    }
    for name, (sources, waivers, codes) in cases.items():
        run = run_of(tmp_path / name, sources)
        (run / "recipe.yaml").write_text(dump_recipe(recipe_of(*waivers, monthly_users=5)))
        found = [
            CliRunner().invoke(main, ["audit", str(run), *more]).exit_code for more in ([], ["--fail-on", "contested"])
        ]
        assert found == codes, name
    assert CliRunner().invoke(main, ["audit", str(run), "--fail-on", "nothing"]).exit_code == 2
