"""Runs in a store that lies in memory. `make test-stores` tests S3, with faults and kills."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.corpora import contents, corpus_of, curating, row
from support.memory import MemoryStore, half_commits

import synthgen
from synthgen import durable, stores
from synthgen.errors import UserError
from synthgen.recipe import dump_recipe
from synthgen.stores import mirror, order
from synthgen.stores.address import address
from synthgen.stores.objects import Store

RECIPE, OTHER = curating(duplicates=True), curating(duplicates=False, length={"min_words": 2})


@pytest.fixture
def store(monkeypatch, tmp_path):
    return MemoryStore(monkeypatch, tmp_path)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A folder with a generated run, `run`, and the run curated with two recipes, `curated` and `other`."""
    folder = tmp_path_factory.mktemp("disk")
    texts = [f"text number {n % 3} is here" if n % 4 else "short" for n in range(5)]
    corpus_of(folder / "run", [row(t, n, prompt=[{"role": "user", "content": t}]) for n, t in enumerate(texts)])
    (folder / "run" / "recipe.yaml").write_text(dump_recipe(RECIPE))
    for name, recipe in {"curated": RECIPE, "other": OTHER}.items():
        shutil.copytree(folder / "run", folder / name)
        synthgen.curate(recipe, folder / name, workers=1)
    return folder


def curate(store: MemoryStore, recipe=RECIPE, **options) -> None:
    synthgen.curate(recipe, store.url("run"), workers=1, **options)


def test_a_run_in_a_store_has_the_same_files_as_on_a_disk(store, disk):
    store.put(disk / "run", "run")
    store.watch = lambda change: wrong.extend(f"{change}: {w}" for w in half_commits(store.get("run"), "curated/"))
    wrong: list[str] = []
    curate(store)
    assert store.get("run") == contents(disk / "curated")
    assert wrong == []
    assert len(store.changes) == 7  # each file was sent once
    curate(store)
    assert len(store.changes) == 7  # a finished command sends nothing
    store.on_machine("b")
    shown = synthgen.show(store.url("run") + "/curated", 1, rejected=True)
    assert "r4" in shown.text()
    assert len(synthgen.open(Path(store.url("run"))).kept) == 4
    assert len(store.changes) == 7


@pytest.mark.parametrize("number", [3, 9, 12])
def test_a_killed_replacement_leaves_no_mixture(store, disk, number):
    store.put(disk / "curated", "run")
    wrong: list[str] = []
    store.watch = lambda change: wrong.extend(f"{change}: {w}" for w in half_commits(store.get("run"), "curated/"))
    with store.dying(number):
        curate(store, OTHER, fresh=True)
    assert len(store.changes) == min(number - 1, 13)
    if number % 2:
        store.on_machine("b")
    curate(store, OTHER, fresh=number < 9)  # until the new inputs are in the store, the user must give --fresh again
    assert store.get("run").items() >= {k: v for k, v in contents(disk / "other").items() if "curated" in k}.items()
    assert wrong == []


def writing(store: MemoryStore, *, only_read: bool = False):
    """A session of a command that writes to the run `run`, or only reads it. Yields the arguments of the command, with
    the working folder in place of the URL.
    """
    return stores.opened({"run": store.url("run")}, "show" if only_read else "report")


def write(store: MemoryStore, **files: str) -> Path:
    """Write files of the run, in this order. Returns the working folder."""
    with writing(store) as places:
        for name, text in files.items():
            durable.write_text(places["run"] / name, text)
    return places["run"]


def test_a_file_that_vanished_from_the_cache_is_fetched_and_not_deleted(store):
    folder = write(store, a="1", b="2")
    (folder / "a").unlink()
    assert write(store, c="3") == folder
    assert contents(folder) == store.get("run") == {"a": b"1", "b": b"2", "c": b"3"}
    shutil.rmtree(folder)
    write(store, d="4")
    assert contents(folder) == store.get("run") == {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}


def test_a_stage_that_lost_a_file_is_taken_from_the_store_as_a_whole(store):
    folder = write(store, **{"curated/a": "1", "curated/b": "2", "audit/c": "3"})
    (folder / "curated" / "a").unlink()
    for name in ("curated/b", "audit/c"):
        durable.write_text(folder / name, "never sent")
    write(store)
    assert contents(folder) == {"curated/a": b"1", "curated/b": b"2", "audit/c": b"never sent"} == store.get("run")


def test_a_file_that_a_command_deletes_is_deleted_in_the_store(store):
    write(store, a="1", b="2")
    with writing(store) as places:
        (places["run"] / "a").unlink()
    assert store.get("run") == {"b": b"2"}


def test_what_another_machine_wrote_replaces_the_old_copy(store):
    folder = write(store, a="1", b="2")
    store.on_machine("b")
    write(store, a="changed", c="3")
    store.on_machine("a")
    durable.write_text(folder / "a", "never sent")
    durable.write_text(folder / "d", "never sent")
    with writing(store, only_read=True):
        assert contents(folder) == {"a": b"changed", "b": b"2", "c": b"3"}


def test_a_killed_command_continues_from_its_disk(store):
    with store.dying(2), writing(store) as places:
        for name in ("a", "b", "c"):
            durable.write_text(places["run"] / name, name)
    assert store.get("run") == {"a": b"a"}
    durable.write_text(places["run"] / "a", "changed")
    write(store, d="d")
    assert store.get("run") == {"a": b"changed", "b": b"b", "c": b"c", "d": b"d"}


def test_a_run_that_the_user_deleted_does_not_come_back(store):
    folder = write(store, a="1")
    durable.write_text(folder / "never-sent", "1")
    store.files.rm(f"{store.root}/run", recursive=True)
    write(store, b="2")
    assert contents(folder) == store.get("run") == {"b": b"2"}


def test_a_ledger_is_in_the_store_before_the_request_is_sent(store):
    with writing(store) as places:
        path = places["run"] / "ledger" / "1-of-1-0.jsonl"
        durable.make_folder(path.parent)
        path.write_text('{"n": 1}\n{"n": 2}\n')
        durable.written(path)
        assert store.get("run")["ledger/1-of-1-0.jsonl"] == b'{"n": 2}\n'  # only the last line counts


def test_a_removal_is_known_to_the_store_before_its_first_change(store):
    write(store, **{"removed.jsonl": "old\n", "x.parquet": "rows", "manifest.json": "{}"})
    store.changes.clear()
    with writing(store) as places:
        run = places["run"]
        durable.write_text(run / ".removing.json", "{}")
        assert ".removing.json" in store.get("run")
        durable.write_text(run / "x.parquet", "fewer")
        (run / ".removing.json").unlink()
    assert store.changes == ["write .removing.json", "write x.parquet", "delete .removing.json"]


def test_an_object_of_another_process_is_not_replaced(store):
    files = Store(store.url("run"))
    files.write("a", b"1", None)
    files.write("a", b"1", None)  # as if the reply to this write had been lost
    with pytest.raises(UserError, match="another process writes to this run"):
        files.write("a", b"2", None)
    assert store.get("run") == {"a": b"1"}


def test_a_place_that_is_only_read_stays_as_it_is(store, disk):
    store.put(disk / "run", "run")
    synthgen.curate(RECIPE, store.url("run"), store.url("out"), workers=1)
    assert store.get("out") == {
        n[8:]: data for n, data in contents(disk / "curated").items() if n.startswith("curated/")
    }
    assert not [name for name in store.files.find(store.root) if "/run/.writer" in name]
    with pytest.raises(UserError, match=r"contains .*, which is an input of this command"):
        synthgen.curate(RECIPE, store.url("run"), store.url(""), workers=1)


def test_a_shard_that_changes_while_it_is_sent_waits_for_its_companion(store, monkeypatch):
    def scan(folder: Path) -> dict[str, tuple[int, int, int]]:
        seen = order.scan(folder)
        if "data/a.parquet" in seen and "rejected/a.parquet" not in seen:  # the command goes on meanwhile
            durable.write_text(folder / "rejected" / "a.parquet", "new")
            durable.write_text(folder / "data" / "a.parquet", "new")
        return seen

    monkeypatch.setattr(mirror, "scan", scan)
    write(store, **{"data/a.parquet": "old"})
    assert store.changes == ["write rejected/a.parquet", "write data/a.parquet"]


def test_the_order_of_a_students_files():
    names = [
        *("inputs.json", "corpus/inputs.json", "config.json", "model.safetensors", "tokenizer.json"),
        *("corpus/data/train-00000.parquet", "README.md", "metrics.jsonl", "training.json", "evaluation.json"),
    ]
    kinds = [order.rank(f"student/{name}")[1] for name in names]
    assert kinds == sorted(kinds)
    assert order.rank("student/inputs.json") > order.rank("curated/manifest.json")
    assert [
        name for name in ("a/.tmp-x", "cache/x", "student/cache/x", ".lock", ".writer/1") if order.is_sent(name)
    ] == []


def test_another_command_on_this_machine_is_refused(store):
    import threading

    errors = []

    def second() -> None:
        try:
            write(store, b="2")
        except UserError as error:
            errors.append(error.message)

    with writing(store) as places:
        durable.write_text(places["run"] / "a", "1")
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert "is writing here" in errors[0]


def test_a_lost_lease_stops_the_command(store):
    session = writing(store)
    places = session.__enter__()
    durable.write_text(places["run"] / "a", "1")
    store.files.pipe_file(f"{store.root}/run/.writer/00000009", b"{}")
    with pytest.raises(UserError, match="another process writes to this run"):
        session.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("s3://someone:password@bucket/run", "holds a user name, a password or a query"),
        ("s3://key:secret/with@bucket/run", "holds a user name, a password or a query"),
        ("s3://bucket/run?X-Amz-Signature=1", "holds a user name, a password or a query"),
        ("s3://bucket/../run", "names no folder of a store"),
        ("nowhere://bucket/run", "is no kind of store that is known here"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(store, url, why):
    for place in (url, Path(url)):
        with pytest.raises(UserError, match=why) as caught:
            synthgen.show(place)
        assert "password" not in caught.value.message.replace("a password or", "")
        assert "secret" not in caught.value.message


def test_a_missing_package_and_a_store_without_writes_are_one_line(store, monkeypatch):
    def missing(url: str) -> None:
        raise ImportError

    with pytest.raises(UserError, match="hf:// is only read"):
        synthgen.report("hf://datasets/someone/rows")
    monkeypatch.setattr("fsspec.url_to_fs", missing)
    with pytest.raises(UserError, match="s3:// needs the package 's3fs', which is not installed") as caught:
        synthgen.show("s3://bucket/run")
    assert caught.value.hint == "pip install 'synthgen-distill[stores]'"


def test_a_name_that_leads_out_of_the_folder_is_refused(store, monkeypatch):
    found = {f"{store.root}/run/../x": {"type": "file", "size": 1}}
    monkeypatch.setattr(type(store.files), "find", lambda *args, **options: found)
    with pytest.raises(UserError, match="which is no path"):
        Store(store.url("run")).list()


def test_a_path_stays_a_path(store, tmp_path, monkeypatch):
    assert address("C:/rows") is address(tmp_path) is address("runs/first") is address(None) is None
    assert address(Path("s3://bucket/runs/first/curated")).root == "s3://bucket/runs/first"
    with stores.opened({"run": f"file://{tmp_path}/run"}, "report") as places:
        assert places["run"] == tmp_path / "run"


def test_the_rows_of_a_data_set_come_from_a_store(store, tmp_path):
    store.files.pipe_file(
        f"{store.root}/rows.jsonl", b'{"prompt": "one and one?", "completion": "It is two, as ever."}\n'
    )
    source = {"path": store.url("rows.jsonl"), "source": "rows", "license": "CC0-1.0"}
    with stores.opened({"run": source["path"]}, "curate") as places:
        assert places["run"].read_bytes().startswith(b'{"prompt"')
