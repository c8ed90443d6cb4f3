"""Strategies with several rounds or teachers, and with local and remote teachers, over a real HTTP server."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from support.reading import read
from support.serving import write_recipe

import synthgen
from synthgen.errors import RecipeError, TeacherError, UserError
from synthgen.generation import ledger
from synthgen.generation.scheduler import BudgetReached

TEMPLATES = {
    "judge": "How good is this from 1 to 10? Q: {{ question }} A: {{ completion }}",
    "new": "{% for e in examples %}{{ e.question }}\n{% endfor %}Another one:",
    "evolve_deepen": "Make it harder: {{ question }}",
    "user_turn": "{% for m in conversation %}{{ m.role }}: {{ m.content }}\n{% endfor %}What does the user say next?",
}
CASES = {
    "vote": (
        {"steps": {"candidates": 5}, "generate": {"answer_marker": "Answer:"}},
        {"labels": ["Answer: 1", "Answer: 2"]},
    ),
    "best_of_n": ({"steps": {"candidates": 3}}, {"labels": [str(n) for n in range(1, 11)]}),
    "evolve": ({"steps": {"rounds": 3}}, {}),
    "self_instruct": ({}, {}),
    "conversation": ({"steps": {"rounds": 3}}, {}),
}


def write(folder: Path, url: str, strategy: str, **sections) -> Path:
    path = write_recipe(folder, url, strategy=strategy, **sections)
    for name, text in TEMPLATES.items():
        (folder / f"{name}.j2").write_text(text + "\n")
    return path


@pytest.mark.parametrize("strategy", CASES)
def test_the_same_rows_however_many_are_in_flight(serve, tmp_path, monkeypatch, strategy):
    """The rows do not depend on faults or on the number of requests in flight. Each reply is paid once. The costs of
    the rows add up to the bill.
    """
    more, config = CASES[strategy]
    calm = serve(**config)
    path = write(tmp_path / "task", calm.url, strategy, seeds=20, teacher={"max_in_flight": 1}, **more)
    alone, failed, _ = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "alone").folder)
    assert len(alone) >= 10
    stats = calm.stats()
    assert stats["paid_twice"] == 0
    assert stats["requests"] > len(alone)
    # A reply that answers two requests is paid once. The whole cost of the reply is part of the cost of both rows.
    if not failed:
        cost, bill = sum(r.cost_usd for r in alone), stats["usd_pico"] / 1e12
        assert cost == pytest.approx(bill, rel=1e-9) or (strategy == "best_of_n" and bill < cost < 1.2 * bill)
    calm.set(faults={"500": 0.1, "429": 0.1, "reset": 0.05}, latency=0.005, reset=True)
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "another"))
    path = write(
        tmp_path / "task", calm.url, strategy, seeds=20, teacher={"max_in_flight": 16, "max_retries": 8}, **more
    )
    crowd, again, _ = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "crowd").folder)
    assert [vars(r) for r in crowd] == [vars(r) for r in alone]
    assert [(f["id"], f["kind"]) for f in again] == [(f["id"], f["kind"]) for f in failed]
    # A second run of the recipe sends nothing, because every round is in the cache.
    asked = calm.stats()["requests"]
    cached, _, _ = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "cached").folder)
    assert calm.stats()["requests"] == asked
    assert [r.id for r in cached] == [r.id for r in alone]


def test_a_batch_for_each_round(serve, tmp_path, monkeypatch):
    server = serve(batch={"polls": 0})
    path = write(tmp_path / "task", server.url, "conversation", seeds=6, steps={"rounds": 2})
    recipe = synthgen.load_recipe(path)
    rows, failures, _ = read(synthgen.generate(recipe, tmp_path / "batched", batch=True).folder)
    assert (len(rows), failures) == (12, [])
    # one batch for the first answers, one for the user's next turns, and one for the second answers
    assert len(server.stats()["batches"]) == 3
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "another"))
    asked, _, _ = read(synthgen.generate(recipe, tmp_path / "asked").folder)
    assert [(r.id, r.text) for r in asked] == [(r.id, r.text) for r in rows]
    assert sum(r.cost_usd for r in rows) == pytest.approx(sum(r.cost_usd for r in asked) / 2, rel=1e-6)


def several(path: Path, teachers: dict, **sections) -> Path:
    """Writes the recipe at `path` again with `teachers` instead of its one teacher. `sections` replace sections of the
    recipe.
    """
    values = yaml.safe_load(path.read_text())
    one = values.pop("teacher")
    values["teachers"] = {
        name: {**one, **more} if more.get("engine", "openai") == "openai" else more for name, more in teachers.items()
    }
    path.write_text(yaml.safe_dump({**values, **sections}, sort_keys=False))
    return path


def test_a_mixture_of_two_servers_shares_one_budget(serve, tmp_path, monkeypatch):
    one, two = serve(latency=0.01), serve(latency=0.03)
    path = write(tmp_path / "task", one.url, "answer", seeds=60)
    teachers = {"one": {"model": "a"}, "two": {"model": "b", "base_url": two.url}}
    several(path, teachers, mixture={"one": 2, "two": 1})
    rows, failures, manifest = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert (len(rows), failures) == (60, [])
    by = {name: sum(r.teacher == name for r in rows) for name in teachers}
    assert by == {"one": one.stats()["requests"], "two": two.stats()["requests"]}
    assert by["one"] > by["two"] > 5
    assert {(s["role"], s["source"]) for s in manifest["sources"]} >= {("generator", "a"), ("generator", "b")}
    billed = sum(s.stats()["usd_pico"] for s in (one, two)) / 1e12
    # With a budget that is too small, the two teachers together never spend more than the budget, and the run says
    # where it stopped.
    for server in (one, two):
        server.set(reset=True)
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "another"))
    values = yaml.safe_load(path.read_text())
    values["generate"]["budget"] = {"usd": billed / 2}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BudgetReached):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "poor")
    assert 0 < sum(s.stats()["usd_pico"] for s in (one, two)) / 1e12 <= billed / 2


def test_one_dead_server_stops_the_run_in_one_line(serve, tmp_path):
    one, two = serve(latency=0.01), serve(dead_after=3)
    path = write(tmp_path / "task", one.url, "answer", seeds=80)
    teachers = {"one": {"model": "a"}, "two": {"model": "b", "base_url": two.url, "max_retries": 1}}
    several(path, teachers, mixture={"one": 1, "two": 1})
    with pytest.raises(TeacherError, match=f"{two.port}.* is not answering"):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    two.set(dead_after=None)
    rows, failures, _ = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert len(rows) + len(failures) == 80
    assert one.stats()["paid_twice"] == two.stats()["paid_twice"] == 0


def test_a_local_teacher_answers_and_a_remote_one_judges(serve, tmp_path, talker):
    """The local engine returns rows with logits, and the server returns scores. Each score is paid only once, even if
    its shard is made again.
    """
    server = serve(labels=["3", "8"])
    path = write(tmp_path / "task", server.url, "best_of_n", seeds=12, steps={"candidates": 2, "judge": "judge"})
    local = {"engine": "transformers", "model": talker[0], "license": "MIT", "batch_size": 8, "device": "cpu"}
    several(path, {"small": local, "judge": {}}, logits={"kind": "sampled", "draws": 8})
    recipe = synthgen.load_recipe(path)
    folder = synthgen.generate(recipe, tmp_path / "run").folder
    rows, failures, manifest = read(folder)
    assert len(rows) == 12
    assert {f["kind"] for f in failures} <= {"cut"}  # a candidate that is cut off is not judged
    assert {r.teacher for r in rows} == {"small"}
    assert all("judge" in {s["role"] for s in r.sources} for r in rows)
    assert len(list((folder / "logits/small").glob("*.parquet"))) == len(list((folder / "data").glob("*.parquet")))
    assert not (folder / "logits/judge").exists()
    stats = server.stats()
    cost, bill = sum(r.cost_usd for r in rows), stats["usd_pico"] / 1e12
    assert bill <= cost + 1e-12 < 2 * bill  # equal candidates are judged once, but each row counts the cost
    assert manifest["cost_usd"] == pytest.approx(cost, abs=1e-6)
    before = {p.name: p.read_bytes() for p in (folder / "data").glob("*.parquet")}
    for p in [*sorted((folder / "data").glob("*.parquet"))[1:], folder / "manifest.json"]:
        p.unlink()
    synthgen.generate(recipe, tmp_path / "run")
    assert {p.name: p.read_bytes() for p in (folder / "data").glob("*.parquet")} == before
    assert server.stats()["requests"] == stats["requests"]


def test_what_an_api_cannot_do_is_said_before_anything_is_sent(serve, tmp_path, tiny):
    server = serve()
    path = write(tmp_path / "task", server.url, "preference", seeds=4, steps={"choose": "likelihood", "candidates": 2})
    with pytest.raises(TeacherError, match="does not offer 'score'"):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
    two = several(write(tmp_path / "two", server.url, "answer", seeds=4), {"a": {"model": "a"}, "b": {"model": "b"}})
    with pytest.raises(UserError, match="--batch is for one teacher"):
        synthgen.generate(synthgen.load_recipe(two), tmp_path / "run2", batch=True)
    local = {"engine": "transformers", "model": str(tiny)}
    write(tmp_path / "own", server.url, "answer", seeds=4)
    alone = several(tmp_path / "own/recipe.yaml", {"a": local})
    with pytest.raises(UserError, match="--batch is for one teacher behind an API, not for 'transformers'"):
        synthgen.generate(synthgen.load_recipe(alone), tmp_path / "run3", batch=True)
    several(
        write(tmp_path / "three", server.url, "answer", seeds=4),
        {"a": local, "b": {}},
        mixture={"a": 1, "b": 1},
        logits={"kind": "sampled"},
    )
    with pytest.raises(RecipeError, match="whole distribution"):
        synthgen.load_recipe(tmp_path / "three/recipe.yaml")
    assert server.stats()["requests"] == 0


# ---------------------------------------------------------------- the order of paying, storing and counting


def test_a_reservation_is_on_the_disk_before_the_request_is_on_the_wire(serve, tmp_path):
    """A run is killed while eight billed requests are unanswered. The cost of these requests is already in the ledger
    on the disk.
    """
    server = serve(script=[["What", ["timeout"]]])  # the server bills each request and never answers it
    path = write_recipe(
        tmp_path / "task", server.url, seeds=40, teacher={"max_in_flight": 8}, generate={"budget": {"usd": 1}}
    )
    code = f"import synthgen; synthgen.generate(synthgen.load_recipe({str(path)!r}), {str(tmp_path / 'run')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    try:
        deadline = time.monotonic() + 60
        while server.stats()["paid"] < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    billed = server.stats()["usd_pico"]
    assert server.stats()["paid"] == 8
    assert ledger.spent(tmp_path / "run/ledger").usd >= billed > 0


@pytest.mark.parametrize("shard_size", [1, 7, 1000])
def test_a_full_memory_slows_the_run_and_never_stops_it(serve, tmp_path, monkeypatch, shard_size):
    from synthgen.generation import filling

    monkeypatch.setattr(filling, "_HELD_BYTES", 5000)  # the size of two rows
    server = serve(latency=0.002)
    path = write_recipe(tmp_path / "task", server.url, seeds=50, generate={"shard_size": shard_size})
    rows, failures, _ = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    assert (len(rows), failures) == (50, [])


def test_nothing_counts_before_it_is_durable(serve, tmp_path):
    """While the cache's disk hangs, no more requests are sent than may be in flight."""
    server = serve(latency=0.02)
    path = write_recipe(tmp_path / "task", server.url, seeds=400, teacher={"max_in_flight": 4})
    recipe = synthgen.load_recipe(path)
    done: list = []
    thread = threading.Thread(target=lambda: done.append(synthgen.generate(recipe, tmp_path / "run").folder))
    thread.start()
    while server.stats()["requests"] < 20:
        time.sleep(0.01)
    lock = sqlite3.connect(tmp_path / "cache/replies.sqlite", timeout=30, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    before = server.stats()["requests"]
    time.sleep(1.0)  # the time of fifty round trips to the server
    during = server.stats()["requests"] - before
    lock.execute("ROLLBACK")
    lock.close()
    thread.join(timeout=60)
    assert during <= 4, f"{during} requests were sent while nothing could be kept"
    assert done
    assert server.stats()["paid_twice"] == 0
