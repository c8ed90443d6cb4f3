"""A run's JSON files with any content. For a wrong file, the error is one line that names the file and says what to do.
A wrong file is never read as a valid value.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support.corpora import corpus_of, curating, row

import synthgen
from synthgen import corpus
from synthgen.auditing.gate import check
from synthgen.errors import CorpusError, GateDenied
from synthgen.files import read_object, read_text
from synthgen.results.audit import read_audit

SHAPES = {
    "a list": b"[1]",
    "null": b"null",
    "a number": b"5",
    "a text": b'"x"',
    "nothing": b"",
    "half": b'{"a": ',
    "another encoding": '{"a": "é"}'.encode("utf-16"),
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "a deep list": b"[" * 100_000,
    "a deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a huge number": b'{"a": ' + b"9" * 6_000 + b"}",
    "a mark": b"\xef\xbb\xbf{}",
}
PLACES = {
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "missing": lambda path: None,
}


def refused(act, path: Path) -> None:
    with pytest.raises(CorpusError) as caught:
        act()
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400 + len(str(path))
    assert caught.value.hint


@pytest.mark.parametrize("shape", list(SHAPES))
def test_another_shape_is_one_line(tmp_path, shape):
    path = tmp_path / "inputs.json"
    path.write_bytes(SHAPES[shape])
    refused(lambda: read_object(path, "make it again"), path)
    refused(lambda: read_audit(path), path)
    run = corpus_of(tmp_path / "run", [row("x", 0)])
    manifest = run / "generated" / "manifest.json"
    manifest.write_bytes(SHAPES[shape])
    refused(lambda: corpus.verify(run / "generated"), manifest)


@pytest.mark.parametrize("place", list(PLACES))
def test_what_is_no_file_is_one_line_at_once(tmp_path, place):
    path = tmp_path / "x.json"
    PLACES[place](path)
    refused(lambda: read_object(path, "make it again"), path)
    refused(lambda: read_text(path, "make it again"), path)
    shard = tmp_path / "train-00000.parquet"
    PLACES[place](shard)
    refused(lambda: list(corpus.scan(shard)), shard)
    refused(lambda: corpus.read_shard(shard), shard)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("counts", {"rows": "many"}),
        ("counts", {"rows": 1.5}),
        ("counts", [1]),
        ("files", {"data/train-00000.parquet": {"rows": 1}}),
        ("files", {"data/train-00000.parquet": [1]}),
        ("files", {"../../etc/passwd": {"rows": 1, "bytes": 1, "sha256": "0"}}),
        ("files", {"/etc/passwd": {"rows": 1, "bytes": 1, "sha256": "0"}}),
        ("kind", "other"),
        ("sources", [{"role": "seed"}]),
        ("teachers", {"t": {"model": "m"}}),
        ("teachers", {"t": None}),
        ("labels", "ab"),
        ("description", None),
    ],
)
def test_a_manifest_with_other_values_is_damaged(tmp_path, key, value):
    run = corpus_of(tmp_path / "run", [row("x", 0)])
    path = run / "generated" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    refused(lambda: corpus.manifest(run / "generated"), path)


@pytest.mark.parametrize("passed", ["false", "no", 0, 1, None, [], "True"])
def test_an_audit_that_does_not_say_clearly_that_it_passed_trains_nothing(tmp_path, passed):
    recipe, run = curating(), corpus_of(tmp_path, [row("a", 0)])
    synthgen.curate(recipe, run)
    synthgen.audit(recipe, run)
    (path,) = (run / "audit").glob("*/report.json")
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "passed": passed}))
    refused(lambda: check(recipe, run / "curated"), path)
    path.write_text(json.dumps({**report, "passed": False, "status": "DENY"}))
    with pytest.raises(GateDenied, match="is DENY for commercial use"):
        check(recipe, run / "curated")
    assert check(recipe, run / "curated", override=True).overridden
    path.write_text(json.dumps({key: value for key, value in report.items() if key != "passed"}))
    refused(lambda: check(recipe, run / "curated"), path)
