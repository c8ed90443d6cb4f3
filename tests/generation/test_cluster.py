"""Generation on a cluster gives the rows of one machine, and keeps the budget, when workers die. The workers are tasks
of this process; tests/ray has the same tests on Ray.
"""

from __future__ import annotations

import pytest
from support.corpora import contents
from support.near import NearCluster
from support.serving import KEY, Serving, write_recipe

import synthgen
from synthgen.errors import GateDenied, UserError
from synthgen.generation.away import Sent
from synthgen.generation.ledger import spent
from synthgen.generation.work import BudgetReached

SEEDS, LIMIT = 60, 8


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
    again = synthgen.generate(asked, place / "second", executor="ray", workers=3)
    assert again.finished
    assert contents(place / "second" / "generated") == expected
    assert server.stats()["paid"] == SEEDS  # the second run has read the cache


def dying(after: int, which: int = 0):
    """Ends worker number `which` when so many of its requests were answered, at most once."""
    answered = 0

    def heard(worker, found) -> None:
        nonlocal answered
        if worker is worker.cluster.workers[which]:
            answered += sum(isinstance(one, Sent) for one in found)
            if answered >= after and not worker.dead.is_set():
                worker.die()

    return heard


@pytest.mark.parametrize("after", [0, 5, 20])
def test_a_worker_that_dies_changes_no_row_and_little_is_paid_twice(place, server, monkeypatch, after):
    asked = recipe(place, server)
    expected = alone(place, server, asked, monkeypatch)
    cluster = on(monkeypatch, NearCluster(2, dying(after)))
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
    on(monkeypatch, NearCluster(1, lambda worker, found: worker.die() if worker.count > 2 else None))
    with pytest.raises(UserError, match="workers of the cluster died 5 times while they made shard"):
        synthgen.generate(asked, place / "run", executor="ray", workers=3)


def test_failures_of_all_workers_count_together(place, server, monkeypatch):
    server.set(script=[["What is 1", ["400"]]])
    asked = recipe(place, server, max_failures=3)
    on(monkeypatch, NearCluster(2))
    with pytest.raises(GateDenied, match="4 requests failed"):
        synthgen.generate(asked, place / "run", executor="ray", workers=3)


def test_one_pace_for_all_workers(place, server, monkeypatch):
    server.set(rpm=1200)
    asked = recipe(place, server)
    asked = asked.model_copy(update={"teacher": asked.teacher.model_copy(update={"rpm": 1200})})
    on(monkeypatch, NearCluster(3))
    synthgen.generate(asked, place / "run", executor="ray", workers=3)
    stats = server.stats()
    assert stats["statuses"] == {"ok": SEEDS}, stats["statuses"]


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
