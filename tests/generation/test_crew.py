"""How a crew shares shards and requests among its workers. The workers only keep what they were sent."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from synthgen.errors import UserError
from synthgen.generation import sharing
from synthgen.generation.away import Ready
from synthgen.generation.sharing import SharingCrew
from synthgen.teachers.base import Refused


class Keeps:
    """A worker that keeps its messages."""

    def __init__(self) -> None:
        self.got: list[object] = []

    def put(self, message: object) -> None:
        self.got.append(message)

    def close(self) -> None:
        """Does nothing."""


def crew_of(count: int, shards: int) -> SharingCrew:
    crew = SharingCrew(Keeps, count, {})
    crew.plan.extend(SimpleNamespace(name=f"s{n}") for n in range(shards))
    for member in crew.members:
        member.ready = True
    return crew


def test_a_request_of_a_worker_that_died_counts_as_billed_and_is_sent_again():
    async def talk() -> None:
        crew = crew_of(1, 0)
        member = crew.members[0]
        waiting = asyncio.create_task(crew.sent(lambda number: number))
        await asyncio.sleep(0)
        assert len(member.sending) == 1
        crew.gone(member, "the machine is gone")
        with pytest.raises(Refused) as caught:
            await waiting
        assert (caught.value.billed, caught.value.lost, caught.value.retry) == (True, True, True)
        assert not member.sending

    asyncio.run(talk())


def test_requests_go_to_the_worker_that_sends_the_fewest():
    async def talk() -> None:
        crew = crew_of(2, 0)
        tasks = [asyncio.create_task(crew.sent(lambda number: number)) for _ in range(4)]
        await asyncio.sleep(0)
        assert [len(one.worker.got) for one in crew.members] == [2, 2]
        for number in list(crew.members[0].sending):
            crew._answer(crew.members[0], number, True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks += [asyncio.create_task(crew.sent(lambda number: number)) for _ in range(2)]
        await asyncio.sleep(0)
        assert [len(one.worker.got) for one in crew.members] == [4, 2]
        for task in tasks:
            task.cancel()

    asyncio.run(talk())


def test_shards_are_opened_one_by_one_while_memory_allows(monkeypatch):
    monkeypatch.setattr(sharing, "_OPEN", 2)
    crew = crew_of(1, 5)
    member = crew.members[0]
    crew._open()
    crew._open()
    assert list(member.open) == ["s0"], "the requests of the first shard are not built yet"
    member.opening, member.held = False, sharing._HELD_BYTES
    crew._open()
    assert list(member.open) == ["s0"], "the worker holds too many rows"
    member.held, crew.waiting = 0, sharing._READY
    crew._open()
    assert list(member.open) == ["s0"], "too many requests wait"
    crew.waiting = 0
    crew._open()
    member.opening = False
    crew._open()
    assert list(member.open) == ["s0", "s1"]
    member.open.clear()
    member.held = sharing._HELD_BYTES
    crew._open()
    assert list(member.open) == ["s2"], "a worker without a shard always gets one"


def test_only_deaths_at_work_and_while_teachers_are_opened_are_counted(monkeypatch):
    monkeypatch.setattr(SharingCrew, "_attend", lambda crew, member: None)
    crew = crew_of(1, 0)
    crew._news = SimpleNamespace(set=lambda: None)
    for _ in range(9):
        crew.lost(crew.members[0], "gone")
        assert crew.deaths.pop("", 0) == 0, "a worker without a shard died"
        crew.hear(crew.members[0], Ready({}))
    for round in (1, 2):
        for _ in range(4):  # one fewer than ends the run
            crew.members[0].ready = False
            crew.lost(crew.members[0], "gone")
        assert crew.deaths[""] == 4
        crew.hear(crew.members[0], Ready({}))
        assert (crew.error, crew.deaths[""]) == (None, 0), round


def test_the_shards_of_a_worker_that_died_are_next_in_their_order(monkeypatch):
    monkeypatch.setattr(SharingCrew, "_attend", lambda crew, member: None)
    crew = crew_of(2, 3)
    first, other = crew.members
    crew.assign(first)
    crew.assign(first)
    crew.lost(first, "gone")
    assert list(other.open) == ["s0"], "another worker begins at once"
    assert [shard.name for shard in crew.plan] == ["s1", "s2"]


def test_an_error_ends_a_request_for_which_there_is_no_worker():
    async def talk() -> None:
        crew = crew_of(1, 0)
        crew._news = asyncio.Event()
        crew.members[0].ready = False
        crew.fail(UserError("no node has room"))
        with pytest.raises(UserError, match="no node has room"):
            await asyncio.wait_for(crew.sent(lambda number: number), 5)

    asyncio.run(talk())
