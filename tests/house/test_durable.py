"""Atomic writes: files are synced before they get their final name, and temporary files are deleted after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from support.small import small_task, small_teacher

import synthgen
from synthgen import corpus, durable
from synthgen.errors import UserError
from synthgen.records import FAILURE_SCHEMA, SCHEMA
from synthgen.reporting.page import report


@pytest.fixture
def disk(monkeypatch):
    """A list of all syncs and renames in order, as ("sync" or "name", path). The real calls still happen."""
    log: list[tuple[str, Path]] = []
    fsync, replace, mkdir = os.fsync, os.replace, os.mkdir

    def record(handle):
        log.append(("sync", Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    def rename(source, target, **options):
        log.append(("name", Path(target).absolute()))
        replace(source, target, **options)

    def make(path, *args, **options):
        mkdir(path, *args, **options)
        log.append(("name", Path(path).absolute()))

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "replace", rename)
    monkeypatch.setattr(os, "mkdir", make)
    return log


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the names of open files come from /proc")


@needs_proc
def test_a_file_is_synced_before_it_is_named_and_its_name_after(tmp_path, disk):
    durable.write_text(tmp_path / "a" / "b" / "file.txt", "whole")
    assert disk == [
        ("name", tmp_path / "a"),
        ("sync", tmp_path),
        ("name", tmp_path / "a" / "b"),
        ("sync", tmp_path / "a"),
        ("sync", tmp_path / "a" / "b" / ".tmp-file.txt"),
        ("name", tmp_path / "a" / "b" / "file.txt"),
        ("sync", tmp_path / "a" / "b"),
    ]
    assert (tmp_path / "a" / "b" / "file.txt").read_text() == "whole"


@needs_proc
def test_a_folder_is_synced_with_all_its_files_before_it_is_named(tmp_path, disk):
    folder = tmp_path / ".tmp-folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "one").write_text("1")
    (folder / "two").write_text("2")
    disk.clear()
    durable.publish(folder, tmp_path / "final")
    assert disk[-2:] == [("name", tmp_path / "final"), ("sync", tmp_path)]
    assert {path for what, path in disk[:-2]} == {folder, folder / "inner", folder / "inner" / "one", folder / "two"}
    assert (tmp_path / "final" / "inner" / "one").read_text() == "1"


def test_publish_replaces_an_older_folder(tmp_path):
    for text in ("old", "new"):
        (tmp_path / ".tmp-folder").mkdir()
        (tmp_path / ".tmp-folder" / text).write_text(text)
        durable.publish(tmp_path / ".tmp-folder", tmp_path / "final")
    assert [p.name for p in tmp_path.rglob("*")] == ["final", "new"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    durable.write_text(tmp_path / "file", "old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_text(tmp_path / "file", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_an_error_without_a_number_keeps_its_text(tmp_path):
    """numpy and pyarrow raise such errors. The message of the command is made of the number, the text and the file."""
    with pytest.raises(OSError, match="7 requested and 0 written") as caught, durable.new_version(tmp_path / "a"):
        raise OSError("7 requested and 0 written")
    assert (caught.value.strerror, caught.value.filename) == ("7 requested and 0 written", str(tmp_path / "a"))


def test_json_is_indented_and_its_letters_are_kept(tmp_path):
    """People read and compare these files. UTF-8 has no single surrogates, so they are escaped."""
    durable.write_json(tmp_path / "a.json", {"b": [1, True], "a": "ä\ud800"})
    assert (tmp_path / "a.json").read_bytes() == (b'{\n  "b": [\n    1,\n    true\n  ],\n  "a": "\xc3\xa4\\ud800"\n}\n')
    assert json.loads((tmp_path / "a.json").read_text())["a"] == "ä\ud800"


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys():
    assert durable.digest({"b": 1, "a": "ä"}) == hashlib.sha256('{"a":"ä","b":1}'.encode()).hexdigest()
    assert durable.digest({"a": "ä", "b": 1}) == durable.digest({"b": 1, "a": "ä"}) != durable.digest({"a": "ä"})


def test_sweep_deletes_every_temporary_file_and_nothing_else(tmp_path):
    folder = tmp_path / "corpus"
    for name in ("data/a.parquet", "data/.tmp-a.parquet", ".tmp-gone-old/data/.tmp-b", "x/.tmp-model-7/w", ".lock"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    half = tmp_path / ".tmp-gone-corpus"  # the folder that is left when the removal of a corpus is killed
    (half / "data").mkdir(parents=True)
    other = tmp_path / ".tmp-gone-another"
    other.mkdir()
    durable.sweep(folder)
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()) == [
        ".lock",
        "data/a.parquet",
    ]
    assert not half.exists()
    assert other.exists()


def test_sweep_accepts_any_spelling_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".tmp-x").write_text("")
    durable.sweep(Path())
    durable.sweep(Path("missing"))
    assert not list(tmp_path.iterdir())


def test_remove_follows_no_link(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").write_text("")
    (tmp_path / "link").symlink_to(target)
    durable.remove(tmp_path / "link")
    durable.remove(tmp_path / "link")
    assert (target / "kept").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_sweep_keeps_what_others_write(tmp_path):
    for name in (".tmp-mine", ".tmp-theirs"):
        (tmp_path / name).write_text("")
    durable.sweep(tmp_path, lambda path: path.name == ".tmp-mine")
    assert [p.name for p in tmp_path.iterdir()] == [".tmp-theirs"]


def test_a_thread_may_lock_again_what_it_holds_and_another_thread_may_not(tmp_path):
    def attempt() -> str:
        try:
            with durable.lock(tmp_path / "a"):
                return "locked"
        except UserError as error:
            return error.message

    with ThreadPoolExecutor(1) as other:
        with durable.lock(tmp_path / "a"):
            for _ in range(2):  # the inner block does not give the outer lock back
                assert attempt() == "locked"
                assert f"another process (pid {os.getpid()}) is writing here" in other.submit(attempt).result()
        assert other.submit(attempt).result() == "locked"
        assert attempt() == "locked"


@pytest.mark.parametrize("what", ["link", "folder", "pipe"])
def test_what_is_no_lock_file_is_not_written(tmp_path, what):
    path = tmp_path / ".lock"
    (tmp_path / "target").write_text("mine")
    {"link": lambda: path.symlink_to("target"), "folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}[what]()
    with pytest.raises(UserError, match="is not a lock file of synthgen"), durable.lock(tmp_path):
        pass
    assert (tmp_path / "target").read_text() == "mine"


def test_only_the_first_of_several_processes_writes(monkeypatch):
    for rank, writes in ((None, True), ("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank) if rank else monkeypatch.delenv("RANK", raising=False)
        assert durable.writes() is writes


def test_failures_of_a_killed_attempt_do_not_outlive_the_next(tmp_path):
    """If a row fails before a kill and succeeds afterwards, its failure is deleted."""
    corpus.claim(tmp_path, {}, "generate")
    failure = {"id": "a", "seed_id": "s", "split": "train", "kind": "context", "reason": "long"}
    failures = pa.Table.from_pylist([failure], schema=FAILURE_SCHEMA)
    # the process was killed before it wrote the data file
    corpus.commit(tmp_path, "train-00000", {"failures": failures})
    corpus.commit(tmp_path, "train-00000", {"data": SCHEMA.empty_table()})
    assert not list(tmp_path.glob("failures/*"))


def test_half_a_line_of_the_log_breaks_nothing(tmp_path):
    """A power failure can leave half a line in the log. The page is still written, and the next run still works."""
    recipe = synthgen.load_recipe(small_task(tmp_path / "task", small_teacher(tmp_path / "teacher"), train=None))
    run = tmp_path / "run"
    synthgen.run(recipe, run)
    log = run / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    made = {line["stage"]: line["rows"] for line in lines if "rows" in line}
    assert made == {"generate": 18, "curate": 18}, "a rate needs the rows of a whole stage"
    log.write_text(log.read_text() + '{"time": "2026-01-01T00:0')
    page = report(run).path.read_text()
    assert "generate" in page
    synthgen.run(recipe, run)
    stages = []
    for line in log.read_text().splitlines():
        try:
            stages.append(json.loads(line)["stage"])
        except ValueError:
            assert line.startswith('{"time": "2026-01-01T00:0')
    assert stages.count("report") == 2
    assert stages.count("generate") == 2, "a new line begins after the half line"
    assert log.read_text().count('"rows"') == 2, "the second command made no rows"
