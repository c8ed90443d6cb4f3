"""`synthgen export --to spdx`: the document can be read with the SPDX project's own Python package.
The licenses in the document agree with the audit.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from spdx_python_model import load_data, v3_0_1
from support.audits import audited, measurement, source
from support.corpora import corpus_of, row

import synthgen
from synthgen import corpus, durable
from synthgen.cli import main
from synthgen.errors import RunChanged, UserError
from synthgen.exporting.licenses import joined, named
from synthgen.tables.formats import DESCRIPTIONS, Description


def validated(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Maps the end of each element's id to the element. Raises an error unless the document is valid and complete."""
    _, objects = load_data(document)
    assert objects.link() == set(), "every id that is named is there"
    v3_0_1.JSONLDSerializer().write(objects, io.BytesIO())  # this also checks the number of values of each property
    return {one["spdxId"].split("#")[1]: one for one in document["@graph"] if "spdxId" in one}


def exported(path: Path, out: Path, **more: Any) -> dict[str, Any]:
    synthgen.export(path, "spdx", out, **more)
    found: dict[str, Any] = json.loads((out / "spdx.json").read_text())
    return found


def relations(elements: dict[str, dict[str, Any]], kind: str) -> list[tuple[str, str, str]]:
    """(name of the first element, name of the second element, comment) for each relationship of a kind."""

    def name(id: str) -> str:
        one = elements.get(id.rpartition("#")[2], {})
        return str(one.get("name") or one.get("simplelicensing_licenseExpression") or id)

    return [
        (name(one["from"]), name(to), one.get("comment", ""))
        for one in elements.values()
        if one.get("relationshipType") == kind
        for to in one["to"]
    ]


@pytest.fixture
def run(tmp_path) -> Path:
    sources = [
        source("tests", "seed", "cc-by-4.0"),
        source("some/model", "generator", "llama-3.1"),
        source("a judge", "judge", "MIT"),
    ]
    run = corpus_of(tmp_path / "run", [row(f"x {n}", n, sources=sources) for n in range(4)])
    manifest = corpus.manifest(run / "generated")
    stated = [{"source": one["id"], "role": one["role"], "license": one["license"]} for one in sources]
    durable.write_json(run / "generated" / "manifest.json", {**manifest, "sources": stated})
    return run


def test_the_corpus_its_files_and_its_sources(run, tmp_path):
    document = exported(run, tmp_path / "out")
    elements = validated(document)
    package = elements["corpus"]
    assert package["type"] == "dataset_DatasetPackage"
    assert "No audit of these rows was made" in package["dataset_intendedUse"]
    assert package["dataset_knownBias"] == ["Bias was not measured."]
    files = corpus.manifest(run / "generated")["files"]
    hashes = {
        one["name"]: one["verifiedUsing"][0]["hashValue"] for one in elements.values() if one["type"] == "software_File"
    }
    assert hashes == {name: entry["sha256"] for name, entry in files.items()}
    assert relations(elements, "ancestorOf") == [("tests", "run", "Role of this source: seed.")]
    assert relations(elements, "generates") == [("some/model", "run", "Role of this source: generator.")]
    assert relations(elements, "other") == [("a judge", "run", "Role of this source: judge.")]
    declared = {one: license for one, license, _ in relations(elements, "hasDeclaredLicense")}
    assert declared["tests"] == "CC-BY-4.0"
    assert declared["some/model"] == "LicenseRef-llama-3.1"
    assert declared["run"] == "expandedlicensing_NoAssertionLicense"
    ((_, concluded, why),) = relations(elements, "hasConcludedLicense")
    assert (concluded, why) == ("expandedlicensing_NoAssertionLicense", "No audit was made.")
    (llama,) = [one for one in elements.values() if "LicenseRef" in str(one.get("simplelicensing_licenseExpression"))]
    (place,) = llama["simplelicensing_customIdToUri"]
    assert place["key"] == "LicenseRef-llama-3.1"
    assert place["value"].startswith("https://")
    assert not [one for one in elements.values() if one["type"] == "ai_AIPackage"]


def test_after_an_audit_the_document_has_its_verdict(run, tmp_path):
    audited(run, [measurement(outcome="found")], duties=[["name the authors"]])
    elements = validated(exported(run, tmp_path / "out", license="CC-BY-SA-4.0"))
    package = elements["corpus"]
    assert "the rows" in package["dataset_intendedUse"]
    assert "A difference was found" in package["dataset_knownBias"][0]
    assert any("name the authors" in line for line in package["software_attributionText"])
    assert ("run", "CC-BY-SA-4.0", "") in relations(elements, "hasDeclaredLicense")
    ((_, concluded, why),) = relations(elements, "hasConcludedLicense")
    assert concluded == "CC-BY-4.0 AND LicenseRef-llama-3.1"
    assert "as the audit of" in why


def test_the_result_says_whether_there_is_an_audit(run, tmp_path):
    before = synthgen.export(run, "spdx", tmp_path / "before")
    audited(run)
    after = synthgen.export(run, "spdx", tmp_path / "after")
    assert [(one.audited, one.student) for one in (before, after)] == [(False, False), (True, False)]
    assert before.text().endswith("no student\nno audit of this corpus was made, and the document says so")
    assert after.text().endswith("spdx, the corpus; there is no student")


@pytest.mark.parametrize(
    "change",
    [
        {"type": "dataset_DatasetPackage", "dataset_datasetType": []},
        {"dataset_datasetType": ["rows"]},
        {"dataset_license": "MIT"},
        {"software_primaryPurpose": 3},
    ],
)
def test_the_validator_finds_planted_faults(run, tmp_path, change):
    document = exported(run, tmp_path / "out")
    (package,) = [one for one in document["@graph"] if one["type"] == "dataset_DatasetPackage"]
    package |= change
    if "dataset_datasetType" in change and not change["dataset_datasetType"]:
        del package["dataset_datasetType"]
    with pytest.raises((ValueError, TypeError, KeyError, AttributeError)):
        validated(document)


def test_the_student_of_a_run(finished, tmp_path):
    run = shutil.copytree(finished.run, tmp_path / "run")
    for path in (run, run / "student"):
        elements = validated(
            exported(path, tmp_path / path.name / "out" if path == run / "student" else tmp_path / "a")
        )
        student = elements["student"]
        assert student["type"] == "ai_AIPackage"
        assert relations(elements, "trainedOn") == [(student["name"], "run", "")]
        training = json.loads((run / "student" / "training.json").read_text())
        hashes = {
            one["name"]: one["verifiedUsing"][0]["hashValue"]
            for id, one in elements.items()
            if id.startswith("student-file")
        }
        assert hashes == training["files"]
        assert f"The audit when it was trained: {training['audit']['status']}" in student["comment"]
        assert "not known" not in student["comment"], "the audit is about this student"
        assert any(entry["key"] == "learning_rate" for entry in student["ai_hyperparameter"])
        assert student["ai_metric"]
    assert synthgen.export(run, "spdx", tmp_path / "b").text().endswith("spdx, the corpus and its student")


def test_a_student_of_other_rows_is_not_said_to_be_trained_on_these(finished, tmp_path):
    run = shutil.copytree(finished.run, tmp_path / "run")
    path = run / "student" / "training.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "curated_sha256": "0" * 64}))
    elements = validated(exported(run, tmp_path / "out"))
    ((_, rows, why),) = relations(elements, "trainedOn")
    assert rows == "NoAssertionElement"
    assert "other rows" in why
    assert "no audit of this corpus is about this student" in elements["student"]["comment"]


def test_what_cannot_be_described_is_refused(run, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(UserError, match="neither a run nor a student"):
        synthgen.export(tmp_path / "rows.jsonl", "spdx", tmp_path / "out")
    with pytest.raises(UserError, match="describes all rows"):
        synthgen.export(run, "spdx", tmp_path / "out", split="train")
    with pytest.raises(UserError, match="is a folder"):
        synthgen.export(run, "spdx", tmp_path / "bill.json")
    with pytest.raises(UserError):
        synthgen.export(run, "spdx", run / "generated" / "bill")
    assert not (tmp_path / "out").exists()
    exported(run, tmp_path / "out")
    with pytest.raises(RunChanged, match="earlier export"):
        synthgen.export(run, "spdx", tmp_path / "out")
    exported(run, tmp_path / "out", fresh=True)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_document_of_the_user_is_not_replaced(run, tmp_path, fresh):
    document = tmp_path / "out" / "spdx.json"
    document.parent.mkdir()
    document.write_text('{"mine": 1}')
    with pytest.raises(RunChanged):
        synthgen.export(run, "spdx", document.parent, fresh=fresh)
    assert document.read_text() == '{"mine": 1}'


def test_a_description_added_from_outside_is_written(run, tmp_path, monkeypatch):
    entry = Description("names", "names.json", lambda subject: {"name": subject.about.name})
    monkeypatch.setitem(DESCRIPTIONS, "names", entry)
    done = CliRunner().invoke(main, ["export", str(run), "--to", "names", "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "out" / "names.json").read_text()) == {"name": "run"}


@pytest.mark.parametrize(
    ("license", "expression"),
    [
        ("apache-2.0", "Apache-2.0"),
        ("MIT OR (apache-2.0 and cc-by-4.0)", "MIT OR (Apache-2.0 AND CC-BY-4.0)"),
        ("openai", None),
        ("unknown", None),
        ("", None),
        ("MIT AND other", None),
        ("MIT AND", None),
        ("our deal of 2026", "LicenseRef-our-deal-of-2026"),
        ("our-deal", "LicenseRef-our-deal"),
        ("LicenseRef-ours", "LicenseRef-ours"),
    ],
)
def test_licenses_in_the_spelling_of_spdx(license, expression):
    found = named(license)
    if license == "openai":
        assert found is not None
        assert found.expression.startswith("LicenseRef-")
        assert all(found.addresses.values())
    else:
        assert (found.expression if found else None) == expression


def test_licenses_together():
    both = joined(["MIT", "CC-BY-4.0 OR apache-2.0", "mit"])
    assert both is not None
    assert both.expression == "(CC-BY-4.0 OR Apache-2.0) AND MIT"
    assert joined(["MIT", "unknown"]) is None
    assert joined([]) is None
