"""Jobs make the same rows whether they run side by side in rounds or one request at a time."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest
from support.scripted import JUDGE, identified

from synthgen.errors import GateDenied
from synthgen.generation.division import Shard
from synthgen.generation.filling import Filling, Gate, Output, most_failures
from synthgen.generation.inputs import runner
from synthgen.generation.making import _ask_all
from synthgen.generation.rounds import Failure, ask_batch, lockstep
from synthgen.recipe import GenerateSection
from synthgen.requests import Lineage, Query, Request
from synthgen.teachers import open_teacher
from synthgen.teachers.base import Reply


def test_lockstep_asks_round_by_round_in_order():
    def job(name, rounds):
        said = []
        for n in range(rounds):
            said += [reply.text for reply in (yield [query(f"{name}{n}"), query(f"{name}{n}'")])]
        return said

    def query(name):
        return Query(Request("sample", [], id=name), Lineage("s", "train", [], ()))

    calls = []

    def ask(requests):
        calls.append([request.id for request in requests])
        return [Reply(request.id.upper()) for request in requests]

    made = lockstep([job("a", 2), job("b", 0), job("c", 1)], ask)
    assert calls == [["a0", "a0'", "c0", "c0'"], ["a1", "a1'"]]
    assert made == [["A0", "A0'", "A1", "A1'"], [], ["C0", "C0'"]]


def streamed(jobs: list, reply, seed: int = 0) -> list:
    """Runs the jobs and returns their rows. `reply` answers one request at a time, in an order drawn with `seed`."""
    names = jobs[0].setting.versions
    calls = SimpleNamespace(call=lambda request: None)
    written = {}
    shard = Shard("train-00000", "train", 0, len(jobs))
    fed = SimpleNamespace(setting=jobs[0].setting, one_by_one=lambda start, stop: iter(jobs))
    bar = SimpleNamespace(advance=lambda count, failed: None)
    gate = Gate(jobs[0].recipe, len(jobs), 0)
    output = Output(lambda shard, outcomes: written.setdefault(shard.name, outcomes), bar, gate)
    filling = Filling(fed, [shard], dict.fromkeys(names, calls), output)
    draw = np.random.default_rng(seed)

    async def main() -> None:
        waiting = []
        while not filling.finished:
            waiting += [item for name in names if (item := filling.take(name))]
            if not waiting:
                await asyncio.sleep(0)
            elif len(waiting) > 5 or draw.random() < 0.5:
                item = waiting.pop(int(draw.integers(len(waiting))))
                filling.deliver(item, reply(item.request))
        await asyncio.gather(*filling.commits)

    asyncio.run(main())
    assert (filling.held, filling.open, filling.commits) == (0, {}, set())
    return written[shard.name]


def test_one_at_a_time_in_any_order_is_the_same(jobs):
    """An engine that takes one request at a time makes the same rows in any order."""
    some = jobs(strategy="best_of_n", steps={"candidates": 3}, templates=JUDGE)
    texts = {0: "a", 1: "b", 2: "c"}

    def reply(request):
        judged = request.messages[-1]["content"]
        marks = {"A: a": "4", "A: b": "9", "A: c": "6"}
        found = next((mark for text, mark in marks.items() if text in judged), None)
        return Reply(found or texts[request.sampling["sample_index"]], finish_reason="stop")

    run = runner(some[0].recipe)
    batched = lockstep([run(job) for job in some], lambda requests: [reply(r) for r in requests])
    for seed in range(3):
        assert streamed(some, reply, seed) == batched
    assert batched[0][0].record.text == "b"


def test_what_a_row_cost_counts_the_requests_on_the_way(jobs):
    """Four paid requests make two rows, so each row carries half of the cost. If the price of a request is unknown, so
    is the cost of the rows.
    """
    some = jobs(strategy="preference", steps={"candidates": 2}, templates=JUDGE)[:1]

    def reply(request, unknown=False):
        judged = request.messages[-1]["content"]
        if "A: a" in judged or "A: b" in judged:
            return Reply("9" if "A: b" in judged else "4", finish_reason="stop", cost_usd=0.25)
        cost = None if unknown else 0.125
        return Reply("ab"[request.sampling["sample_index"]], finish_reason="stop", cost_usd=cost)

    for made in (
        lockstep([runner(some[0].recipe)(some[0])], lambda requests: [reply(r) for r in requests]),
        streamed(some, reply),
    ):
        assert [row.record.cost_usd for row in made[0]] == [0.375, 0.375]
    [made] = streamed(some, lambda request: reply(request, unknown=True))
    assert [row.record.cost_usd for row in made] == [None, None]


def test_what_a_strategy_turns_away_is_no_fault(jobs):
    gate = Gate(jobs()[0].recipe.model_copy(update={"generate": GenerateSection(max_failures=1)}), 10, 0)
    gate.count([Failure("i", "s", "train", kind, "") for kind in ("agreed", "tie", "unchanged", "timeout")])
    with pytest.raises(GateDenied, match="2 requests failed"):
        gate.count([Failure("i", "s", "train", "server", "500")])


def test_streamed_and_batched_are_the_same_rows_on_the_engine(shrunk):
    """The local teacher is asked one request at a time. The teacher's answers are greedy, so they do not depend on the
    batch.
    """
    recipe = shrunk("conversation", limit=4, generate={"temperature": 0.0}, steps={"temperature": 0.0})
    every = list(identified(recipe).one_by_one())
    [name] = every[0].setting.versions
    teachers = {name: open_teacher(recipe.teacher)}

    def ask(requests):
        return ask_batch(teachers, None, lambda n: None, requests)

    run = runner(recipe)
    alone = [lockstep([run(job)], ask)[0] for job in every]
    assert streamed(every, lambda request: ask([request])[0]) == alone


def started(some: list, shards: int, most: int | None = None) -> int:
    """How many jobs of `shards` equal shards start before a reply arrives, or after the replies to the first shard if
    only `most` bytes may be held. The rows of the first shard stay in memory, because it is never written.
    """
    size = len(some) // shards
    plan = [Shard(f"train-{n}", "train", n * size, (n + 1) * size) for n in range(shards)]
    fed = SimpleNamespace(setting=some[0].setting, one_by_one=lambda start, stop: iter(some[start:stop]))
    [name] = some[0].setting.versions
    output = Output(lambda shard, outcomes: None, SimpleNamespace(), Gate(some[0].recipe, len(some), 0))
    filling = Filling(fed, plan, {name: SimpleNamespace(call=lambda request: None)}, output)
    if most is None:
        return sum(1 for _ in iter(lambda: filling.take(name), None))

    async def main() -> int:
        for _ in range(size - 1):
            filling.deliver(filling.take(name), Reply("a", finish_reason="stop"))
        filling.take(name), filling.take(name)
        return sum(1 for _ in iter(lambda: filling.take(name), None)) + size + 1

    return asyncio.run(main())


def test_no_job_starts_while_too_many_shards_are_open_or_too_many_bytes_are_held(jobs, monkeypatch):
    some = jobs()[:6]
    assert started(some, 3) == 6
    monkeypatch.setattr("synthgen.generation.filling._OPEN_SHARDS", 2)
    assert started(some, 3) == 3  # the first job of the second shard opens it
    assert started(some, 1) == 6  # a single shard always goes on
    monkeypatch.setattr("synthgen.generation.filling._OPEN_SHARDS", 64)
    assert started(some, 3, most=0) == 6
    monkeypatch.setattr("synthgen.generation.filling._HELD_BYTES", 2048)
    assert started(some, 3, most=2048) == 3


@pytest.mark.parametrize(
    ("wanted", "most"), [(None, float("inf")), (0, 0), (3, 3), ("3", 3), ("0%", 0), ("2.5%", 5), ("100%", 200)]
)
def test_as_many_failures_are_allowed_as_the_number_or_the_share_says(wanted, most):
    assert most_failures(wanted, 200) == most


def test_each_teacher_gets_its_own_requests_and_each_request_its_own_reply():
    asked = []

    def answering(kind):
        def ask(requests):
            asked.append((kind, [request.id for request in requests]))
            return [Reply(f"{kind} {request.id}") for request in requests]

        return ask

    def all_of(*teachers):
        requests = [Request("sample", [], id=str(n), teacher=name) for n, name in enumerate(teachers)]
        remotes = SimpleNamespace(ask=answering("remote"))
        return [reply.text for reply in _ask_all(answering("local"), {"a": None, "b": None}, remotes, requests)]

    assert all_of("a", "far", "b", "far") == ["local 0", "remote 1", "local 2", "remote 3"]
    assert asked == [("local", ["0", "2"]), ("remote", ["1", "3"])]
    assert all_of("far") == ["remote 0"]
    assert all_of("b") == ["local 0"]
    assert all_of() == []
    assert asked[2:] == [("remote", ["0"]), ("local", ["0"])], "nobody is asked for nothing"
