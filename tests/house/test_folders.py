"""A run's folder: links that lead out of it, shards that vanish or change places, locks, and folders that are moved."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from support.corpora import contents, corpus_of, curating, row
from support.reading import read

import synthgen
from synthgen import corpus, durable, outputs
from synthgen.command import _unexpected
from synthgen.errors import CorpusError, RunChanged, UserError
from synthgen.generation.cache import Cache
from synthgen.ui import UI

PRECIOUS = "a person's own file"


def task(folder: Path, seeds: int = 12, **sections) -> Path:
    """A recipe whose teacher replays recorded replies, so a run takes no time. All its paths are relative."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"q{n}", "question": f"{n} + {n}?"} for n in range(seeds)]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    replies = [{"prompt": f"{n} + {n}?", "text": str(2 * n)} for n in range(seeds)]
    (folder / "replies.jsonl").write_text("".join(json.dumps(one) + "\n" for one in replies))
    (folder / "user.j2").write_text("{{ question }}")
    recipe = {
        "task": "sums",
        "license": "CC0-1.0",
        "seeds": [{"path": "seeds.jsonl", "source": "tests", "id": "id", "group": "id"}],
        "split": {"test": 0.25},
        "teacher": {"engine": "replay", "path": "replies.jsonl", "license": "CC0-1.0"},
        "generate": {"shard_size": 3},
        "curate": {"answer": False},
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture
def outside(tmp_path) -> Path:
    path = tmp_path / "outside.txt"
    path.write_text(PRECIOUS)
    return path


def records(number: int = 9) -> list:
    rows = [row(f"text {n}", n) for n in range(number)]
    for one in rows[::3]:
        one.split = "test"
    return rows


# Links


@pytest.mark.parametrize("name", ["new.json", "there.json"])
def test_a_temporary_file_that_is_a_link_is_not_followed(tmp_path, outside, name):
    (tmp_path / "there.json").write_text("{}")
    (tmp_path / f".tmp-{name}").symlink_to(outside)
    durable.write_json(tmp_path / name, {"a": 1})
    assert outside.read_text() == PRECIOUS
    assert json.loads((tmp_path / name).read_text()) == {"a": 1}
    assert not (tmp_path / name).is_symlink()


def test_a_target_that_is_a_link_is_replaced_and_not_followed(tmp_path, outside):
    (tmp_path / "report.json").symlink_to(outside)
    durable.write_json(tmp_path / "report.json", {})
    assert outside.read_text() == PRECIOUS


@pytest.mark.parametrize("make", [Path.symlink_to, lambda path, _: os.mkfifo(path), lambda path, _: path.mkdir()])
def test_a_lock_that_is_no_file_is_refused_at_once(tmp_path, outside, make):
    make(tmp_path / ".lock", outside)
    with pytest.raises(UserError, match="is not a lock file"), durable.lock(tmp_path):
        pass
    assert outside.read_text() == PRECIOUS


def test_a_temporary_folder_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "mine.txt").write_text(PRECIOUS)
    (tmp_path / ".tmp-gguf").symlink_to(tmp_path / "outside")
    durable.new_folder(tmp_path / ".tmp-gguf")
    assert not (tmp_path / ".tmp-gguf").is_symlink()
    assert (tmp_path / "outside" / "mine.txt").read_text() == PRECIOUS


@pytest.mark.parametrize("linked", ["data", "logits/teacher", "rejected", "data/train-00000.parquet"])
def test_files_behind_a_link_are_listed_with_their_hashes(tmp_path, linked):
    """A folder of shards is on another disk. The manifest lists its files, and a change in these files is noticed."""
    run = corpus_of(tmp_path / "run", records())
    folder = run / "generated"
    (folder / "manifest.json").unlink()
    for name in corpus.shards(folder):
        tables = {"data": pq.read_table(folder / "data" / f"{name}.parquet")}
        corpus.commit(folder, name, {**tables, "logits/teacher": tables["data"], "rejected": tables["data"]})
    away = tmp_path / "away"
    shutil.move(folder / linked, away)
    (folder / linked).symlink_to(away)
    facts = {"description": "", "task": "t", "strategy": "", "prompt_version": "", "labels": [], "teachers": {}}
    names = corpus.shards(folder)
    found = corpus.finish(folder, "generated", {**facts, "sources": [], "counts": {"rows": 9}}, names)
    expected = {f"{part}/{n}.parquet" for part in ("data", "logits/teacher", "rejected") for n in names}
    assert set(found["files"]) == expected
    corpus.verify(folder)
    changed = away if away.is_file() else away / "train-00000.parquet"
    changed.write_bytes(changed.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=r"train-00000\.parquet damaged"):
        corpus.verify(folder)


# Shards


def unfinished(tmp_path) -> tuple[Path, dict]:
    """A corpus with shards but without a manifest, and the facts that its manifest had."""
    folder = corpus_of(tmp_path / "run", records()) / "generated"
    facts = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    return folder, {key: value for key, value in facts.items() if key not in ("files", "kind", "schema_version")}


def test_no_manifest_is_written_when_a_shard_has_vanished(tmp_path):
    folder, facts = unfinished(tmp_path)
    names = corpus.shards(folder)
    (folder / "data" / "train-00001.parquet").unlink()
    with pytest.raises(CorpusError, match=r"data/train-00001\.parquet is missing"):
        corpus.finish(folder, "generated", facts, names)
    assert not (folder / "manifest.json").exists()


def test_a_run_whose_shards_vanish_while_it_runs_makes_them_again(tmp_path, monkeypatch):
    recipe, run = synthgen.load_recipe(task(tmp_path / "task")), tmp_path / "run"
    whole = synthgen.generate(recipe, tmp_path / "whole").manifest
    written = corpus.commit

    def vanish(folder: Path, name: str, tables: dict, *more: object) -> None:
        written(folder, name, tables, *more)
        if name == "train-00001":
            (folder / "data" / "train-00000.parquet").unlink()

    monkeypatch.setattr(corpus, "commit", vanish)
    with pytest.raises(CorpusError, match=r"train-00000\.parquet is missing"):
        synthgen.generate(recipe, run)
    monkeypatch.undo()
    assert synthgen.generate(recipe, run).manifest == whole


@pytest.mark.parametrize("one", ["train-00000", "train-00001"])
def test_shards_that_changed_places_are_refused_and_made_again(tmp_path, one):
    recipe, run = synthgen.load_recipe(task(tmp_path / "task")), tmp_path / "run"
    whole = synthgen.generate(recipe, run).manifest
    (run / "generated" / "manifest.json").unlink()
    first, second = (run / "generated" / "data" / f"{name}.parquet" for name in (one, "test-00000"))
    first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
    first.write_bytes(second_bytes)
    second.write_bytes(first_bytes)
    with pytest.raises(CorpusError, match=f"data/{one}.parquet holds other rows than its name says.* data/test-00000"):
        synthgen.generate(recipe, run)
    assert synthgen.generate(recipe, run, repair=True).manifest == whole


def test_a_shard_that_nobody_planned_is_named_and_not_deleted(tmp_path):
    recipe, run = synthgen.load_recipe(task(tmp_path / "task")), tmp_path / "run"
    synthgen.generate(recipe, run)
    extra = run / "generated" / "data" / "train-00077.parquet"
    shutil.copy(extra.with_name("train-00000.parquet"), extra)
    for act in (lambda: synthgen.generate(recipe, run), lambda: synthgen.curate(recipe, run)):
        with pytest.raises(CorpusError, match=r"train-00077\.parquet does not belong to this corpus"):
            act()
    (run / "generated" / "manifest.json").unlink()
    with pytest.raises(CorpusError, match=r"train-00077\.parquet holds other rows"):
        synthgen.generate(recipe, run)
    assert extra.exists()
    mine = extra.rename(extra.with_name("mine.parquet"))
    assert synthgen.generate(recipe, run).finished
    assert synthgen.show(run).counts["rows"] == 12
    assert mine.exists()


# Locks


def in_thread(act) -> list[BaseException]:
    """The exceptions that a function raises in another thread."""
    found: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


def test_a_thread_may_lock_a_folder_again_and_another_thread_may_not(tmp_path):
    with durable.lock(tmp_path), durable.lock(tmp_path):
        (error,) = in_thread(lambda: durable.lock(tmp_path).__enter__())
        assert "is writing here" in str(error)
    with durable.lock(tmp_path):
        pass


def test_the_functions_take_the_locks_of_the_commands(tmp_path):
    recipe, run = synthgen.load_recipe(task(tmp_path / "task")), tmp_path / "run"
    with durable.lock(run):
        (error,) = in_thread(lambda: synthgen.generate(recipe, run))
        assert "is writing here" in str(error)
    synthgen.generate(recipe, run)
    with durable.lock(run):
        (error,) = in_thread(lambda: synthgen.curate(recipe, run))
        assert "is writing here" in str(error)
    with durable.lock(tmp_path / "strict"):
        (error,) = in_thread(lambda: synthgen.curate(recipe, run, tmp_path / "strict"))
        assert "is writing here" in str(error)
    synthgen.curate(recipe, run)


def test_a_student_is_written_by_one_training_whatever_its_source_is_called(tmp_path):
    run = tmp_path / "run"
    (run / "curated").mkdir(parents=True)
    for source, folder in (
        (run / "curated", run / "student"),
        (Path(f"{run}/./curated"), run / "student"),
        (tmp_path / "other" / "curated", run / "student"),
    ):
        with outputs.locked(run / "student", run / "curated"):
            (error,) = in_thread(lambda source=source, folder=folder: outputs.locked(folder, source).__enter__())
            assert "is writing here" in str(error)
    with outputs.locked(run / "student", run / "curated"):
        assert not in_thread(lambda: outputs.locked(tmp_path / "mine", run / "curated").__enter__())


def test_the_functions_write_the_files_of_the_commands(tmp_path):
    """`synthgen.generate` writes the recipe too, so every command can continue the run."""
    recipe, run = synthgen.load_recipe(task(tmp_path / "task")), tmp_path / "run"
    synthgen.generate(recipe, run)
    assert synthgen.load_recipe(run) == recipe
    for name in ("generate", "curate", "audit"):
        arguments = [recipe, run] if name != "generate" else [synthgen.load_recipe(run), run]
        getattr(synthgen, name)(*arguments)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text(PRECIOUS)
    with pytest.raises(RunChanged, match="is not a run"):
        synthgen.generate(recipe, tmp_path / "mine")
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


# Folders that are moved


def test_a_recipe_moved_with_its_run_continues(tmp_path):
    path = task(tmp_path / "first")
    recipe = synthgen.load_recipe(path)
    synthgen.generate(recipe, path.parent / "run", part=(1, 2))
    before = contents(path.parent / "run" / "generated" / "data")
    assert before
    moved = Path(shutil.move(path.parent, tmp_path / "second"))
    made = synthgen.generate(synthgen.load_recipe(moved), moved / "run")
    assert made.finished
    after = contents(moved / "run" / "generated" / "data")
    assert {name: after[name] for name in before} == before
    again = synthgen.load_recipe(moved / "run")  # the resolved recipe names the new paths
    assert again == synthgen.load_recipe(moved)
    assert not synthgen.generate(again, moved / "run").worked
    rows, failures, _ = read(moved / "run" / "generated")
    assert (len(rows), failures) == (12, [])


@pytest.mark.parametrize("change", ["seeds.jsonl", "user.j2"])
def test_a_moved_recipe_with_other_content_is_refused_and_changes_nothing(tmp_path, change):
    path = task(tmp_path / "first")
    synthgen.generate(synthgen.load_recipe(path), path.parent / "run")
    moved = Path(shutil.move(path.parent, tmp_path / "second"))
    text = (moved / change).read_text()
    (moved / change).write_text(text.replace("{{ question }}", "{{ question }} ").replace("0 + 0", "7 - 7"))
    before = contents(moved / "run")
    with pytest.raises(RunChanged, match="other inputs"):
        synthgen.generate(synthgen.load_recipe(moved), moved / "run")
    assert contents(moved / "run") == before


def test_curation_of_a_moved_run_is_complete(tmp_path):
    run = corpus_of(tmp_path / "run", records())
    synthgen.curate(curating(), run)
    moved = Path(shutil.move(run, tmp_path / "moved"))
    before = contents(moved)
    synthgen.curate(curating(), moved)
    assert contents(moved) == before


# Disks


@pytest.mark.parametrize(
    ("number", "said", "hint"),
    [
        (errno.EROFS, "the disk is read-only at", "make it writable"),
        (errno.ENOSPC, "the disk is full at", "free some space"),
        (errno.EDQUOT, "the disk quota is used up at", "free some space"),
        (errno.EIO, "the disk reports an error at", "check the disk"),
    ],
)
def test_each_error_of_a_disk_has_its_own_advice(capsys, number, said, hint):
    assert _unexpected(UI(), OSError(number, "x", "/data/run/inputs.json")) == 2
    error, advice = capsys.readouterr().err.splitlines()
    assert said in error
    assert hint in advice


@pytest.mark.parametrize(
    ("code", "damaged"),
    [
        (sqlite3.SQLITE_IOERR | 10 << 8, False),
        (sqlite3.SQLITE_READONLY, False),
        (sqlite3.SQLITE_CANTOPEN, False),
        (sqlite3.SQLITE_BUSY, False),
        (sqlite3.SQLITE_CORRUPT, True),
        (sqlite3.SQLITE_NOTADB, True),
    ],
)
def test_a_disk_error_does_not_call_the_cache_damaged(tmp_path, code, damaged):
    """After an error of the disk, the hint must not tell the user to move the file away, because the paid replies in it
    would be lost.
    """
    cache = Cache(tmp_path / "replies.sqlite")
    error = sqlite3.OperationalError("the reason")
    error.sqlite_errorcode = code
    found = cache._broken(error)
    cache.close()
    assert isinstance(found, UserError)
    assert ("is damaged" in found.message) == damaged
    assert ("move the file away" in found.hint) == damaged
    assert "the reason" in found.message
