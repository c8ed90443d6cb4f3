"""`datasets.load_dataset` returns the rows in the folder, even if its cache holds other rows."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml
from datasets import load_dataset
from support.corpora import corpus_of, curating
from support.corpora import row as record
from support.small import small_runs, small_task

import synthgen
from synthgen import corpus, durable

GREEDY = {"num_generations": 2, "max_new_tokens": 4, "shard_size": 6, "temperature": 0.0}  # the second answer is a copy
COPIES = {"duplicates": True, "truncated": False, "answer": False, "repetition": None, "length": None}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that makes a run by its name and returns (recipe, run). All runs have the same small teacher."""
    folder = tmp_path_factory.mktemp("load")
    make = small_runs(folder)
    make.folder = folder
    return make


@pytest.fixture
def rows(tmp_path):
    """A function that returns the ids that `load_dataset` finds in a folder. All calls share one cache."""

    def load(folder: Path, config: str = "default") -> list[str]:
        splits = load_dataset(str(folder), config, cache_dir=str(tmp_path / "cache"))
        return sorted(i for split in splits.values() for i in split["id"])

    return load


def ids(folder: Path, part: str = "data") -> list[str]:
    return sorted(r.id for _, records in corpus.records(folder, part) for r in records)


def shape(folder: Path) -> dict[str, int]:
    """The number of rows of each file. Two corpora that differ only in the content of their rows have equal numbers."""
    return {name: entry["rows"] for name, entry in corpus.manifest(folder)["files"].items()}


def test_two_runs_with_the_same_splits_give_each_its_own_rows(made, rows):
    (_, first), (_, second) = (
        made(name, curate=COPIES, generate={**GREEDY, "top_p": top_p})
        for name, top_p in (("first", 1.0), ("second", 0.5))
    )
    for stage, parts in (("generated", ["data"]), ("curated", ["data", "rejected"])):
        assert shape(first / stage) == shape(second / stage), "two corpora of one shape are wanted"
        for part in parts:
            config = "default" if part == "data" else part
            assert ids(first / stage, part) != ids(second / stage, part)
            for run in (first, second, first):
                assert rows(run / stage, config) == ids(run / stage, part) != []


def test_a_corpus_made_anew_gives_its_new_rows(made, rows):
    """The new corpus replaces the old corpus in its folder, and the files of both have the same numbers of rows."""
    _, run = made("again", generate=GREEDY, curate=COPIES)
    before = {stage: ids(run / stage) for stage in ("generated", "curated")}
    for stage, expected in before.items():
        assert rows(run / stage) == expected
    shapes = {stage: shape(run / stage) for stage in before}
    other = synthgen.load_recipe(
        small_task(
            made.folder / "task-other", made.folder / "teacher", generate={**GREEDY, "top_p": 0.5}, curate=COPIES
        )
    )
    synthgen.generate(other, run, fresh=True)
    synthgen.curate(other, run, fresh=True)
    for stage, old in before.items():
        assert shape(run / stage) == shapes[stage]
        assert rows(run / stage) == ids(run / stage) != old


@pytest.mark.parametrize("how", ["a shard is made again", "all is made anew"])
def test_a_part_that_was_loaded_meanwhile_is_not_kept(made, rows, monkeypatch, how):
    """`load_dataset` reads an unfinished corpus. After the missing shards are generated, the next call returns all
    rows.
    """
    recipe, run = made(
        f"cut {how}", generate=GREEDY, logits=None, train=None
    )  # `load_dataset` can read an unfinished corpus only if it has no logits
    folder = run / "generated"
    whole = ids(folder)
    (name, *_) = sorted(path.stem for path in folder.glob("data/train-*.parquet"))
    if how == "all is made anew":
        commit = corpus.commit

        def cut(place: Path, shard: str, tables: dict, *more: object) -> None:
            commit(place, shard, tables, *more)
            raise KeyboardInterrupt

        monkeypatch.setattr(corpus, "commit", cut)
        with pytest.raises(KeyboardInterrupt):
            synthgen.generate(recipe, run, fresh=True)
        monkeypatch.undo()
    else:
        corpus.discard(folder, [name])
    assert 0 < len(rows(folder)) < len(whole)
    synthgen.generate(recipe, run)
    assert rows(folder) == whole


def test_the_card_is_one_that_datasets_knows(made, rows, caplog):
    """Every key of `configs` in the card is a field of the builder's configuration. `datasets` would ignore an unknown
    key with a warning.
    """
    _, run = made("card", generate=GREEDY, curate=COPIES)
    logging.getLogger("datasets").propagate = True
    with caplog.at_level(logging.WARNING, "datasets"):
        assert rows(run / "curated") == ids(run / "curated")
    assert "ignored" not in caplog.text
    head = yaml.safe_load((run / "curated" / "README.md").read_text().split("---\n")[1])
    (digest,) = {entry["description"].split()[-1] for entry in head["configs"]}
    assert digest == durable.digest(corpus.manifest(run / "curated")["files"])


def curated(folder: Path, kept: set[int]) -> Path:
    """A curated corpus with two shards of training rows and one of test rows. Rows whose numbers are not in `kept` are
    rejected.
    """
    records = [
        record("one two three" if number in kept else "no", number, split="train" if number < 6 else "test")
        for number in range(9)
    ]
    run = corpus_of(folder, records, size=3)
    synthgen.curate(curating(length={"min_words": 2}, duplicates=False), run)
    return run / "curated"


def streamed(folder: Path, config: str = "default") -> dict[str, list[str]]:
    splits = load_dataset(str(folder), config, streaming=True)
    return {name: sorted(one["id"] for one in split) for name, split in splits.items()}


def test_shards_and_splits_without_rows_do_not_stop_load_dataset(tmp_path, rows):
    folder = curated(tmp_path / "run", kept={4, 5})
    assert rows(folder) == ids(folder) == ["r4", "r5"]
    assert streamed(folder) == {"train": ["r4", "r5"]}
    assert rows(folder, "rejected") == ids(folder, "rejected") == [f"r{n}" for n in (0, 1, 2, 3, 6, 7, 8)]


def test_a_corpus_without_kept_rows_loads_as_nothing_and_not_as_its_rejected_rows(tmp_path, rows):
    """`datasets` cannot return a split without rows, except as a stream."""
    folder = curated(tmp_path / "run", kept=set())
    assert streamed(folder) == {"train": [], "test": []}
    for split in (None, "train", "test"):
        with pytest.raises(ValueError, match="corresponds to no data"):
            load_dataset(str(folder), split=split, cache_dir=str(tmp_path / "cache"))
    assert rows(folder, "rejected") == ids(folder, "rejected") == [f"r{n}" for n in range(9)]
    assert "no rows" in (folder / "README.md").read_text()
