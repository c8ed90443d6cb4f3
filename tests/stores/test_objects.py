"""What `Store` promises holds in each kind of store: writes with a condition, versions, names, and lines for errors."""

from __future__ import annotations

import os

import pytest
from support.remote import command

from synthgen.errors import UserError
from synthgen.stores import objects
from synthgen.stores.objects import Raced, Store

HINTS = {"s3": "AWS_PROFILE", "gs": "GOOGLE_APPLICATION_CREDENTIALS", "az": "AZURE_STORAGE_CONNECTION_STRING"}


@pytest.fixture
def files(store):
    return Store(store.url("run"))


def content(store, name: str) -> bytes:
    return store.files.cat_file(f"bucket/run/{name}")


def test_an_object_is_replaced_only_if_it_is_the_one_that_was_seen(store, files):
    first = files.write("a", b"1", None)
    store.proxy.reset()
    second = files.write("a", b"2", first)
    assert store.proxy.requests == 1  # asked later, the store might name the version of another process
    assert {name: entry.version for name, entry in files.list().items()} == {"a": second}
    assert files.version("a") == second != first
    for version in (None, first):
        with pytest.raises(Raced, match="another process writes to this run"):
            files.write("a", b"3", version)
    assert content(store, "a") == b"2"
    files.delete("a")
    with pytest.raises(UserError):
        files.write("a", b"3", second)
    assert files.read("a") is None
    files.delete("a")  # it may be gone already


def test_a_write_whose_reply_was_lost_is_known_as_our_own(files):
    first = files.write("a", b"1", None)
    assert files.write("a", b"1", None) == first
    second = files.write("a", b"2", first)
    assert files.write("a", b"2", first) == second


def test_objects_of_any_size_and_name_come_back(store, files, tmp_path):
    names = ["a b.txt", "a#1", "ä", "a+b", "a%20b", "a?b", "folder/empty", "folder/x"]
    for name in names:
        files.write(name, b"" if "empty" in name else name.encode(), None)
    store.files.pipe_file("bucket/run/marked/", b"")  # as consoles of stores mark a folder
    store.files.pipe_file("bucket/running/x", b"")
    listed = files.list()
    store.files.rm_file("bucket/run/marked/")
    assert sorted(listed) == sorted(names)
    for name, entry in listed.items():
        files.fetch(name, tmp_path / "x", entry.bytes)
        assert (tmp_path / "x").read_bytes() == files.read(name) == (b"" if "empty" in name else name.encode())


def test_a_single_object_is_found(store):
    store.files.pipe_file("bucket/run/rows.jsonl", b"12")
    single = Store(store.url("run/rows.jsonl"))
    assert {name: entry.bytes for name, entry in single.list().items()} == {"": 2}
    assert single.is_object()
    assert not Store(store.url("run")).is_object()
    assert not Store(store.url("run/rows")).is_object()


def test_a_large_file_is_sent_with_a_condition_up_to_a_limit(store, files, tmp_path):
    path = tmp_path / "file"
    data = os.urandom(64 << 20)
    first = files.write("a", data, None)
    with pytest.raises(Raced):
        files.write("a", b"1", None)
    second = files.write("a", data[::-1], first)
    with pytest.raises(Raced):
        files.write("a", data, first)
    path.write_bytes(data + b"1")
    third = files.send("a", path)
    assert len({first, second, third}) == 3
    entry = files.list()["a"]
    assert (entry.bytes, entry.version) == (len(data) + 1, third)
    files.fetch("a", tmp_path / "copy", entry.bytes)
    assert (tmp_path / "copy").read_bytes() == data + b"1"
    assert files.sha256("a") == objects.durable.sha256(path)


def test_a_large_file_is_created_only_if_there_is_none(store, files, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "_WHOLE", 4)  # fake-gcs-server knows no condition for uploads in parts
    path = tmp_path / "file"
    path.write_bytes(b"large")
    files.create("a", path)
    files.create("a", path)  # as if the reply had been lost
    path.write_bytes(b"other")
    with pytest.raises(Raced):
        files.create("a", path)
    assert content(store, "a") == b"large"


def test_a_missing_bucket_is_one_line(store):
    files = Store(store.url("run", bucket="nowhere"))
    assert files.list() == {}
    assert files.read("a") is None
    assert not files.is_object()
    with pytest.raises(UserError, match="the bucket is missing") as caught:
        files.write("a", b"1", None)
    assert "make the bucket" in caught.value.hint
    with pytest.raises(UserError, match="the bucket is missing"):
        files.overwrite("a", b"1")


def test_a_store_that_is_busy_is_asked_again(store, files):
    files.write("a", b"1", None)
    single = Store(store.url("run/a"))
    # after four failures, adlfs gives up and takes the object for missing; s3fs waits longer after each failure
    failures = 4 if store.proxy.server.scheme == "az" else 2
    for act, expected in [
        (single.is_object, True),
        (lambda: list(single.list()), [""]),
        (lambda: list(files.list()), ["a"]),
        (lambda: files.read("a"), b"1"),
    ]:
        store.proxy.reset()
        store.proxy.fault = lambda name, number: 503 if number <= failures else None
        assert act() == expected
        assert store.proxy.failed == failures
    store.proxy.reset()
    store.proxy.fault = lambda name, number: 503 if name and len(store.proxy.writes) <= 2 else None
    files.write("b", b"2", None)
    assert content(store, "b") == b"2"


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_is_one_line_and_asked_once(store, files, tmp_path, status):
    store.proxy.fault = lambda name, number: status
    for act in (files.list, files.is_object, lambda: files.read("a"), lambda: files.write("a", b"1", None)):
        store.proxy.failed = 0
        with pytest.raises(UserError, match=r"access is refused: .*(The reason|Forbidden|Unauthorized)") as caught:
            act()
        assert HINTS[store.proxy.server.scheme] in caught.value.hint
        assert store.proxy.failed <= 3
    code, output = command(["synthgen", "show", store.url("run")], tmp_path / "a")
    assert code == 2
    assert len(output.splitlines()) == 2, output
    assert "access is refused" in output


def test_missing_credentials_are_one_line(store, tmp_path, monkeypatch):
    for name in store.proxy.server.environment(store.proxy.url):
        if "ENDPOINT" not in name and "EMULATOR" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AZURE_STORAGE_ANON", "true")
    store.proxy.fault = lambda name, number: 401
    code, output = command(["synthgen", "show", store.url("run")], tmp_path / "a")
    assert code == 2
    assert len(output.splitlines()) == 2, output
    assert HINTS[store.proxy.server.scheme] in output
