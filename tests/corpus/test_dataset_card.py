"""The header of dataset cards has the form of the hub's metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard
from support.corpora import corpus_of, row

from synthgen import corpus
from synthgen.cards import hub_license, is_hub_id, write_dataset_card


@pytest.fixture
def folder(tmp_path) -> Path:
    return corpus_of(tmp_path / "run", [row("x", 0)]) / "generated"


def head_of(folder: Path, title: str = "t", rows: int | None = None, **changes: Any) -> dict[str, Any]:
    facts: Any = {**corpus.manifest(folder), **changes}
    if rows is not None:
        facts["files"] = {"data/train-00000.parquet": {"rows": rows, "bytes": 1, "sha256": "x"}}
    write_dataset_card(folder, facts, title)
    head: dict[str, Any] = DatasetCard.load(folder / "README.md").data.to_dict()
    return head


@pytest.mark.parametrize(
    ("rows", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**9, "1B<n<1T")],
)
def test_the_size_counts_the_rows(folder, rows, size):
    assert head_of(folder, rows=rows)["size_categories"] == [size]


@pytest.mark.parametrize(
    ("strategy", "task"),
    [
        ("answer", "text-generation"),
        ("classify", "text-classification"),
        ("embed", "feature-extraction"),
        ("", "text-generation"),
    ],
)
def test_the_task_is_that_of_the_rows(folder, strategy, task):
    assert head_of(folder, strategy=strategy)["task_categories"] == [task]


def test_sources_of_the_hub_are_named(folder):
    addresses = ["https://huggingface.co/datasets/org/rows", "https://hf.co/datasets/more", "org/maybe", "a file"]
    sources = [{"role": "seed", "source": text, "license": "MIT"} for text in addresses]
    sources.append({"role": "generator", "source": "https://huggingface.co/datasets/no/seed", "license": "MIT"})
    head = head_of(folder, sources=sources)
    assert head["source_datasets"] == ["more", "org/rows"]
    assert head["license"] == "mit"
    assert "source_datasets" not in head_of(folder)


@pytest.mark.parametrize(
    ("terms", "head"),
    [
        (["CC-BY-4.0", "cc-by-4.0"], {"license": "cc-by-4.0"}),
        (["ODC-By-1.0"], {"license": "odc-by"}),
        (["LGPL-3.0-or-later"], {"license": "lgpl-3.0"}),
        (["MIT", "Apache-2.0"], {"license": "other", "license_name": "several-see-the-sources"}),
        (["openai-services-2026-01-01"], {"license": "other", "license_name": "openai-services-2026-01-01"}),
        (["MIT", "unknown"], {}),
        ([], {}),
    ],
)
def test_a_license_is_known_whole_or_left_out(folder, terms, head):
    assert hub_license(terms) == head
    found = head_of(folder, sources=[{"role": "seed", "source": "s", "license": one} for one in terms])
    assert {key: found[key] for key in ("license", "license_name") if key in found} == head
    assert ("names no license" in (folder / "README.md").read_text()) == (not head)


def test_a_title_does_not_break_the_header(folder):
    title = 'rows: "quoted" # and\n---\nbroken'
    head = head_of(folder, title)
    assert head["pretty_name"] == title.replace("\n", " ")
    text = (folder / "README.md").read_text()
    assert yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))["configs"] == head["configs"]
    assert [one["config_name"] for one in head["configs"]] == ["default"]


def test_teachers_that_are_not_stated_are_not_a_list_without_entries(folder):
    head_of(folder, teachers={})
    assert "The teachers of these rows are not stated." in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("org/model", True),
        ("gpt2", True),
        ("org/model-1.5_b", True),
        ("/models/mine", False),
        ("./mine", False),
        ("~/mine", False),
        ("package:model", False),
        ("org/file.gguf", False),
        ("a/b/c", False),
        ("a..b", False),
        ("two words", False),
        ("", False),
    ],
)
def test_ids_of_the_hub(name, found):
    assert is_hub_id(name) == found


def test_a_folder_is_no_id_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "org" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("org/model")


def test_notes_are_one_line_each_on_the_card(tmp_path):
    run = corpus_of(tmp_path / "run", [row("x", 0)])
    facts: Any = corpus.manifest(run / "generated")
    write_dataset_card(run / "generated", {**facts, "notes": []}, "t")
    assert "Use and limits" not in (run / "generated" / "README.md").read_text()
    write_dataset_card(run / "generated", {**facts, "notes": ["Not for\n# advice.", "Terms: none."]}, "t")
    assert "## Use and limits\n\n- Not for # advice.\n- Terms: none.\n" in (run / "generated" / "README.md").read_text()
