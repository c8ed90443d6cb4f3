"""The catalog itself: every entry says where its facts come from, and every name leads to one entry."""

from __future__ import annotations

import datetime
import fnmatch
import re

import pytest
import yaml
from pydantic import ValidationError
from support.places import REPOSITORY

from synthgen.auditing.catalogue import catalogue, stale_text
from synthgen.auditing.combinations import Term
from synthgen.auditing.judging import judge
from synthgen.auditing.result import STATUSES
from synthgen.cli import main
from synthgen.recipe import AuditSection, shipped
from synthgen.recipe.terms import Terms
from synthgen.records import ROLES

BOOK = catalogue()
RAW = yaml.safe_load((shipped("data") / "licenses.yaml").read_text())
TERMS = [BOOK.get(name) for name in BOOK.ids()]

# The license tags of the Hugging Face Hub, from its documentation. Only tags that name a license are listed.
HUB = """apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc0-1.0
cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0
cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl
lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0
openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license
fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma"""


def test_there_are_entries_for_all_kinds():
    assert len(TERMS) >= 90
    assert {one.kind for one in TERMS} == {"data", "software", "model", "service", "host", "policy"}


@pytest.mark.parametrize("tag", HUB.split())
def test_every_tag_of_the_hub_is_in_the_catalog(tag):
    assert BOOK.missing(tag) == []


@pytest.mark.parametrize("terms", TERMS, ids=lambda one: one.id)
def test_every_entry_says_where_it_was_read_and_when(terms):
    assert terms.source.startswith("https://")
    assert terms.seen is not None
    assert datetime.date.fromisoformat(terms.seen) <= datetime.date(2026, 11, 30)
    assert terms.version != "-" or not terms.contract or terms.confidence != "high", "a contract has a date"
    assert bool(terms.surface) == terms.contract
    if "unknown" not in (terms.commercial_use, terms.train_on_outputs):
        assert terms.confidence in ("high", "medium")
    for name in (*terms.joined_with, *terms.share_alike):
        assert BOOK.missing(name) == [], name


@pytest.mark.parametrize("row", RAW["models"], ids=lambda row: row["models"][0])
def test_every_row_of_models_leads_to_terms_and_to_its_source(row):
    assert set(row) - {"note"} == {"models", "terms", "source", "confidence", "seen"}
    assert row["source"].startswith("https://")
    for pattern in row["models"]:
        assert pattern == pattern.lower()
        assert {one.id for one in BOOK.followed(pattern.replace("*", "1"))} >= {BOOK.get(n).id for n in row["terms"]}
    for name in row["terms"]:
        assert BOOK.missing(name) == [], name


def test_no_model_is_in_two_rows():
    patterns = [pattern for row in RAW["models"] for pattern in row["models"]]
    assert len(patterns) == len(set(patterns))
    for one in patterns:
        others = [o for o in patterns if o != one and fnmatch.fnmatchcase(one.replace("*", "0"), o)]
        rows = {row["models"][0] for row in RAW["models"] for o in (one, *others) if o in row["models"]}
        assert len(rows) == 1, (one, others)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", ["MIT", "llama-3.1"]),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B@main", ["MIT", "llama-3.3"]),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", ["MIT", "Apache-2.0"]),
        ("allenai/OLMo-2-0425-1B-Instruct", ["Apache-2.0", "gemma-2024-04-01"]),
        ("allenai/OLMo-2-0425-1B", ["Apache-2.0"]),
        ("google/gemma-3-1b-it", ["gemma-2026-04-01"]),
        ("google/gemma-4-E2B-it", ["Apache-2.0"]),
        ("meta-llama/Llama-3.2-1B", ["llama-3.2"]),
        ("meta-llama/Llama-3.2-11B-Vision-Instruct", ["llama-3.2-vision"]),
        ("Qwen/Qwen2.5-3B-Instruct", ["qwen-research-2024"]),
        ("Qwen/Qwen2.5-72B-Instruct", ["qwen-2024"]),
        ("openai/gpt-oss-20b", ["Apache-2.0"]),
        ("gpt-4o-mini", ["openai-services-2026-01-01"]),
        ("claude-opus-4", ["anthropic-commercial-2025-06-17", "anthropic-aup-2025-09-15"]),
        ("EleutherAI/gpt-j-6b", []),
        ("my/model", []),
    ],
)
def test_a_model_is_followed_to_its_terms(model, expected):
    assert [one.id for one in BOOK.followed(model)] == expected


@pytest.mark.parametrize(
    ("expression", "alternatives"),
    [
        ("MIT OR Apache-2.0", [["MIT"], ["Apache-2.0"]]),
        ("mit and (cc-by-4.0 or gpl-3.0)", [["MIT", "CC-BY-4.0"], ["MIT", "GPL-3.0-only"]]),
        ("anthropic", [["anthropic-commercial-2025-06-17", "anthropic-aup-2025-09-15"]]),
        ("openrail++ AND x", [["openrail++", "x"]]),
        ("GPL-2.0-only WITH Classpath-exception-2.0", [["GPL-2.0-only WITH Classpath-exception-2.0"]]),
        ("MIT /", [["MIT /"]]),
        ("MIT OR", [["MIT OR"]]),
        ("", [[""]]),
        (" AND ".join(["(MIT OR Apache-2.0)"] * 7), [[" AND ".join(["(MIT OR Apache-2.0)"] * 7)]]),
    ],
)
def test_expressions(expression, alternatives):
    assert [[one.id for one in some] for some in BOOK.alternatives(expression)] == alternatives


def test_names_are_found_in_any_case_and_misspelled_ones_are_not():
    assert BOOK.missing("apache-2.0") == BOOK.missing("APACHE-2.0") == BOOK.missing("MIT OR llama3.2") == []
    assert BOOK.missing("Apache2.0 OR MIT") == ["Apache2.0"]


FACTS = {"id": "t", "kind": "data", "commercial_use": "yes", "train_on_outputs": "allow", "student_terms": "none"}


@pytest.mark.parametrize(
    ("facts", "key"),
    [
        ({"commercial_use": "conditional"}, "condition"),
        ({"condition": "x"}, "condition"),
        ({"train_on_outputs": "family"}, "family"),
        ({"unless_competing": "x"}, "unless_competing"),
        ({"no_further_terms": True}, "no_further_terms"),
        ({"student_terms": "flow_down"}, "use_policy"),
        ({"confidence": "unread"}, "train_on_outputs"),
        ({"seen": "yesterday"}, "seen"),
        ({"kind": "licence"}, "kind"),
        ({"licence": "x"}, "licence"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(facts, key):
    Terms.model_validate(FACTS)
    with pytest.raises(ValidationError) as raised:
        Terms.model_validate({**FACTS, **facts})
    assert [error["loc"][0] for error in raised.value.errors()] == [key]


def test_texts_that_were_read_long_ago_are_to_be_read_again():
    openai, mit = BOOK.get("openai"), BOOK.get("MIT")
    assert openai.seen is not None
    read = datetime.date.fromisoformat(openai.seen)
    for days in (180, 181):
        today = read + datetime.timedelta(days)
        notes = judge(Term("x", "generator", "openai"), AuditSection(), today, BOOK).notes
        assert sum(f"openai-services-2026-01-01, read {days} days ago" in note for note in notes) == days - 180
        assert (openai in BOOK.stale(today)) == (days > 180)
    assert mit not in BOOK.stale(datetime.date(2027, 1, 1))
    assert mit in BOOK.stale(datetime.date(2029, 1, 1))
    own = Terms.model_validate({**FACTS, "seen": "2026-01-01", "stale_after": 3})
    assert [own.stale(datetime.date(2026, 1, day)) for day in (4, 5)] == [False, True]
    assert not Terms.model_validate(FACTS).stale(datetime.date(2030, 1, 1)), "nobody knows when it was read"


def test_the_page_about_licenses_is_true():
    page = (REPOSITORY / "docs" / "licenses.md").read_text()
    (snippet,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    section = AuditSection.model_validate(yaml.safe_load(snippet)["audit"])
    assert [one.id for one in catalogue(section.terms).alternatives("our-deal")[0]] == ["our-deal-2026-01-31"]
    keys = {key for line in page.splitlines() if line.startswith("| `") for key in re.findall(r"`(\w+)`", line)}
    assert set(AuditSection.model_fields) - {"terms", "bias", "models", "privacy"} <= keys
    assert set(ROLES) <= keys
    assert set(STATUSES) <= keys


def test_an_entry_has_its_own_date_or_that_of_its_source():
    assert BOOK.get("gemma").seen == "2026-11-30" != RAW["sources"]["page"]["seen"]
    assert BOOK.get("openai").seen == RAW["sources"]["contracts"]["seen"]


def test_the_command_lists_what_is_to_be_read_again(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["audit", "--stale"])
    assert ended.value.code == 0
    *lines, counted = capsys.readouterr().out.splitlines()
    unread = sum(one.confidence == "unread" for one in TERMS)
    assert counted == f"{len(lines)} of {len(TERMS)} texts are to be read again; {unread} were never read"
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert {line.split()[3] for line in lines} == {one.id for one in BOOK.stale(datetime.date.today())}
    assert stale_text(datetime.date(2020, 1, 1)).startswith("0 of ")
