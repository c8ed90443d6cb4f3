"""Runs in a store have the same files as runs on a disk, whatever fails, and whenever a command is killed.

`make test-stores` runs these tests in an environment of their own.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.corpora import contents, corpus_of, curating, row
from support.remote import command, objects, start
from support.remote_servers import AZ, GS, S3
from support.small import small_task, small_teacher

import synthgen
from synthgen.recipe import dump_recipe

on_s3 = pytest.mark.parametrize("proxy", [S3], indirect=True, ids=["s3"])  # takes too long for every kind of store
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


def put(store, folder: Path, name: str) -> str:
    for path, data in contents(folder).items():
        store.files.pipe_file(f"bucket/{name}/{path}", data)
    return store.url(name)


@on_s3
def test_a_whole_run_with_faults_equals_a_run_on_a_disk(store, tmp_path):
    recipe = small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=12)
    args = ["synthgen", "run", recipe, "-q", "-o"]
    code, output = command([*args, tmp_path / "disk" / "first"], tmp_path / "a")
    assert code == 0, output

    store.proxy.fault = lambda name, number: 503 if number % 5 == 0 else 0.3 if number % 7 == 0 else None
    code, output = command([*args, store.url("runs/first")], tmp_path / "a")
    assert code == 0, output
    assert store.proxy.failed >= 10, store.proxy.requests
    assert same(contents(tmp_path / "disk" / "first"), objects(store.files, "runs/first")) == []
    # another machine, with nothing in its cache, finds a finished run
    code, output = command([*args[:-2], "-o", store.url("runs/first")], tmp_path / "b")
    assert code == 0, output
    assert "already complete; nothing to do" in output
    assert str(tmp_path / "b") not in output  # messages name the URL


@on_s3
def test_a_whole_run_that_dies_on_four_machines_equals_a_run_on_a_disk(store, tmp_path):
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
        process = start([*args, store.url("runs/first")], tmp_path / f"machine-{number}")
        store.proxy.kill = (process.pid, name, when)
        code, output = process.wait()
        assert code == -9, (name, output)
        store.proxy.reset()
    code, output = command([*args, store.url("runs/first")], tmp_path / "last")
    assert code == 0, output
    assert same(contents(tmp_path / "disk" / "first"), objects(store.files, "runs/first")) == []


def curated(store, folder: Path, tmp_path: Path) -> tuple[list[str | Path], dict[str, bytes]]:
    """The command that curates a run of the store into another place there, and the files that it must write."""
    source = put(store, folder, "in")
    assert command(["synthgen", "curate", folder, "-o", tmp_path / "out", "-q"], tmp_path / "disk")[0] == 0
    return ["synthgen", "curate", source, "-o", store.url("out"), "-q"], contents(tmp_path / "out")


@pytest.mark.parametrize("proxy", [GS, AZ], indirect=True, ids=["gs", "az"])  # for S3, a whole run tests this
def test_a_command_whose_requests_fail_or_are_slow_writes_the_same_files(store, tmp_path):
    words, expected = curated(store, made(tmp_path / "run"), tmp_path)
    store.proxy.reset()
    store.proxy.fault = lambda name, number: 503 if number % 3 == 0 else 0.3 if number % 7 == 0 else None
    code, output = command(words, tmp_path / "a")
    assert code == 0, output
    assert len(output.splitlines()) == 4, output  # the result alone: the libraries print nothing
    assert store.proxy.failed >= 10, store.proxy.requests
    assert same(expected, objects(store.files, "out")) == []


def test_a_command_that_is_killed_at_any_write_is_continued(store, tmp_path):
    words, expected = curated(store, made(tmp_path / "run"), tmp_path)
    store.proxy.writes.clear()
    assert command(words, tmp_path / "whole")[0] == 0
    assert same(expected, objects(store.files, "out")) == []
    writes = len({name for name in store.proxy.writes if ".writer" not in name})
    assert writes == len(expected)
    killed = 0
    step = 1 if store.proxy.server.scheme == "s3" else 3  # each trial takes seconds
    for number in range(1, writes + 2, step):
        for when in ("before", "after"):
            store.empty("out/")
            store.proxy.reset()
            machine = tmp_path / f"{number}-{when}"
            process = start(words, machine)
            store.proxy.kill = (process.pid, number, when)
            code, output = process.wait()
            killed += code == -9
            assert code in (0, -9), output
            store.proxy.reset()
            # the same machine continues from its disk, and another machine from what is in the store
            code, output = command(words, machine if number % 2 else tmp_path / f"{number}-{when}-other")
            assert code == 0, (number, when, output)
            assert same(expected, objects(store.files, "out")) == [], (number, when)
    assert killed >= writes / step


def test_of_two_writers_one_ends_with_a_line(store, tmp_path):
    words, expected = curated(store, made(tmp_path / "run", 60), tmp_path)
    store.proxy.fault = lambda name, number: 0.4 if "/data/" in name else None
    first = start(words, tmp_path / "a")
    while not any("/out/.writer" in name for name in store.proxy.writes):
        assert first.process.is_alive(), first.wait()
    code, output = command(words, tmp_path / "b")
    assert code == 2, output
    assert f"Error: {store.url('out')}: another process writes to this run" in output
    assert len(output.splitlines()) == 2
    assert first.wait()[0] == 0
    assert same(expected, objects(store.files, "out")) == []


def test_a_process_that_was_silent_too_long_writes_no_more(store, tmp_path):
    words, expected = curated(store, made(tmp_path / "run", 60), tmp_path)
    store.proxy.fault = lambda name, number: 0.4 if "/data/" in name else None
    first = start(words, tmp_path / "a")
    while not any("/out/curated" in name or "/out/data" in name for name in store.proxy.writes):
        assert first.process.is_alive(), first.wait()
    os.kill(first.pid, signal.SIGSTOP)
    code, output = command(words, tmp_path / "b")
    assert code == 0, output
    os.kill(first.pid, signal.SIGCONT)
    code, output = first.wait()
    assert code == 2, output
    assert "another process writes to this run" in output
    assert same(expected, objects(store.files, "out")) == []


def test_no_file_holds_a_credential(store, tmp_path):
    words, _ = curated(store, made(tmp_path / "run"), tmp_path)
    code, output = command([word for word in words if word != "-q"], tmp_path / "a")
    assert code == 0
    code, more = command(["synthgen", "show", store.url("out"), "--json"], tmp_path / "a")
    assert code == 0, more
    texts = [output.encode(), more.encode(), *contents(tmp_path / "a").values()]
    texts += [store.files.cat_file(path) for path in store.files.find("bucket")]
    assert not [text for text in texts for secret in store.proxy.server.secrets if secret.encode() in text]


@on_s3
def test_a_student_and_its_results_go_to_a_place_of_their_own(store, tmp_path):
    recipe = small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), seeds=12)
    for words in (
        ["synthgen", "generate", recipe, "-o", store.url("runs/first")],
        ["synthgen", "curate", store.url("runs/first")],
        ["distill", "train", store.url("runs/first"), "--override-audit", "-o", store.url("students/one")],
        ["distill", "eval", store.url("runs/first"), "--student", store.url("students/one")],
        ["synthgen", "export", store.url("runs/first"), "--to", "messages", "-o", store.url("rows")],
    ):
        code, output = command(words, tmp_path / words[1])  # each command on a machine of its own
        assert code == 0, output
    names = objects(store.files, "students/one")
    assert {"training.json", "evaluation.json", "model.safetensors", "README.md"} <= set(names)
    assert not [name for name in objects(store.files, "runs/first") if name.startswith(("student", "cache"))]
    assert "train.jsonl" in objects(store.files, "rows")
    opened = synthgen.open(store.url("runs/first"))
    assert len(opened.kept) == 24
    assert opened.distribution(opened.kept["id"].iloc[0]).kind == "sampled"
