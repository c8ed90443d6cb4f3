"""What is sent between a working folder and its store: only what changed, at once or while the command runs."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from support.memory import MemoryStore

from synthgen import durable, stores
from synthgen.errors import UserError
from synthgen.stores import mirror
from synthgen.stores.address import address, url_of
from synthgen.stores.objects import Store


@pytest.fixture
def store(monkeypatch, tmp_path):
    return MemoryStore(monkeypatch, tmp_path)


def session(store: MemoryStore, command: str = "report"):
    """The context of a command on the run `run`. `show` only reads the run."""
    return stores.opened({"run": store.url("run")}, command)


def write(store: MemoryStore, **files: str) -> Path:
    """Writes files of the run in this order. Returns the working folder."""
    with session(store) as places:
        for name, text in files.items():
            durable.write_text(places["run"] / name, text)
    return places["run"]


@pytest.mark.parametrize("command", ["show", "report"])
def test_only_what_another_machine_changed_is_fetched(store, monkeypatch, command):
    folder = write(store, a="1", b="2", c="3")
    store.on_machine("b")
    write(store, b="changed", d="4")
    store.on_machine("a")
    fetched: list[str] = []
    fetch = Store.fetch

    def counted(self: Store, name: str, path: Path, size: int) -> None:
        fetched.append(name)
        fetch(self, name, path, size)

    monkeypatch.setattr(Store, "fetch", counted)
    for wanted in (["b", "d"], []):  # the second command has them already
        fetched.clear()
        with session(store, command):
            assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": "1", "b": "changed", "c": "3", "d": "4"}
        assert sorted(fetched) == wanted


def test_a_card_and_a_mark_are_never_beside_rows_that_they_do_not_describe(store):
    """When a shard changes, its card and its mark leave the store first. They come back although they are the same."""
    names = ("curated/data/a.parquet", "curated/README.md", "curated/manifest.json")
    write(store, **dict.fromkeys(names, "1"))
    store.changes.clear()
    write(store, **{names[0]: "2"})
    assert store.get("run") == {names[0]: b"2", names[1]: b"1", names[2]: b"1"}
    assert store.changes == [
        *("delete curated/manifest.json", "delete curated/README.md", "delete curated/data/a.parquet"),
        *("write curated/data/a.parquet", "write curated/README.md", "write curated/manifest.json"),
    ]


def test_files_are_sent_while_the_command_runs(store, monkeypatch):
    monkeypatch.setattr(mirror, "_EVERY", 0.01)
    with session(store) as places:
        for name in ("a", "b", "c"):
            durable.write_text(places["run"] / name, name)
            end = time.monotonic() + 5
            while name not in store.get("run"):
                assert time.monotonic() < end, f"{name} is not sent before the command ends"
                time.sleep(0.01)


def test_a_working_folder_that_another_command_made_again_deletes_nothing(store):
    """A user deletes the cache, and a further command makes the same folders, with a lock of its own."""
    write(store, a="1", b="2")
    opened = session(store)
    folder = opened.__enter__()["run"]
    lock = folder.parent / ".lock"
    shutil.rmtree(folder.parent)
    durable.make_folder(folder)
    lock.write_text(str(os.getpid()))  # as long as the lock of this process
    with pytest.raises(UserError, match="was deleted while this command ran; nothing was deleted in memory://"):
        opened.__exit__(None, None, None)
    assert store.get("run") == {"a": b"1", "b": b"2"}


def test_the_version_of_a_written_object_is_the_one_in_the_stores_answer(store, monkeypatch):
    """S3 answers with the version. A later question might already return the version of another process."""
    files = Store(store.url("run"))
    monkeypatch.setattr(files._fs, "pipe_file", lambda path, data, **more: {"ETag": '"first"'})
    monkeypatch.setattr(files, "version", lambda name: '"of another process"')
    assert files.write("a", b"1", None) == '"first"'
    monkeypatch.setattr(files._fs, "pipe_file", lambda path, data, **more: None)  # other stores answer nothing
    assert files.write("a", b"1", None) == '"of another process"'


@pytest.mark.parametrize(
    ("url", "root", "inside"),
    [
        ("s3://bucket/runs/first/curated", "s3://bucket/runs/first", "curated"),
        ("S3:/bucket/runs/first/", "s3://bucket/runs/first", ""),
        ("gs://bucket/curated", "gs://bucket/curated", ""),  # a run in a bucket, whose name is that of a stage
        ("gs://bucket/run/student", "gs://bucket/run", "student"),
        ("https://host:443/rows.jsonl", "https://host:443/rows.jsonl", ""),
        ("s3://bucket", "s3://bucket", ""),
    ],
)
def test_an_address_is_a_run_and_a_place_inside_it(url, root, inside):
    found = address(url)
    assert (found.root, found.inside) == (root, inside)
    assert found.url == (f"{root}/{inside}" if inside else root)
    assert found.working.name == root.rpartition("/")[2]


def test_files_of_a_run_hold_its_url_and_no_path_of_this_machine(store, tmp_path):
    with session(store) as places:
        run = places["run"]
        assert url_of(run) == store.url("run")
        assert url_of(run / "curated" / "data") == f"{store.url('run')}/curated/data"
        assert url_of(run.parent) == store.url("run")
    others = (tmp_path / "run", durable.cache_folder() / "stores", durable.cache_folder() / "stores" / "unknown" / "x")
    assert [url_of(place) for place in others] == list(map(str, others))
    (run.parent / "state.json").write_text("[]")
    assert url_of(run) == str(run), "nothing is known about this folder"
