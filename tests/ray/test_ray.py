"""The Ray executor gives the same rows as the local executor, whichever process or node dies. `make test-ray` runs
these tests. SYNTHGEN_KILLS sets how often a node is killed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster
from support.corpora import contents, corpus_of, curating, row
from support.tasks import dies, dies_once, fails, squared

import synthgen
from synthgen.errors import CorpusError, UserError
from synthgen.executor import ray as module
from synthgen.executor.ray import RayExecutor
from synthgen.generation.away import alone
from synthgen.recipe import dump_recipe

KILLS = int(os.environ.get("SYNTHGEN_KILLS", "2"))
RECIPE = curating(near_duplicates={}, select={"by": "spread", "rows": 900})
WORDS = [f"word{n}" for n in range(300)]


def many(run: Path, rows: int = 4000, size: int = 600) -> Path:
    """A run with exact copies, near copies, short rows and refusals."""
    draw = random.Random(3)
    texts = [" ".join(draw.choices(WORDS, k=30)) + "." for _ in range(rows // 2)]
    for _ in range(rows - len(texts)):
        words = draw.choice(texts).split()
        if draw.random() < 0.7:
            words[draw.randrange(len(words))] = draw.choice(WORDS)
        texts.append(" ".join(words))
    texts[:50] = ["I'm sorry, but I can't help."] * 50
    made = [row(text, n, prompt=[{"role": "user", "content": f"question {n}"}]) for n, text in enumerate(texts)]
    corpus_of(run, made, size)
    (run / "recipe.yaml").write_text(dump_recipe(RECIPE))
    return run


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """(a generated run, the files of its curated corpus by the local executor)."""
    run = many(tmp_path_factory.mktemp("plain") / "run")
    done = synthgen.curate(RECIPE, run, workers=1)
    assert {"near_duplicates", "refusal"} <= set(done.rejected_by), done.rejected_by
    return run, contents(run / "curated")


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """The same for a corpus that curation divides into three tasks."""
    run = many(tmp_path_factory.mktemp("larger") / "run", rows=20_000)
    synthgen.curate(RECIPE, run, workers=1)
    return run, contents(run / "curated")


def of_run(run: Path, place: Path) -> Path:
    """A copy of the generated run."""
    place.mkdir(parents=True)
    for name in ("generated", "recipe.yaml"):
        subprocess.run(["cp", "-r", run / name, place / name], check=True)
    return place


def command(run: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "synthgen.cli", "curate", str(run), "-q", "--executor", "ray"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def workers_of(command: subprocess.Popen) -> list[psutil.Process]:
    """The processes of the command's cluster that do a task of this package."""
    found = []
    for process in children(command):
        try:
            if "ray::_call" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def children(command: subprocess.Popen) -> list[psutil.Process]:
    try:
        return psutil.Process(command.pid).children(recursive=True)
    except psutil.Error:
        return []


def test_results_come_in_the_order_of_the_tasks(executor):
    results = list(executor.map(squared, range(30)))
    assert [square for square, _ in results] == [n * n for n in range(30)]
    assert os.getpid() not in {process for _, process in results}


def test_an_exception_of_the_function_arrives(executor):
    with pytest.raises(CorpusError, match="shard 3 is damaged") as caught:
        list(executor.map(fails, range(6)))
    assert caught.value.hint == "mend it"
    assert list(executor.map(fails, range(3))) == [0, 1, 2]  # the executor still works


def test_a_task_whose_worker_died_runs_again(executor, tmp_path):
    assert list(executor.map(dies_once, [str(tmp_path / str(n)) for n in range(3)])) == [1, 1, 1]


def test_a_task_that_kills_every_worker_is_an_error(executor):
    with pytest.raises(UserError, match="a task on the Ray cluster was not finished"):
        list(executor.map(dies, range(4)))


def test_a_node_with_another_version_of_this_package_is_refused(executor, monkeypatch):
    monkeypatch.setattr(module.version, "code", lambda: "the hash of another version")
    with pytest.raises(UserError, match="has another version of synthgen than this command"):
        list(executor.map(squared, range(3)))
    worker = executor.worker(alone, None)
    with pytest.raises(UserError, match="has another version of synthgen than this command"):
        asyncio.run(worker.get())
    worker.close()
    monkeypatch.undo()
    assert [square for square, _ in executor.map(squared, range(3))] == [0, 1, 4]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_rows_are_those_of_the_local_executor(plain, tmp_path, executor, workers, monkeypatch):
    run = of_run(plain[0], tmp_path / "run")
    monkeypatch.setattr(executor, "_most", workers)
    monkeypatch.setattr("synthgen.executor.ray.RayExecutor", lambda *a: nullcontext(executor))
    synthgen.curate(RECIPE, run, executor="ray")
    assert contents(run / "curated") == plain[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_worker_killed_at_any_moment_changes_nothing(plain, tmp_path, seed):
    run = of_run(plain[0], tmp_path / "run")
    process, draw, killed = command(run), random.Random(seed), 0
    pause = draw.uniform(0.0, 0.3)
    while process.poll() is None and killed < 3:
        for worker in workers_of(process)[:1]:
            time.sleep(pause)
            worker.kill()
            killed += 1
        time.sleep(0.01)
    assert process.wait(300) == 0, process.stderr.read()
    assert killed
    assert contents(run / "curated") == plain[1]


def test_a_killed_driver_leaves_no_process_and_the_same_command_continues(plain, tmp_path):
    run = of_run(plain[0], tmp_path / "run")
    process = command(run)
    while not list((run / "curated").glob("steps/**/*.arrow")) and process.poll() is None:
        time.sleep(0.02)
    cluster = children(process)
    assert len(cluster) > 3
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert psutil.wait_procs(cluster, timeout=180)[1] == []  # some processes of Ray need a minute to end
    again = command(run)
    assert again.wait(300) == 0, again.stderr.read()
    assert contents(run / "curated") == plain[1]


@pytest.mark.parametrize("seed", range(KILLS))
def test_a_node_killed_in_the_search_for_near_duplicates_changes_nothing(larger, tmp_path, cluster, seed):
    run = of_run(larger[0], tmp_path / "run")
    second, wanted = cluster.worker_nodes.copy().pop(), random.Random(seed).choice([1, 2, 3])
    process = command(run, RAY_ADDRESS=cluster.address)
    while len(list((run / "curated").glob("steps/*/near_duplicates-*-spread.arrow"))) < wanted:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    assert not list((run / "curated").glob("data/*.parquet"))
    threading.Thread(target=cluster.remove_node, args=(second,), kwargs={"allow_graceful": False}).start()
    assert process.wait(300) == 0, process.stderr.read()
    assert contents(run / "curated") == larger[1]


def test_an_address_without_a_cluster_is_one_line(plain, tmp_path):
    run = of_run(plain[0], tmp_path / "run")
    done = command(run, RAY_ADDRESS="127.0.0.1:1")
    _, said = done.communicate(timeout=300)
    assert done.returncode == 2, said
    assert "the Ray cluster at 127.0.0.1:1 cannot be used" in said
    assert "Traceback" not in said


SHORTLY = "import synthgen.executor.ray as r, sys; r._ROOM = 2; from synthgen.cli import main; main(sys.argv[1:])"


def test_a_cluster_without_a_cpu_core_ends_the_command(plain, tmp_path):
    run = of_run(plain[0], tmp_path / "run")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        done = subprocess.run(
            [sys.executable, "-c", SHORTLY, "curate", str(run), "-q", "--executor", "ray"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_ADDRESS": made.address},
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        made.shutdown()
    assert done.returncode == 2, done.stderr
    assert "for 2 s, the Ray cluster has had no CPU core" in done.stderr


def test_a_lost_connection_starts_no_other_cluster():
    ray.shutdown()
    with RayExecutor(workers=1) as opened:
        assert [square for square, _ in opened.map(squared, [2])] == [4]
        ray.shutdown()
        with pytest.raises(UserError, match="the connection to the Ray cluster was lost"):
            list(opened.map(squared, range(2)))
        with pytest.raises(UserError, match="the connection to the Ray cluster was lost"):
            opened.worker(alone, None)
        assert not ray.is_initialized()
