"""Generation on real Ray clusters: the rows of one machine, whichever process or node dies. `make test-ray` runs these
tests. SYNTHGEN_KILLS sets how often a node is killed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import yaml
from support.clusters import two_nodes
from support.corpora import contents
from support.serving import KEY, Serving, write_recipe

import synthgen
from synthgen.generation.ledger import spent

os.environ.setdefault("LOOPBACK_KEY", KEY)  # the nodes of a cluster get this process's environment

KILLS = int(os.environ.get("SYNTHGEN_KILLS", "2"))
SEEDS, LIMIT = 400, 16


@pytest.fixture(scope="module")
def server():
    running = Serving(latency=0.05, jitter=0.05, faults={"500": 0.02, "429": 0.01})
    yield running
    running.stop()


def paid(place: Path, server: Serving, **generate) -> Path:
    teacher = {"max_in_flight": LIMIT}
    generate = {"shard_size": 20, "budget": {"usd": 1.0}, **generate}
    return write_recipe(place / "task", server.url, seeds=SEEDS, teacher=teacher, generate=generate)


def replayed(place: Path, latency: float = 0.05) -> Path:
    """A recipe whose teacher replays replies. One reply is missing."""
    path = write_recipe(place / "task", "http://unused.test/v1", seeds=SEEDS, generate={"shard_size": 20})
    replies = [{"prompt": f"What is {n}?", "text": f"It is {n}, of course."} for n in range(SEEDS) if n != 7]
    (place / "task" / "replies.jsonl").write_text("".join(json.dumps(one) + "\n" for one in replies))
    recipe = yaml.safe_load(path.read_text())
    recipe["teacher"] = {
        "engine": "replay", "path": "replies.jsonl", "license": "MIT", "latency": latency, "max_in_flight": 4,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def whole(path: Path, place: Path) -> dict[str, bytes]:
    """The files that the local executor makes, with a cache of its own."""
    before = os.environ.get("SYNTHGEN_CACHE")
    os.environ["SYNTHGEN_CACHE"] = str(place / "cache-of-one-machine")
    synthgen.generate(synthgen.load_recipe(path), place / "whole")
    os.environ.pop("SYNTHGEN_CACHE") if before is None else os.environ.update(SYNTHGEN_CACHE=before)
    return contents(place / "whole" / "generated")


def command(recipe: Path, run: Path, cache: Path, *more: str, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "synthgen.cli", "generate", str(recipe), "-o", str(run), "--executor", "ray", *more],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "SYNTHGEN_CACHE": str(cache),
            **environment,
        },
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_shards(run: Path, count: int, process: subprocess.Popen) -> None:
    while len(list((run / "generated" / "data").glob("[!.]*.parquet"))) < count and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()


def workers() -> list[psutil.Process]:
    """The processes of this package's workers in clusters that this process or its children started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "ray::_Actor" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def none_left() -> bool:
    end = time.monotonic() + 60
    while workers() and time.monotonic() < end:
        time.sleep(0.1)
    return not workers()


@pytest.mark.parametrize("seed", range(KILLS))
@pytest.mark.parametrize("kind", ["api", "replay"])
def test_a_node_killed_in_the_middle_changes_nothing(kind, seed, server, tmp_path):
    server.set(reset=True)
    path = paid(tmp_path, server) if kind == "api" else replayed(tmp_path)
    expected = whole(path, tmp_path)
    server.set(reset=True)
    with two_nodes(2) as cluster:
        run, second = tmp_path / "run", cluster.worker_nodes.copy().pop()
        process = command(path, run, tmp_path / "cache", "--workers", "4", RAY_ADDRESS=cluster.address)
        wait_for_shards(run, random.Random(seed).randrange(1, 12), process)
        assert len(workers()) == 4
        threading.Thread(target=cluster.remove_node, args=(second,), kwargs={"allow_graceful": False}).start()
        said = process.communicate(timeout=300)[1]
        assert process.returncode == 0, said
        assert "Traceback" not in said
        assert none_left()
    assert contents(run / "generated") == expected
    if kind == "api":
        stats = server.stats()
        assert stats["paid_bodies"] == SEEDS
        assert stats["paid_twice"] <= LIMIT
        assert stats["most_in_flight"] <= LIMIT
        assert stats["usd_pico"] <= spent(run / "ledger").usd <= 10**12
        print(f"\n{stats['paid_twice']} of at most {LIMIT} requests paid twice")
        secret = subprocess.run(["grep", "-rl", KEY, str(run), str(tmp_path / "cache")], capture_output=True, text=True)
        assert not secret.stdout


def test_a_killed_command_continues_here_or_on_the_cluster(server, tmp_path):
    server.set(reset=True)
    path = paid(tmp_path, server)
    expected = whole(path, tmp_path)
    server.set(reset=True)
    run, cache = tmp_path / "run", tmp_path / "cache"
    for count in (3, 9):  # the second command begins while workers of the first one may still be running
        process = command(path, run, cache, "--workers", "2")
        wait_for_shards(run, count, process)
        left = workers()
        assert len(left) == 2
        process.send_signal(signal.SIGKILL)
        process.communicate()
    os.environ["SYNTHGEN_CACHE"] = str(cache)
    try:
        synthgen.generate(synthgen.load_recipe(path), run)
    finally:
        os.environ.pop("SYNTHGEN_CACHE")
    assert psutil.wait_procs(left, timeout=180)[1] == []
    assert contents(run / "generated") == expected
    stats = server.stats()
    assert stats["paid_bodies"] == SEEDS
    assert stats["paid_twice"] <= 2 * LIMIT


def test_the_budget_holds_when_workers_die(server, tmp_path):
    server.set(reset=True)
    little = 0.002
    path = paid(tmp_path, server, budget={"usd": little})
    run = tmp_path / "run"
    process = command(path, run, tmp_path / "cache", "--workers", "3")
    wait_for_shards(run, 2, process)
    for worker in workers()[:2]:
        worker.kill()
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 2, said
    assert "the budget is reached" in said
    assert "Traceback" not in said
    billed = server.stats()["usd_pico"] / 1e12
    assert 0 < billed <= little
    assert billed <= spent(run / "ledger").usd / 1e12 <= little
    assert none_left()
