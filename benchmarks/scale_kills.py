"""Kills workers and nodes of a Ray cluster during `synthgen curate`, for `benchmarks/scale.py`."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
from scale_runs import ROOT, Bench, Meanwhile, Result, children, curate, has_task

sys.path.insert(0, str(ROOT / "tests"))
from support.clusters import two_nodes


def kill_workers(bench: Bench, rows: int, kills: int) -> bool:
    """Kill a worker at a random moment of the time in which workers have tasks, in trial after trial. Returns what
    `_trials` returns.
    """
    whole, unharmed = bench.measured("local", 1, rows), bench.measured("ray", 2, rows)
    span = unharmed.working[1] - unharmed.working[0]
    print(f"\nkills: {rows:,} rows, two workers; tasks run for {span:.1f} s", flush=True)

    def trial(drawn: random.Random, out: Path, struck: list[str]) -> Result:
        return curate(bench.run_of(rows), out, "ray", 2, _strike(drawn.uniform(0, span), out, struck))

    return _trials(trial, bench.run_of(rows), kills, whole) and unharmed.sha256 == whole.sha256


def kill_nodes(bench: Bench, rows: int, kills: int) -> bool:
    """Kill a node of a cluster of two nodes while near duplicates are searched, in trial after trial. Returns what
    `_trials` returns.
    """
    whole = bench.measured("local", 1, rows)
    print(f"\nnodes: {rows:,} rows, two nodes of one core; the second node is killed", flush=True)

    def trial(drawn: random.Random, out: Path, struck: list[str]) -> Result:
        wanted = drawn.randrange(max(1, rows // 8192))  # a task has 8192 rows
        with two_nodes() as cluster:
            second = cluster.worker_nodes.copy().pop()
            raylet = psutil.Process(second.all_processes["raylet"][0].process.pid)
            end = partial(cluster.remove_node, second, allow_graceful=False)
            meanwhile = _remove(raylet, end, wanted, out, struck)
            return curate(bench.run_of(rows), out, "ray", 2, meanwhile, RAY_ADDRESS=cluster.address)

    return _trials(trial, bench.run_of(rows), kills, whole)


def _trials(trial: Callable[[random.Random, Path, list[str]], Result], run: Path, kills: int, whole: Result) -> bool:
    """Repeat a trial until `kills` workers or nodes with a task were killed, at most four times as often. A trial gets
    a source of random numbers, the folder for its output, and a list to which it adds what it killed. Returns whether
    all results are equal to `whole`, and enough was killed.
    """
    equal, hits, seed = True, 0, 0
    while hits < kills and seed < 4 * kills:
        struck: list[str] = []
        result = trial(random.Random(seed), run / "curated-killed", struck)
        shutil.rmtree(run / "curated-killed")
        right, seed = result.sha256 == whole.sha256, seed + 1
        equal, hits = equal and right, hits + bool(struck)
        hit = struck[0] if struck else "nothing with a task was killed"
        print(f"  trial {seed}: {hit}; {result.seconds:.1f} s, {'same result' if right else 'DIFFERENT'}", flush=True)
    print(f"  {seed} trials, {hits} of {kills} kills hit a task, results {'equal' if equal else 'DIFFERENT'}")
    return equal and hits == kills


def _strike(moment: float, out: Path, struck: list[str]) -> Meanwhile:
    """A function that kills a worker with a task, `moment` seconds after the first task was seen. It adds the running
    step to `struck`, or nothing if no worker has a task until the command ends.
    """

    def act(command: psutil.Process) -> None:
        first = None
        while _lives(command):
            for worker in _with_task(command):
                first = first or time.monotonic()
                if time.monotonic() < first + moment:
                    break
                step = _step(out)
                worker.kill()
                struck.append(f"a worker after {moment:.1f} s, when {step}")
                return
            time.sleep(0.02)

    return act


def _remove(raylet: psutil.Process, end: Callable[[], None], wanted: int, out: Path, struck: list[str]) -> Meanwhile:
    """A function that ends a node with `end` while one of its workers has a task of the search for near duplicates, and
    after `wanted` files of the search have been written.
    """

    def act(command: psutil.Process) -> None:
        while _lives(command):
            spread = len(list(out.glob("steps/*/near_duplicates-signatures-*-spread.arrow")))
            if spread >= wanted and _step(out) == "near duplicates are searched" and _with_task(raylet):
                struck.append(f"the node after {spread} files of the search")
                end()
                return
            time.sleep(0.01)

    return act


def _lives(command: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(command.status() != psutil.STATUS_ZOMBIE)
    return False


def _with_task(tree: psutil.Process) -> list[psutil.Process]:
    """The processes below a process that are workers of Ray and have a task."""
    found = []
    for process in children(tree):
        with contextlib.suppress(psutil.Error):
            if has_task(" ".join(process.cmdline())):
                found.append(process)
    return found


def _step(out: Path) -> str:
    """The step of a curation that is running, according to the files that it has written."""
    if list(out.glob("data/[!.]*.parquet")):
        return "rows are written"
    if list(out.glob("steps/*/near_duplicates.arrow")):
        return "near duplicates have been found"
    if list(out.glob("steps/*/duplicates.arrow")):
        return "near duplicates are searched"
    return "copies are searched" if list(out.glob("steps/*/*-by-*.arrow")) else "rows are checked"
