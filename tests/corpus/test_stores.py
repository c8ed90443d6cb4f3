"""Runs in a store that lies in memory. `make test-stores` tests other stores, with faults and kills."""

from __future__ import annotations

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.corpora import contents, corpus_of, curating, row
from support.memory import MemoryStore, half_commits

import synthgen
from distill.adopted import adopt
from synthgen import durable, stores
from synthgen.cli import main
from synthgen.errors import UserError
from synthgen.recipe import dump_recipe, recipe_of_values
from synthgen.stores import lease, mirror, objects, order
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
    """The context of a command that writes to the run `run`, or only reads it. Yields the arguments of the command,
    with the working folder in place of the URL.
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


def test_tokens_of_rows_that_another_machine_removed_are_deleted(store):
    folder = write(store, **{"curated/data/a.parquet": "1", "cache/rows-1/a.bin": "1", "student/cache/b.bin": "1"})
    for text, left in {"report": 2, "rows": 0}.items():
        store.on_machine("b")
        write(store, **({"report.html": text} if left else {"curated/data/a.parquet": text}))
        store.on_machine("a")
        with writing(store, only_read=True):
            assert len(list(folder.rglob("*.bin"))) == left


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


@pytest.mark.parametrize("what", ["machines", "machines/a/stores", "run"])
def test_a_cache_that_is_deleted_while_a_command_runs_deletes_nothing_in_the_store(store, tmp_path, what):
    write(store, **{"a": "1", "curated/b": "2"})
    session = writing(store)
    folder = session.__enter__()["run"]
    shutil.rmtree(folder if what == "run" else tmp_path / what)
    with pytest.raises(UserError, match=r"was deleted while this command ran; nothing was deleted in memory://"):
        session.__exit__(None, None, None)
    assert store.get("run") == {"a": b"1", "curated/b": b"2"}
    write(store, c="3")
    assert store.get("run") == {"a": b"1", "curated/b": b"2", "c": b"3"}


def slowly(act):
    """A method of `Store` that takes a tenth of a second more."""

    def slow(self: Store, *args: object) -> object:
        time.sleep(0.1)
        return act(self, *args)

    return slow


def test_a_second_reader_waits_until_the_first_has_fetched_the_run(store, monkeypatch):
    folder = write(store, a="1", b="2")
    shutil.rmtree(folder)
    monkeypatch.setattr(Store, "fetch", slowly(Store.fetch))

    def read(_: int) -> dict[str, bytes]:
        with writing(store, only_read=True) as places:
            return contents(places["run"])

    with ThreadPoolExecutor(3) as readers:
        assert list(readers.map(read, range(3))) == [{"a": b"1", "b": b"2"}] * 3


def test_the_lease_is_renewed_while_the_run_is_fetched(store, monkeypatch):
    folder = write(store, a="1")
    shutil.rmtree(folder)
    monkeypatch.setattr(lease, "BEAT", 0.01)
    monkeypatch.setattr(Store, "fetch", slowly(Store.fetch))
    with writing(store):
        pass
    assert json.loads(store.files.cat_file(f"{store.root}/run/.writer/00000002"))["beat"] >= 3


def test_a_large_file_that_is_deleted_before_it_is_sent_is_left_out(store, monkeypatch):
    monkeypatch.setattr(mirror, "whole", lambda size: size < 4)

    def send(self: Store, name: str, path: Path) -> str:
        path.unlink()
        raise UserError("the store failed", "")

    monkeypatch.setattr(Store, "send", send)
    write(store, a="1", checkpoint="large")
    assert store.get("run") == {"a": b"1"}


def test_a_write_that_meets_its_own_earlier_attempt_is_repeated(store, monkeypatch):
    files, answers = Store(store.url("run")), [OSError("ConditionalRequestConflict (409)")]
    pipe = files._fs.pipe_file

    def pipe_file(*args: object, **options: object) -> object:
        if answers:
            raise answers.pop()
        return pipe(*args, **options)

    monkeypatch.setattr(files._fs, "pipe_file", pipe_file)
    monkeypatch.setattr(objects, "_PAUSES", (0.0,))
    files.write("a", b"1", None)
    assert store.get("run") == {"a": b"1"}


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


def test_an_export_to_one_file_is_sent_and_replaces_nothing(store, disk):
    store.put(disk / "curated", "run")
    for _ in range(2):
        synthgen.export(store.url("run"), "messages", store.url("rows.jsonl"))
        rows = store.files.cat_file(f"{store.root}/rows.jsonl")
        assert len(rows.splitlines()) == 4
        store.files.rm(f"{store.root}/rows.jsonl")
    store.files.pipe_file(f"{store.root}/rows.jsonl", b"old")
    with pytest.raises(UserError, match="is there already"):
        synthgen.export(store.url("run"), "messages", store.url("rows.jsonl"))
    assert store.files.cat_file(f"{store.root}/rows.jsonl") == b"old"
    assert not [name for name in store.files.find(store.root) if "rows.jsonl/" in name]


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
        ("nowhere://bucket/run", "does not know stores of the kind nowhere://"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(store, url, why):
    for place in (url, Path(url)):
        with pytest.raises(UserError, match=why) as caught:
            synthgen.show(place)
        assert "password" not in caught.value.message.replace("a password or", "")
        assert "secret" not in caught.value.message


def test_every_option_that_takes_a_folder_takes_a_url():
    import click

    import distill.cli
    import synthgen.cli

    commands = [one for group in (synthgen.cli.main, distill.cli.main) for one in group.commands.values()]
    paths = {option.name for one in commands for option in one.params if isinstance(option.type, click.Path)}
    assert {"run", "out", "measured"} <= paths <= set(stores.PLACES)


def test_a_missing_package_and_a_store_without_writes_are_one_line(store, monkeypatch):
    def missing(url: str) -> None:
        raise ImportError

    with pytest.raises(UserError, match="hf:// is only read"):
        synthgen.report("hf://datasets/someone/rows")
    with (
        pytest.raises(UserError, match="hf:// is only read"),
        stores.opened({"run": store.url("run"), "out": "hf://datasets/someone/out"}, "curate"),
    ):
        pass
    assert not list(address(store.url("run")).state.parent.glob("*")), "nothing was fetched"
    monkeypatch.setattr("fsspec.url_to_fs", missing)
    with pytest.raises(UserError, match="s3:// needs the package 's3fs', which is not installed") as caught:
        synthgen.show("s3://bucket/run")
    assert caught.value.hint == "pip install 'synthgen-distill[stores]'"
    with pytest.raises(UserError, match="gs:// needs the package 'gcsfs'") as caught:
        synthgen.show("gs://bucket/run")
    assert caught.value.hint == "pip install gcsfs"  # the extra `stores` does not contain it
    with pytest.raises(UserError, match="hf:// needs the package 'huggingface_hub'"):
        synthgen.show("hf://datasets/someone/rows")


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
    with stores.opened({"run": f"FILE://localhost{tmp_path}/run"}, "report") as places:
        assert places["run"] == tmp_path / "run"
    assert address("http://host:8080/rows.jsonl").root == "http://host:8080/rows.jsonl"


def test_a_store_that_lists_no_details_is_asked_for_them(store, monkeypatch):
    store.files.pipe_file(f"{store.root}/rows.jsonl", b"12")
    monkeypatch.setattr(type(store.files), "find", lambda self, path, **options: {path: {}})  # as for http://
    assert [(n, entry.bytes) for n, entry in Store(store.url("rows.jsonl")).list().items()] == [("", 2)]


def test_a_recipe_lies_on_a_disk(store):
    store.files.pipe_file(f"{store.root}/q.csv", b"question,answer\n1?,1\n")
    for words in ([store.url("q.csv")], ["q.csv", "-o", store.url("task")]):
        made = CliRunner().invoke(main, ["init", *words, "--license", "CC0-1.0"])
        assert made.exit_code == 2
        assert "so `synthgen init` takes no URL" in made.output


def test_the_rows_of_a_data_set_come_from_a_store(store, tmp_path):
    store.files.pipe_file(
        f"{store.root}/rows.jsonl", b'{"prompt": "one and one?", "completion": "It is two, as ever."}\n'
    )
    source = {"path": store.url("rows.jsonl"), "source": "rows", "license": "CC0-1.0"}
    with stores.opened({"run": source["path"]}, "curate") as places:
        assert places["run"].read_bytes().startswith(b'{"prompt"')


def test_a_run_made_from_a_data_set_in_a_store_holds_its_url_and_continues_elsewhere(store, tmp_path):
    rows = store.url("rows.jsonl")
    line = b'{"prompt": "one and one?", "completion": "It is two, as ever."}\n'
    store.files.pipe_file(f"{store.root}/rows.jsonl", line)
    words = ["curate", rows, "--license", "CC0-1.0", "-o", store.url("out")]
    for machine in ("a", "b"):
        store.on_machine(machine)
        made = CliRunner().invoke(main, words)
        assert made.exit_code == 0, made.output
    found = store.get("out")
    assert not [name for name, data in found.items() if str(tmp_path).encode() in data]
    assert json.loads(found["generated/inputs.json"])["dataset"]["path"] == rows
    assert f"path: {rows}" in found["recipe.yaml"].decode()


def test_the_rows_that_a_student_learns_have_the_license_that_the_recipe_gives_to_their_url(store, tmp_path):
    rows = store.url("rows.jsonl")
    line = b'{"prompt": "one and one?", "completion": "It is two, as ever."}\n'
    store.files.pipe_file(f"{store.root}/rows.jsonl", line)
    source = {"path": rows, "source": "rows", "license": "CC0-1.0"}
    recipe = recipe_of_values({"task": "rows", "seeds": [source], "train": {"student": {"model": "m"}}})
    inputs = []
    for machine in ("a", "b"):
        store.on_machine(machine)
        with stores.opened({"run": rows}, "train") as places:
            adopt(places["run"], recipe, tmp_path / machine)
        inputs.append(json.loads((tmp_path / machine / "inputs.json").read_text())["dataset"])
    assert inputs[0] == inputs[1]
    assert (inputs[0]["path"], inputs[0]["license"]) == (rows, "CC0-1.0")
