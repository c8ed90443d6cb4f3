"""The parts of a store: who may write to a run, which requests are repeated, and the order of files."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.memory import MemoryStore

from synthgen import durable, stores
from synthgen.errors import UserError
from synthgen.outputs import STAGES
from synthgen.stores import kinds, lease, objects, order
from synthgen.stores.lease import Lease, owner_of
from synthgen.stores.objects import Entry, Raced, Store


@pytest.fixture
def store(monkeypatch, tmp_path):
    return MemoryStore(monkeypatch, tmp_path)


@pytest.fixture
def files(store):
    return Store(store.url("run"))


# Leases


def leases(files: Store) -> dict[str, dict]:
    """The content of each lease's object, by its number."""
    return {name.rpartition("/")[2]: json.loads(files.read(name)) for name in files.list(".writer")}


def test_a_lease_is_taken_from_the_same_folder_at_once_and_from_another_after_silence(files, monkeypatch):
    assert owner_of(files) == ""
    monkeypatch.setattr(lease, "SILENCE", 60.0)
    first = Lease(files, "a")
    second = Lease(files, "a")  # after a kill; does not wait
    assert (first.ours, second.ours, list(leases(files)), owner_of(files)) == (False, True, ["00000002"], "a")
    with pytest.raises(Raced):
        first.renew()
    monkeypatch.setattr(lease, "SILENCE", 0.2)
    began = time.monotonic()
    third = Lease(files, "b")
    assert 0.2 <= time.monotonic() - began < 5
    assert (third.ours, list(leases(files)), owner_of(files)) == (False, ["00000003"], "b")
    monkeypatch.setattr(lease, "SILENCE", 60.0)
    third.give_back(keep=True)
    assert leases(files)["00000003"]["done"] is True
    fourth = Lease(files, "a")  # the other command has ended, so nothing is waited for
    assert (fourth.ours, list(leases(files))) == (False, ["00000004"])
    assert leases(files)["00000004"]["done"] is False
    fourth.give_back(keep=False)
    assert leases(files) == {}


def test_a_lease_whose_owner_lives_is_not_taken(files, monkeypatch):
    owner = Lease(files, "a")
    monkeypatch.setattr(lease, "SILENCE", 60.0)
    waited: list[float] = []

    def beats(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            owner.renew()

    monkeypatch.setattr(time, "sleep", beats)
    with pytest.raises(Raced, match="another process writes to this run"):
        Lease(files, "b")
    assert waited == [1.0] * 3
    assert leases(files)["00000001"]["owner"] == "a"


def test_an_old_lease_is_renewed_before_a_write(files, monkeypatch):
    monkeypatch.setattr(lease, "SILENCE", 30.0)
    held = Lease(files, "a")
    for age, beats in ((9.0, 0), (11.0, 1), (0.0, 1), (99.0, 2)):
        held._renewed = time.monotonic() - age
        held.check()
        assert leases(files)["00000001"]["beat"] == beats


def test_a_lease_is_held_only_by_commands_that_write_to_the_run(store, tmp_path):
    out = {"out": str(tmp_path / "out")}
    for command, name, more, writes in (
        ("report", "run", {}, True),
        ("show", "run", {}, False),
        ("open", "run", {}, False),
        ("plan", "measured", {}, False),
        ("remove", "run", {"plan": True}, False),
        ("remove", "run", {"plan": False}, True),
        ("curate", "run", out, False),
        ("audit", "run", out, True),  # the audit of a run is written into the run
        ("audit", "held_out", {}, False),
        ("takedown", "file", {}, False),
        ("train", "corpus", {}, False),
        ("curate", "out", {"run": str(tmp_path)}, True),
    ):
        case = f"{command}-{name}-{len(more)}-{writes}"
        store.files.pipe_file(f"{store.root}/{case}/a", b"1")
        with stores.opened({name: store.url(case), **more}, command) as places:
            assert (places[name] / "a").read_bytes() == b"1"
        assert bool(store.files.find(f"{store.root}/{case}/.writer")) == writes, case


def test_several_processes_are_refused(store, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(UserError, match="several processes cannot share the working folder"),
        stores.opened({"run": store.url("run")}, "train"),
    ):
        pass
    with stores.opened({"run": "runs/first"}, "train") as places:  # a folder on a disk
        assert places == {"run": "runs/first"}
    monkeypatch.setenv("WORLD_SIZE", "1")
    with stores.opened({"run": store.url("run")}, "show"):
        pass


def test_a_run_that_changes_while_it_is_read_is_read_again(store, monkeypatch):
    for name in ("a", "b"):
        store.files.pipe_file(f"{store.root}/run/{name}", b"old")
    fetch, fetched = Store.fetch, []

    def meanwhile(self: Store, name: str, path: Path, size: int) -> None:
        fetch(self, name, path, size)
        fetched.append(name)
        if len(fetched) == 2:
            for name in ("a", "b"):
                store.files.pipe_file(f"{store.root}/run/{name}", b"new")

    monkeypatch.setattr(Store, "fetch", meanwhile)
    with stores.opened({"run": store.url("run")}, "show") as places:
        assert [(places["run"] / name).read_text() for name in ("a", "b")] == ["new", "new"]
    assert len(fetched) == 4


# Requests


@pytest.mark.parametrize(("failures", "works"), [(0, True), (1, True), (4, True), (5, False)])
def test_a_request_that_fails_is_repeated_four_times(files, monkeypatch, failures, works):
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    errors = [OSError(f"busy {n}\nand more") for n in range(failures)]

    def act() -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    if works:
        assert files._tried(act) == "answer"
    else:
        with pytest.raises(UserError, match=r"run cannot be reached: busy 4$") as caught:
            files._tried(act)
        assert "finished work is kept" in caught.value.hint
    usual = (0.5, 2.0, 5.0, 15.0)[:failures]
    assert len(pauses) == len(usual)
    assert all(0.5 * a <= pause <= 1.5 * a for a, pause in zip(usual, pauses, strict=True))


class NoCredentialsError(Exception):
    """The name of botocore's error."""


class Answered(Exception):
    """An error of a store's library that holds the status of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the answer was {status}")
        self.status = status


@pytest.mark.parametrize(
    ("error", "raised", "says"),
    [
        (FileNotFoundError("bucket"), UserError, "the bucket is missing"),
        (PermissionError("forbidden"), UserError, "access is refused: forbidden"),
        (NoCredentialsError("none"), UserError, "no credentials: none"),
        (Answered(412), FileExistsError, ""),
        (Answered(403), UserError, "access is refused: the answer was 403"),
        (UserError("ours", ""), UserError, "^ours$"),
    ],
)
def test_an_error_that_does_not_pass_is_raised_at_once(files, error, raised, says):
    calls: list[int] = []

    def act() -> None:
        calls.append(1)
        raise error

    with pytest.raises(raised, match=says):
        files._tried(act)
    assert calls == [1]
    if isinstance(error, FileNotFoundError):
        with pytest.raises(FileNotFoundError):
            files._tried(act, may_miss=True)


def test_objects_are_read_written_and_listed(files, tmp_path):
    assert files.list() == {}
    assert files.read("a") is None
    assert not files.is_object()
    first = files.write("a", b"123", None)
    files.overwrite("b/c", b"4")
    (tmp_path / "large").write_bytes(b"56")
    assert files.send("b/d", tmp_path / "large") == files.version("b/d")
    found = files.list()
    assert {name: entry.bytes for name, entry in found.items()} == {"a": 3, "b/c": 1, "b/d": 2}
    assert found["a"] == Entry(3, first)
    assert set(files.list("b")) == {"b/c", "b/d"}, "names are relative to the run"
    assert files.sha256("b/d") == durable.sha256(tmp_path / "large")
    one = Store(f"{files.url}/a")
    assert (one.is_object(), list(one.list()), one.read("")) == (True, [""], b"123")
    for _ in range(2):  # the second time, it is gone already
        files.delete("a")
    assert set(files.list()) == {"b/c", "b/d"}


def test_an_object_that_comes_incomplete_is_no_file(files, tmp_path, monkeypatch):
    monkeypatch.setattr(objects, "_PAUSES", (0.0,))
    files.write("a", b"123", None)
    with pytest.raises(UserError, match="3 of 4 bytes came"):
        files.fetch("a", tmp_path / "x" / "a", 4)
    assert not (tmp_path / "x" / "a").exists()
    files.fetch("a", tmp_path / "x" / "a", 3)
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "x").iterdir()] == [("a", b"123")]


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"size": 7, "ETag": "e", "LastModified": 1.0}, "e"),
        ({"size": 7, "generation": 12, "etag": "e"}, "12"),
        ({"size": 7, "created": None, "mtime": datetime(1970, 1, 1, 0, 1, tzinfo=UTC)}, "60.0"),
        ({"size": 7, "mtime": 0}, "0"),
        ({"size": 7}, "7"),
    ],
)
def test_each_kind_of_store_has_its_own_key_for_the_version(info, version):
    assert kinds.version_of(info) == version


def test_files_up_to_64_mebibytes_are_sent_whole():
    assert [objects.whole(size) for size in (0, 67_108_864, 67_108_865)] == [True, True, False]


# The order of files

SENT = [
    *("recipe.yaml", "log.jsonl", "report.json"),
    *("generated/inputs.json", "generated/logits/t/train-0.parquet", "generated/data/train-0.parquet"),
    *("generated/README.md", "generated/manifest.json"),
    *("curated/inputs.json", "curated/rejected/train-0.parquet", "curated/data/train-0.parquet", "curated/NOTICE.md"),
    *("curated/manifest.json", "student/inputs.json", "student/model.safetensors", "student/README.md"),
    *("student/metrics.jsonl", "student/training.json", "student/evaluation.json"),
]
"""Files of a run in the order in which they are sent."""
LEFT = [".lock", "cache/rows-1/a.bin", "student/cache/a", ".writer/00000001", "curated/.tmp-x", "a/.tmp-b/c"]
"""Files that are never sent."""


def test_files_are_sent_in_the_order_in_which_they_build_on_each_other(tmp_path):
    assert [name for name in SENT if name.partition("/")[0] in STAGES] == SENT[3:]
    assert sorted(SENT, key=order.rank) == SENT
    assert len(set(map(order.rank, SENT))) == len(SENT)
    for name in (*SENT, *LEFT):
        durable.make_folder((tmp_path / name).parent)
        (tmp_path / name).write_text(name)
    seen = order.scan(tmp_path)
    assert list(seen) == SENT[::-1]
    stats = {name: (tmp_path / name).stat() for name in SENT}
    assert seen == {name: (s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats.items()}
    assert order.stat_of(tmp_path / "nothing") is None


def test_what_a_changed_file_makes_untrue():
    rebuilt = {name for name in SENT if order.rebuilds(name)}
    assert rebuilt == {name for name in SENT if name.endswith((".parquet", ".safetensors", "inputs.json"))}
    assert not order.rebuilds("student/checkpoints/distilled-0000001.safetensors")
    speaking = {name for name in SENT if order.speaks_of_others(name)}
    assert speaking == {
        *("generated/README.md", "generated/manifest.json", "curated/manifest.json"),
        *("student/README.md", "student/metrics.jsonl", "student/training.json"),
    }
    assert [order.stage_of(name) for name in ("recipe.yaml", "curated/data/a", "mine/x")] == ["", "curated/", ""]
