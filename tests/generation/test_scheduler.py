"""What the scheduler of a remote teacher counts, learns and waits for. The server is real and answers on loopback."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager

import pytest
from support.serving import generated, read_generated, write_recipe

import synthgen
from synthgen.generation import remote
from synthgen.generation.scheduler import Scheduler
from synthgen.ui import UI, Progress


@pytest.fixture
def made(monkeypatch):
    """A list that gets every scheduler that runs. `paused` of a scheduler counts the items after which it let other
    asyncio tasks run.
    """
    found = []

    class Watched(Scheduler):
        turns = paused = 0

        async def run(self) -> None:
            found.append(self)
            other = asyncio.create_task(self.count())
            await asyncio.sleep(0)
            try:
                await super().run()
            finally:
                other.cancel()

        async def count(self) -> None:
            while True:
                await asyncio.sleep(0)
                self.turns += 1

        async def _begin(self, item, again) -> None:
            before = self.turns
            await super()._begin(item, again)
            self.paused += self.turns > before

    monkeypatch.setattr(remote, "Scheduler", Watched)
    return found


def test_what_the_progress_bar_counts(serve, tmp_path, made):
    script = [["What is 1?", ["429:0", "ok"]], ["What is 2?", ["500", "ok"]], ["What is 3?", ["400"]]]
    seeds = [{"id": f"q{i}", "question": f"What is {i % 6}?"} for i in range(12)]
    server = serve(script=script, latency=0.02)
    generated(tmp_path, server, seeds=seeds)
    (scheduler,) = made
    live = scheduler.live
    assert live.sent == server.stats()["requests"] == 6 + 2
    assert (live.in_flight, live.refused, live.cached) == (0, 1, 6)
    assert live.retried == 2
    assert live.failures == {"bad_request": 2}
    assert live.tokens == 10 * 8
    assert live.usd == pytest.approx(server.stats()["usd_pico"] / 1e12)


def test_a_resumed_progress_bar_counts_the_failures_of_earlier_commands(serve, tmp_path):
    bars = []

    class Watching(UI):
        @contextmanager
        def progress(self, what, total, unit):
            bars.append(Progress(what, total, unit))
            yield bars[-1]

    server = serve(script=[[f"What is {n}?", ["400"]] for n in (1, 2, 3)])
    seeds = [{"id": f"q{i}", "question": f"What is {i % 6}?"} for i in range(12)]
    path = write_recipe(tmp_path / "task", server.url, seeds=seeds, generate={"shard_size": 2, "max_failures": "90%"})
    for part in ((1, 2), (1, 1)):
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run", part=part, ui=Watching(quiet=True))
    first, second = bars
    failed = read_generated(tmp_path / "run" / "generated")[1]
    assert first.resumed == 0
    assert (second.done, second.resumed, second.failed) == (second.total, first.total, len(failed))
    assert 0 < first.failed < len(failed)


def test_rows_from_the_cache_leave_turns_to_other_tasks_now_and_then(serve, tmp_path, made):
    server = serve()
    for name in ("run", "again"):
        generated(tmp_path, server, name, seeds=200, generate={"shard_size": 200})
    assert made[1].live.cached == 200
    assert made[1].paused == 200 // 32


@pytest.mark.parametrize("usage", [True, False])
def test_the_quota_learns_from_what_replies_used(serve, tmp_path, made, usage):
    server = serve(usage=usage)
    generated(tmp_path, server, seeds=12, teacher={"tpm": 10**9, "max_in_flight": 1})
    (scheduler,) = made
    if usage:
        assert 0.5 < scheduler.quota.used < 0.9, "prompts have fewer tokens than bytes"
    else:
        assert scheduler.quota.used == 1, "nothing is known"
