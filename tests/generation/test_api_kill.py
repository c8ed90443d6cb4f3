"""SIGKILL with an API teacher: no row is missing or doubled, and only requests that were in flight at the kill are paid
twice.

`SYNTHGEN_KILLS` sets the number of random kills. `SYNTHGEN_POINTS=all` tests every commit point instead of some.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.serving import KEY, Serving, write_recipe

from synthgen import corpus

pytestmark = pytest.mark.slow

KILLING = Path(__file__).parent.parent / "support" / "killing_api.py"
LIMIT = 8  # maximum number of requests in flight
SEEDS = 60
LITTLE = 0.00042  # dollars, enough to pay every row once


@pytest.fixture(scope="module")
def killer(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    process = subprocess.Popen(
        [sys.executable, str(KILLING)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SYNTHGEN_CACHE": str(cache), "LOOPBACK_KEY": KEY},
    )

    def go(**job) -> dict:
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    go.cache = cache
    yield go
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def server():
    running = Serving(latency=0.02, jitter=0.02, faults={"500": 0.05, "429": 0.02})
    yield running
    running.stop()


def clean(killer, server) -> None:
    shutil.rmtree(killer.cache)
    killer.cache.mkdir()
    server.set(reset=True)


def recipe(tmp_path: Path, server: Serving, **generate) -> Path:
    return write_recipe(
        tmp_path / "task",
        server.url,
        seeds=SEEDS,
        teacher={"max_in_flight": LIMIT},
        generate={"shard_size": 10, "budget": {"usd": 1.0}, **generate},
    )


def whole(killer, server, path: Path, run: Path) -> dict:
    """The manifest of a run that is not killed."""
    clean(killer, server)
    assert killer(recipe=str(path), run=str(run))["status"] == 0
    return corpus.manifest(run / "generated")


def check(server, found: dict, expected: dict, run: Path, kills: int) -> int:
    """Asserts that the finished run equals an undisturbed run, byte for byte. Returns the number of requests paid
    twice.
    """
    assert found == expected  # the manifest holds the SHA-256 of every file
    assert not corpus.damaged(run / "generated")
    ids = [r.id for _, rows in corpus.records(run / "generated") for r in rows]
    assert len(ids) == len(set(ids)) == SEEDS
    stats = server.stats()
    assert stats["paid_bodies"] == SEEDS
    assert stats["paid_twice"] <= kills * LIMIT
    return stats["paid_twice"]


def lost(killer, server) -> int:
    """The number of replies that were billed but not stored. Waits until the server has answered the killed process."""
    while server.stats()["in_flight"]:
        time.sleep(0.01)
    kept = 0
    cache = sqlite3.connect(killer.cache / "replies.sqlite")
    if cache.execute("SELECT 1 FROM sqlite_master WHERE name = 'reply'").fetchone():  # the table may not exist yet
        (kept,) = cache.execute("SELECT count(*) FROM reply WHERE body IS NOT NULL").fetchone()
    cache.close()
    return server.stats()["paid"] - kept


def test_killed_at_random_moments(killer, server, tmp_path):
    path = recipe(tmp_path, server)
    expected = whole(killer, server, path, tmp_path / "whole")
    draw = random.Random(7)
    wanted, kills, twice, runs, worst = int(os.environ.get("SYNTHGEN_KILLS", "12")), 0, 0, 0, 0
    while kills < wanted:
        clean(killer, server)
        run, here = tmp_path / f"run{runs}", 0
        runs += 1
        while True:
            before = lost(killer, server) if here else 0
            after = draw.uniform(0.05, 0.8) if here < 4 and kills < wanted else None
            status = killer(recipe=str(path), run=str(run), after=after)["status"]
            worst = max(worst, lost(killer, server) - before)
            if status == 0:
                break
            assert status == 9, status
            here, kills = here + 1, kills + 1
        twice += check(server, corpus.manifest(run / "generated"), expected, run, here)
        assert worst <= LIMIT
    said = f"{twice} replies paid twice, at most {worst} lost by a kill of {LIMIT}"
    print(f"\n{kills} random kills in {runs} runs: {said}")


def test_killed_at_every_commit_point(killer, server, tmp_path):
    path = recipe(tmp_path, server)
    expected = whole(killer, server, path, tmp_path / "whole")
    clean(killer, server)
    points = killer(recipe=str(path), run=str(tmp_path / "count"))["points"]
    step = 1 if os.environ.get("SYNTHGEN_POINTS") == "all" else max(1, points // 10)
    twice = kills = 0
    for at in range(1, points + 1, step):
        clean(killer, server)
        run = tmp_path / f"at{at}"
        first = killer(recipe=str(path), run=str(run), at=at)["status"]
        kills += first == 9
        assert first in (0, 9)
        assert first == 0 or killer(recipe=str(path), run=str(run))["status"] == 0
        twice += check(server, corpus.manifest(run / "generated"), expected, run, 1)
        shutil.rmtree(run)
    print(f"\nkilled at {kills} of {points} commit points: {twice} replies paid twice, {LIMIT} in flight at most")
    assert kills


def test_a_kill_cannot_hide_spending(killer, server, tmp_path):
    """A run with a small budget is killed several times. According to the server, the run never spends more than the
    budget.
    """
    clean(killer, server)
    path = recipe(tmp_path, server, budget={"usd": LITTLE})
    draw = random.Random(3)
    for _ in range(8):
        killer(recipe=str(path), run=str(tmp_path / "run"), after=draw.uniform(0.3, 0.8))
    ended = killer(recipe=str(path), run=str(tmp_path / "run"))
    billed = server.stats()["usd_pico"] / 1e12
    print(f"\nafter 8 kills: ${billed:.6f} billed of ${LITTLE}; exit {os.waitstatus_to_exitcode(ended['status'])}")
    assert 0 < billed <= LITTLE
    assert os.waitstatus_to_exitcode(ended["status"]) in (0, 2)
