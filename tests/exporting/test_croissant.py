"""`synthgen export --to croissant`: mlcroissant, a library that reads data sets, validates the description and reads
the same rows. The description agrees with the audit.
"""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from support.audits import audited, measurement, source
from support.corpora import corpus_of, curating, row

import synthgen
from synthgen.cli import main
from synthgen.errors import RunChanged

OWN = pa.schema(
    [
        ("topic", pa.string()),
        ("pages", pa.list_(pa.int32())),
        ("about", pa.struct([("the page", pa.int64()), ("deep", pa.struct([("name", pa.string())]))])),
        ("seen", pa.timestamp("us")),
        ("good/ö", pa.bool_()),
        ("weight", pa.float32()),
    ]
)


def rows_of(number: int) -> list[Any]:
    """Records with values and nulls in all kinds of columns, and text with quotes and line breaks."""
    found = []
    for n in range(number):
        own = {"topic": 'a "b"\n', "pages": [n, 2], "about": {"the page": n, "deep": {"name": None}}}
        own |= {"good/ö": n % 2 == 0, "seen": datetime.datetime(2026, 1, 2, 3, 4, n), "weight": 0.5}
        own |= {"seen": None, "good/ö": None} if n % 3 == 0 else {}
        own |= {"pages": [], "weight": None, "about": {"the page": n, "deep": {"name": "x"}}} if n % 3 == 1 else {}
        sources = [source("tests", "seed", "CC-BY-4.0"), source("some/model", "generator", "MIT")]
        split = "test" if n % 3 == 0 else "train"
        found.append(
            row(f"answer {n} <b>é</b>", n, split=split, sources=sources, own=own, token_ids=[n, 7], cost_usd=0.1)
        )
    return found


@pytest.fixture(scope="module")
def curated(tmp_path_factory) -> Path:
    run = corpus_of(tmp_path_factory.mktemp("croissant") / "run", rows_of(7), own=OWN)
    synthgen.curate(curating(length=None, answer=False, redact=["email"]), run)
    return run


@pytest.fixture
def run(curated, tmp_path) -> Path:
    return shutil.copytree(curated, tmp_path / "run")


def opened(folder: Path) -> Any:
    """The data set as mlcroissant reads it. mlcroissant raises an error when the description is not valid."""
    import mlcroissant

    return mlcroissant.Dataset(jsonld=str(folder / "croissant.json"))


def plain(value: Any, kind: pa.DataType) -> Any:
    """Converts a value that mlcroissant read to the form that Arrow uses. In mlcroissant, text is bytes, and names
    begin with their path.
    """
    if value is None:
        return None
    if pa.types.is_list(kind):
        return [plain(one, kind.value_type) for one in value]
    if pa.types.is_struct(kind):
        return {name: plain(inner, kind.field(name).type) for name, inner in named(value, kind).items()}
    if isinstance(value, bytes):
        return value.decode()
    return value.to_pydatetime() if hasattr(value, "to_pydatetime") else kind.to_pandas_dtype()(value).item()


def named(value: dict[str, Any], kind: pa.DataType) -> dict[str, Any]:
    """The values of a struct by name. mlcroissant puts the values of an inner struct beside the values of the outer
    struct, under a longer path.
    """
    found: dict[str, Any] = {}
    for path, inner in value.items():
        first, *rest = [name.replace("_x20_", " ") for name in path.split("/")[2:]]
        if rest:
            found.setdefault(first, {})["/".join(["", "", *rest])] = inner
        else:
            found[first] = inner
    return found


def test_rows_read_back_are_the_rows_of_the_corpus(run, tmp_path):
    synthgen.export(run, "croissant", tmp_path / "out")
    dataset = opened(tmp_path / "out")
    assert not dataset.metadata.issues.errors
    for split in ("train", "test"):
        table = pq.read_table(tmp_path / "out" / "data" / f"{split}-00000-of-00001.parquet")
        found = list(dataset.records(split))
        ids = {name: f"{split}/{name.replace('/', '_x2f_')}" for name in table.column_names}
        assert set(found[0]) == set(ids.values())
        for one, expected in zip(found, table.to_pylist(), strict=True):
            for column in table.schema:
                value = plain(one[ids[column.name]], column.type)
                assert value == expected[column.name], column.name
    kept = {record.id for _, records in synthgen.corpus.records(run / "curated") for record in records}
    exported = {one[f"{split}/id"].decode() for split in ("train", "test") for one in dataset.records(split)}
    assert exported == kept != set()


def test_a_changed_file_is_not_read(run, tmp_path):
    synthgen.export(run, "croissant", tmp_path / "out")
    path = tmp_path / "out" / "data" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(Exception, match=r"ReadFields|Download") as caught:
        list(opened(tmp_path / "out").records("train"))
    assert "is not identical" in str(caught.value.__cause__ or caught.value)


def described(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "croissant.json").read_text())
    return found


def test_the_description_says_what_the_run_and_its_audit_say(run, tmp_path):
    synthgen.export(run, "croissant", tmp_path / "before")
    found = described(tmp_path / "before")
    assert found["rai:dataUseCases"] == [
        "No audit of these rows was made, so it is not known what their licenses allow."
    ]
    assert found["rai:dataBiases"] == ["Bias was not measured."]
    assert "license" not in found or found["license"]
    assert "pseudonyms" in found["rai:personalSensitiveInformation"]
    assert "creator" not in found
    report = audited(run, [measurement(outcome="found")], duties=[["name the authors"]])
    synthgen.export(run, "croissant", tmp_path / "after")
    found = described(tmp_path / "after")
    assert found["rai:dataUseCases"][0].startswith("This corpus may be used to train a student")
    assert report["date"] in found["rai:dataUseCases"][1]
    assert "A difference was found: 0.651 times (95% interval 0.536 to 0.785)" in found["rai:dataBiases"][0]
    assert any("name the authors" in line for line in found["rai:dataLimitations"])
    opened(tmp_path / "after")


def test_licenses_are_addresses_and_an_unknown_one_is_a_limitation(tmp_path):
    run = corpus_of(tmp_path / "run", rows_of(2))
    synthgen.export(run, "croissant", tmp_path / "stated", license="mit")
    assert described(tmp_path / "stated")["license"] == ["https://spdx.org/licenses/MIT.html"]
    path = run / "generated" / "manifest.json"
    facts = json.loads(path.read_text())
    facts["sources"].append({"role": "generator", "source": "m", "license": "unknown"})
    path.write_text(json.dumps(facts))
    synthgen.export(run, "croissant", tmp_path / "mixed")
    assert "license" not in described(tmp_path / "mixed"), "CC0-1.0 would look like the license of all rows"
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    done = CliRunner().invoke(main, ["export", str(path), "--to", "croissant", "-o", str(tmp_path / "rows")])
    assert done.exit_code == 0, done.output
    found = described(tmp_path / "rows")
    assert "license" not in found
    assert "The license of the rows is not known: nobody stated it." in found["rai:dataLimitations"]
    assert "rai:dataCollection" not in found
    (one,) = opened(tmp_path / "rows").records("train")
    assert one["train/completion"][0]["train/completion/content"] == b"b"


def test_an_earlier_export_is_replaced_only_when_asked(run, tmp_path):
    synthgen.export(run, "croissant", tmp_path / "out")
    with pytest.raises(RunChanged, match="earlier export"):
        synthgen.export(run, "croissant", tmp_path / "out")
    synthgen.export(run, "croissant", tmp_path / "out", fresh=True)
    synthgen.export(run, "hub", tmp_path / "out", fresh=True)
    assert not (tmp_path / "out" / "croissant.json").exists()
