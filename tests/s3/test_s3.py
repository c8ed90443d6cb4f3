"""Runs in S3 have the same files as runs on a disk, whatever fails, and whenever a command is killed.

`make test-stores` runs these tests in an environment of their own.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.corpora import contents, corpus_of, curating, row
from support.s3 import SECRET, command, objects, start
from support.small import small_task, small_teacher

import synthgen
from synthgen.errors import UserError
from synthgen.recipe import dump_recipe
from synthgen.stores.objects import Store

RECIPE = curating(duplicates=True, length={"min_words": 4})
# These files hold times, dates, or the name of the folder.
TIMED = ("log.jsonl", "report.html", "audit/", "training.json", "evaluation.json", "README.md", "ledger/", "cache/")


def same(disk: dict[str, bytes], store: dict[str, bytes]) -> list[str]:
    """The names of the files that differ or are missing. Files that hold times need only exist."""
    names = {name for name in disk if not name.startswith(".writer") and "cache/" not in name}
    missing = sorted(names ^ set(store))
    return missing + [n for n in sorted(names & set(store)) if not any(t in n for t in TIMED) and disk[n] != store[n]]


def made(folder: Path, rows: int = 12) -> Path:
    """A generated run with copies and short rows, and its recipe."""
    texts = [f"text number {n % 9} is here" if n % 4 else "short" for n in range(rows)]
    corpus_of(folder, [row(text, n, prompt=[{"role": "user", "content": f"q{n}"}]) for n, text in enumerate(texts)])
    (folder / "recipe.yaml").write_text(dump_recipe(RECIPE))
    return folder


def put(s3, folder: Path, name: str) -> str:
    for path, data in contents(folder).items():
        s3.pipe_file(f"bucket/{name}/{path}", data)
    return f"s3://bucket/{name}"


def test_a_whole_run_with_faults_equals_a_run_on_a_disk(s3, proxy, tmp_path):
    recipe = small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=12)
    args = ["synthgen", "run", recipe, "-q", "-o"]
    code, output = command([*args, tmp_path / "disk" / "first"], tmp_path / "a")
    assert code == 0, output

    def fault(method, path, number):
        return 503 if number % 5 == 0 else 0.3 if number % 7 == 0 else None

    proxy.fault = fault
    code, output = command([*args, "s3://bucket/runs/first"], tmp_path / "a")
    assert code == 0, output
    assert proxy.failed >= 10, proxy.requests
    assert same(contents(tmp_path / "disk" / "first"), objects(s3, "runs/first")) == []
    # another machine, with nothing in its cache, finds a finished run
    code, output = command([*args[:-2], "-o", "s3://bucket/runs/first"], tmp_path / "b")
    assert code == 0, output
    assert "already complete; nothing to do" in output
    assert str(tmp_path / "b") not in output  # messages name the URL


def test_a_whole_run_that_dies_on_four_machines_equals_a_run_on_a_disk(s3, proxy, tmp_path):
    recipe = small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=12)
    args = ["synthgen", "run", recipe, "-q", "-o"]
    assert command([*args, tmp_path / "disk" / "first"], tmp_path / "a")[0] == 0
    for number, (name, when) in enumerate(
        {
            "/generated/data/train-00001.parquet": "after",
            "/generated/manifest.json": "before",
            "/curated/manifest.json": "before",
            "/student/model.safetensors": "after",
        }.items()
    ):
        process = start([*args, "s3://bucket/runs/first"], tmp_path / f"machine-{number}")
        proxy.kill = (process.pid, name, when)
        code, output = process.wait()
        assert code == -9, (name, output)
        proxy.reset()
    code, output = command([*args, "s3://bucket/runs/first"], tmp_path / "last")
    assert code == 0, output
    assert same(contents(tmp_path / "disk" / "first"), objects(s3, "runs/first")) == []


def curated(s3, folder: Path, tmp_path: Path) -> tuple[list[str | Path], dict[str, bytes]]:
    """The command that curates a run of S3 into another place there, and the files that it must write."""
    source = put(s3, folder, "in")
    assert command(["synthgen", "curate", folder, "-o", tmp_path / "out", "-q"], tmp_path / "disk")[0] == 0
    return ["synthgen", "curate", source, "-o", "s3://bucket/out", "-q"], contents(tmp_path / "out")


def test_a_command_that_is_killed_at_any_write_is_continued(s3, proxy, tmp_path):
    words, expected = curated(s3, made(tmp_path / "run"), tmp_path)
    proxy.writes.clear()
    assert command(words, tmp_path / "whole")[0] == 0
    assert same(expected, objects(s3, "out")) == []
    writes = len([w for w in proxy.writes if ".writer" not in w])
    assert writes == len(expected)
    killed = 0
    for number in range(1, writes + 2):
        for when in ("before", "after"):
            s3.rm("bucket/out", recursive=True)
            proxy.reset()
            machine = tmp_path / f"{number}-{when}"
            process = start(words, machine)
            proxy.kill = (process.pid, number, when)
            code, output = process.wait()
            killed += code == -9
            assert code in (0, -9), output
            proxy.reset()
            # the same machine continues from its disk, and another machine from what is in the store
            code, output = command(words, machine if number % 2 else tmp_path / f"{number}-{when}-other")
            assert code == 0, (number, when, output)
            assert same(expected, objects(s3, "out")) == [], (number, when)
    assert killed >= writes


def test_of_two_writers_one_ends_with_a_line(s3, proxy, tmp_path):
    words, expected = curated(s3, made(tmp_path / "run", 60), tmp_path)
    proxy.fault = lambda method, path, number: 0.4 if method == "PUT" and "/data/" in path else None
    first = start(words, tmp_path / "a")
    while not any("/out/.writer" in name for name in proxy.writes):
        assert first.process.is_alive(), first.wait()
    code, output = command(words, tmp_path / "b")
    assert code == 2, output
    assert "Error: s3://bucket/out: another process writes to this run" in output
    assert len(output.splitlines()) == 2
    assert first.wait()[0] == 0
    assert same(expected, objects(s3, "out")) == []


def test_a_process_that_was_silent_too_long_writes_no_more(s3, proxy, tmp_path):
    words, expected = curated(s3, made(tmp_path / "run", 60), tmp_path)
    proxy.fault = lambda method, path, number: 0.4 if method == "PUT" and "/data/" in path else None
    first = start(words, tmp_path / "a")
    while not any("/out/curated" in name or "/out/data" in name for name in proxy.writes):
        assert first.process.is_alive(), first.wait()
    os.kill(first.pid, signal.SIGSTOP)
    code, output = command(words, tmp_path / "b")
    assert code == 0, output
    os.kill(first.pid, signal.SIGCONT)
    code, output = first.wait()
    assert code == 2, output
    assert "another process writes to this run" in output
    assert same(expected, objects(s3, "out")) == []


def test_an_object_is_replaced_only_if_it_is_the_one_that_was_seen(s3):
    store = Store("s3://bucket/run")
    first = store.write("a", b"1", None)
    second = store.write("a", b"2", first)
    assert {name: entry.version for name, entry in store.list().items()} == {"a": second}
    for version in (None, first):
        with pytest.raises(UserError, match="another process writes to this run"):
            store.write("a", b"3", version)
    assert s3.cat_file("bucket/run/a") == b"2"
    with pytest.raises(UserError, match="the bucket is missing"):
        Store("s3://nowhere/run").write("a", b"1", None)


def test_no_file_holds_a_credential(s3, proxy, tmp_path):
    words, _ = curated(s3, made(tmp_path / "run"), tmp_path)
    code, output = command([word for word in words if word != "-q"], tmp_path / "a")
    assert code == 0
    code, more = command(["synthgen", "show", "s3://bucket/out", "--json"], tmp_path / "a")
    assert code == 0, more
    texts = [output.encode(), more.encode(), *contents(tmp_path / "a").values()]
    texts += [s3.cat_file(path) for path in s3.find("bucket")]
    assert not [text for text in texts if SECRET.encode() in text]


def test_a_student_and_its_results_go_to_a_place_of_their_own(s3, tmp_path):
    recipe = small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=12)
    for words in (
        ["synthgen", "generate", recipe, "-o", "s3://bucket/runs/first"],
        ["synthgen", "curate", "s3://bucket/runs/first"],
        ["distill", "train", "s3://bucket/runs/first", "--override-audit", "-o", "s3://bucket/students/one"],
        ["distill", "eval", "s3://bucket/runs/first", "--student", "s3://bucket/students/one"],
        ["synthgen", "export", "s3://bucket/runs/first", "--to", "messages", "-o", "s3://bucket/rows"],
    ):
        code, output = command(words, tmp_path / words[1])  # each command on a machine of its own
        assert code == 0, output
    names = objects(s3, "students/one")
    assert {"training.json", "evaluation.json", "model.safetensors", "README.md"} <= set(names)
    assert not [name for name in objects(s3, "runs/first") if name.startswith(("student", "cache"))]
    assert "train.jsonl" in objects(s3, "rows")
    opened = synthgen.open("s3://bucket/runs/first")
    assert len(opened.kept) == 24
    assert opened.distribution(opened.kept["id"].iloc[0]).kind == "sampled"
