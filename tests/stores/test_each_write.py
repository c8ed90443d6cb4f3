"""A command that dies at any of its writes to a store leaves a run that another machine continues. The store lies in
memory, so that every write can be tried.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress

import pytest
from support.corpora import contents, corpus_of, curating, row
from support.memory import MemoryStore, half_commits
from support.removing import ANSWERS, SECRET, make, places_of, questions
from support.serving import KEY, Serving, write_recipe

import synthgen
from synthgen.errors import SynthgenError
from synthgen.generation import ledger
from synthgen.recipe import dump_recipe

RECIPE, OTHER = curating(duplicates=True), curating(duplicates=False, length={"min_words": 2})


@pytest.fixture
def store(monkeypatch, tmp_path):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    return MemoryStore(monkeypatch, tmp_path)


def empty(store: MemoryStore) -> None:
    store.files.store.clear()


@pytest.mark.parametrize("other", [False, True], ids=["the same machine", "another machine"])
def test_a_replaced_corpus_is_never_a_mixture(store, tmp_path, other):
    run = tmp_path / "run"
    corpus_of(run, [row(f"text {n % 3} is here" if n % 4 else "short", n) for n in range(8)])
    (run / "recipe.yaml").write_text(dump_recipe(RECIPE))
    synthgen.curate(RECIPE, run, workers=1)
    shutil.copytree(run, tmp_path / "other")
    synthgen.curate(OTHER, tmp_path / "other", workers=1, fresh=True)
    expected = contents(tmp_path / "other" / "curated")
    wrong: list[str] = []
    store.watch = lambda change: wrong.extend(f"{change}: {w}" for w in half_commits(store.get("run"), "curated/"))
    number = died = 0
    while True:
        number += 1
        empty(store)
        store.on_machine(f"{number}")
        store.put(run, "run")
        with store.dying(number):
            synthgen.curate(OTHER, store.url("run"), workers=1, fresh=True)
        finished = len(store.changes) < number - 1
        died += not finished
        if other:
            store.on_machine(f"{number}-other")
        synthgen.curate(OTHER, store.url("run"), workers=1, fresh=not finished)
        assert store.get("run/curated") == expected, number
        assert wrong == [], number
        if finished:
            break
    assert died >= 2 * len(expected) - 1  # each file except inputs.json was deleted and written


def test_a_removal_is_completed(store, tmp_path, monkeypatch):
    server = Serving(answers=ANSWERS)
    try:
        monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
        made = make(tmp_path, server, seeds=questions())
    finally:
        server.stop()
    done = made.copy(tmp_path / "done", monkeypatch)
    synthgen.remove(done.run, "q1")
    # a card has a hash of the files and the date; the tombstone counts the replies in the cache of the machine
    expected = {name: data for name, data in contents(done.run).items() if name not in ("removed.jsonl", "log.jsonl")}
    number = 0
    while True:
        number += 1
        empty(store)
        store.on_machine(f"{number}")
        store.put(made.run, "run")
        with store.dying(number):
            synthgen.remove(store.url("run"), "q1")
        finished = len(store.changes) < number - 1
        store.on_machine(f"{number}-other")
        synthgen.remove(store.url("run"), "q1")
        objects = store.get("run")
        assert {n: d for n, d in objects.items() if n != "removed.jsonl"} == expected, number
        assert half_commits(objects, "generated/") == []
        store.files.get(f"{store.root}/run", str(tmp_path / f"copy-{number}"), recursive=True)
        assert [p for p in places_of(SECRET, tmp_path / f"copy-{number}") if not p.endswith("removed.jsonl")] == []
        if finished:
            break
    assert number > 5


def test_the_budget_counts_what_a_dead_machine_paid(store, tmp_path):
    server = Serving(latency=0.05)
    try:
        recipe = synthgen.load_recipe(
            write_recipe(tmp_path / "task", server.url, seeds=24, generate={"budget": {"usd": 1.0}})
        )
        for number in (1, 4, 5, 6, 9, 14):
            empty(store)
            before = server.stats()["tokens"]
            store.on_machine(f"{number}")
            with store.dying(number), suppress(SynthgenError, OSError):
                synthgen.generate(recipe, store.url("run"))
            store.on_machine(f"{number}-other")
            folder = tmp_path / f"ledger-{number}"
            folder.mkdir()
            for name, data in store.get("run/ledger").items():
                (folder / name).write_bytes(data)
            paid = server.stats()["tokens"] - before
            assert ledger.spent(folder).tokens >= paid
            synthgen.generate(recipe, store.url("run"))
            assert json.loads(store.get("run")["generated/manifest.json"])["counts"]["rows"] == 24
    finally:
        server.stop()
