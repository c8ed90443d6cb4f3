"""The remote teachers of a run. Remote teachers share a cache, a ledger and a budget, and each teacher has its own
scheduler."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path

from synthgen import durable
from synthgen.errors import SynthgenError
from synthgen.generation.account import Account
from synthgen.generation.budget import Budget, open_budget
from synthgen.generation.cache import Cache
from synthgen.generation.casting import cast
from synthgen.generation.division import Shard
from synthgen.generation.filling import Filling, Output
from synthgen.generation.interruption import Interrupted, Interruption
from synthgen.generation.jobs import Jobs
from synthgen.generation.ledger import FOLDER as LEDGER
from synthgen.generation.ledger import Ledger, Spent
from synthgen.generation.limits import Limits
from synthgen.generation.prices import prices
from synthgen.generation.scheduler import Scheduler
from synthgen.generation.work import Item, Live, Wakes, Work
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.teachers.base import RemoteTeacher, Reply
from synthgen.ui import Progress

_LOOK = 0.5  # seconds between updates of the progress bar

First = Callable[[Cache, Budget, Ledger], Awaitable[None]]
"""A function that fills the cache before single requests are sent."""


class _Batch:
    """A list of requests and their replies. Implements the protocol `Work`."""

    def __init__(self, teachers: Mapping[str, RemoteTeacher], requests: Sequence[Request]) -> None:
        self.replies: list[Reply | None] = [None] * len(requests)
        self.ready: dict[str, deque[Item]] = defaultdict(deque)
        for place, request in enumerate(requests):
            self.ready[request.teacher].append(Item((None, place), request, teachers[request.teacher].call(request)))

    @property
    def finished(self) -> bool:
        return not any(self.ready.values())

    def take(self, teacher: str) -> Item | None:
        return self.ready[teacher].popleft() if self.ready[teacher] else None

    def deliver(self, item: Item, reply: Reply) -> None:
        self.replies[item.place[1]] = reply


class Remotes:
    """The remote teachers of a run, by name, and the cache, ledger and budget that they share.

    `note` prints a line for the user. `part` is (i, n) when this machine makes the i-th of n parts of the run. Each
    machine gets an equal share of the budget. Close the object after use.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        teachers: Mapping[str, RemoteTeacher],
        bar: Progress,
        *,
        note: Callable[[str], None] = lambda text: None,
        retry_failed: bool = False,
        part: tuple[int, int] = (1, 1),
    ) -> None:
        self.recipe, self.teachers, self.bar, self.note = recipe, teachers, bar, note
        paid = any(teacher.paid for teacher in teachers.values())
        self.ledger: Ledger | None = None
        self.cache = Cache(durable.cache_folder() / "replies.sqlite", retry_failed=retry_failed) if paid else None
        try:
            if paid:
                self.ledger = Ledger(folder.parent / LEDGER, part, sorted(folder.glob("data/[!.]*.parquet")))
            self.budget = open_budget(recipe, self.ledger.before if self.ledger else Spent(), part[1])
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the files of the cache and of the ledger."""
        if self.cache is not None:
            self.cache.close()
        if self.ledger is not None:
            self.ledger.close()

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Send the requests. Returns the replies in the same order. Raises BudgetReached and TeacherError."""
        work = _Batch(self.teachers, requests)
        go(self.run(work))
        return [reply for reply in work.replies if reply is not None]

    def fill(self, jobs: Jobs, shards: Sequence[Shard], output: Output, first: First | None = None) -> None:
        """Make `shards`. If `first` is given, it fills the cache before single requests are sent.

        Raises BudgetReached, GateDenied, TeacherError and errors of commits.
        """

        async def main() -> None:
            if first is not None and self.cache is not None and self.ledger is not None:
                await first(self.cache, self.budget, self.ledger)
            filling = Filling(jobs, shards, self.teachers, output)
            try:
                await self.run(filling)
            finally:
                if filling.commits:
                    await asyncio.wait(set(filling.commits))
            await filling.committed()

        go(main())

    async def run(self, work: Work) -> None:
        """Run a scheduler for each teacher until `work` is done. When one scheduler stops with an error, all stop."""
        schedulers = [self._scheduler(name, teacher, work) for name, teacher in self.teachers.items()]

        def wake() -> None:
            for scheduler in schedulers:
                scheduler.wake()

        async def one(scheduler: Scheduler) -> None:
            try:
                await scheduler.run()
            except Exception as error:
                for other in schedulers:
                    other.stop(error)
                raise
            finally:
                wake()

        if isinstance(work, Wakes):
            work.wake = wake
        view = _View(self.bar, [scheduler.live for scheduler in schedulers])
        looking = asyncio.create_task(view.go_on())
        try:
            with Interruption(schedulers, self.note):
                results = await asyncio.gather(*map(one, schedulers), return_exceptions=True)
        finally:
            looking.cancel()
            for teacher in self.teachers.values():
                await teacher.close()
        view.look()
        if cut := sum(scheduler.live.cut_prompts for scheduler in schedulers):
            self.note(
                f"{cut:,} prompts have more words than the server counted tokens, so the server left out a part of "
                "these prompts. Their rows have the score prompt_was_cut. Raise the server's context length and "
                "use --fresh"
            )
        errors = [result for result in results if isinstance(result, BaseException)]
        # Among several errors, an error of synthgen is raised, because it tells the user what to do and may have caused
        # the other errors.
        for error in sorted(errors, key=lambda e: not isinstance(e, SynthgenError)):
            raise error

    def _scheduler(self, name: str, teacher: RemoteTeacher, work: Work) -> Scheduler:
        section = cast(self.recipe)[name]
        account = Account(
            teacher,
            self.cache,
            budget=self.budget,
            prices=prices(section),
            ledger=self.ledger,
        )
        return Scheduler(name, work, account, Limits.of(section))


def go(main: Coroutine[object, object, None]) -> None:
    """Run a coroutine. If the coroutine raises Interrupted, KeyboardInterrupt is raised instead."""
    try:
        asyncio.run(main)
    except Interrupted:
        raise KeyboardInterrupt from None


class _View:
    """Shows the state of several schedulers in one progress bar."""

    def __init__(self, bar: Progress, lives: Sequence[Live]) -> None:
        self.bar, self.lives, self.shown = bar, lives, 0

    async def go_on(self) -> None:
        """Update the progress bar every `_LOOK` seconds until the asyncio task of this coroutine is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK)

    def look(self) -> None:
        """Update the progress bar once."""
        tokens = sum(live.tokens for live in self.lives)
        self.bar.tokens(tokens - self.shown)
        self.shown = tokens
        idle = "; ".join(dict.fromkeys(live.idle for live in self.lives if live.idle))
        usd = None if any(live.usd is None for live in self.lives) else max(live.usd or 0.0 for live in self.lives)
        self.bar.remote(sum(v.in_flight for v in self.lives), sum(v.limit for v in self.lives), idle, usd)
