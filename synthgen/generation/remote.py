"""Generation over a wire: shards opened in order, jobs run as their replies come, shards committed when complete.

A job's requests are made when its shard is opened or its last round is answered, and a shard is forgotten when it
is committed: memory holds the open shards, never the corpus. Committing (compressing, writing, fsync) runs in a
thread beside the loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from synthgen import corpus, durable
from synthgen.errors import CorpusError, GateDenied, SynthgenError
from synthgen.generation.budget import Budget, open_budget, prices
from synthgen.generation.cache import Cache, Spent
from synthgen.generation.jobs import Jobs, cast
from synthgen.generation.rounds import Failure, Made, Rounds, costed
from synthgen.generation.scheduler import Item, Live, Scheduler, Work
from synthgen.generation.strategies import STRATEGIES
from synthgen.recipe import Recipe
from synthgen.requests import Request
from synthgen.teachers.base import FAILURES, Call, RemoteTeacher, Reply
from synthgen.ui import Progress

_HELD_BYTES = 256 << 20  # rows that wait for the rest of their shard
_OPEN_SHARDS = 64
_COMMITTING = 4  # shards that wait for the disk
_LOOK = 0.5  # seconds between looks of the live view
_RUN_ID = ".run-id"

Write = Callable[[corpus.Shard, list[list[Made]]], None]


class Gate:
    """Counts rows that came to nothing, and stops the run when they are more than the recipe allows.

    What a strategy itself turns away (teachers agree, a tie) is no fault and is not counted.
    """

    def __init__(self, recipe: Recipe, total: int, failed: int) -> None:
        self.most = most_failures(recipe.generate.max_failures, total)
        self.failed = failed

    def count(self, made: Sequence[Made]) -> None:
        """Raise GateDenied for one failure too many."""
        for one in made:
            if isinstance(one, Failure) and one.kind in FAILURES:
                self.failed += 1
                if self.failed > self.most:
                    raise GateDenied(
                        f"{self.failed:,} requests failed, more than generate.max_failures allows; "
                        f"last: {one.kind}: {one.reason}",
                        "mend the cause and ask again with --retry-failed, or go on with a higher --max-failures",
                    )


def most_failures(wanted: str | int | None, total: int) -> float:
    """The number of failures that is still allowed."""
    if wanted is None:
        return float("inf")
    text = str(wanted)
    return float(text[:-1]) / 100 * total if text.endswith("%") else float(text)


@dataclass(slots=True)
class _Running:
    """A job whose round is being answered: `row` is its place in the shard."""

    shard: int
    row: int
    rounds: Rounds
    replies: list[Reply | None] = field(default_factory=list)
    missing: int = 0
    costs: list[float | None] = field(default_factory=list)


@dataclass
class _Open:
    """A shard whose jobs are running."""

    shard: corpus.Shard
    made: list[list[Made]]
    missing: int
    held: int = 0


class Caller(Protocol):
    """What `Filling` wants of a teacher."""

    def call(self, request: Request) -> Call:
        """As of `RemoteTeacher`."""


class Filling:
    """The open shards of one run: hands out requests, takes replies, commits what is complete. A `Work`."""

    def __init__(
        self,
        jobs: Jobs,
        shards: Sequence[corpus.Shard],
        teachers: Mapping[str, Caller],
        write: Write,
        bar: Progress,
        gate: Gate,
    ) -> None:
        self.teachers, self.write, self.bar, self.gate = teachers, write, bar, gate
        self.make = STRATEGIES[jobs.recipe.strategy].make
        self.open: dict[int, _Open] = {}
        self.ready: dict[str, deque[Item]] = defaultdict(deque)
        self.held = 0
        self.commits: set[asyncio.Task[None]] = set()
        self.turn = asyncio.Semaphore(1)
        self.wake: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self._begun = False
        self._new = self._begin(jobs, shards)

    @property
    def finished(self) -> bool:
        """Whether every job has made what it makes."""
        return self._begun and not self.open

    def take(self, teacher: str) -> Item | None:
        """The next request for a teacher: of a job that has begun, else of a new one. Raises what a commit raised."""
        ready = self.ready[teacher]
        while not ready:
            if self.error is not None:
                raise self.error
            if self._begun or not self._room():
                return None
            if next(self._new, None) is None:
                self._begun = True
        return ready.popleft()

    def deliver(self, item: Item, reply: Reply) -> None:
        """Put a reply in its place; the last one of a round goes on with the job. Raises GateDenied."""
        job, place = item.place
        if job.replies[place] is not None:
            raise CorpusError(f"request {item.request.id} was answered twice", "a bug of ours: please report it")
        job.replies[place] = reply
        job.missing -= 1
        if not job.missing:
            job.costs += [one.cost_usd for one in job.replies]
            self._go_on(job, job.replies)
            if len(self.teachers) > 1:
                self.wake()

    def _begin(self, jobs: Jobs, shards: Sequence[corpus.Shard]) -> Iterator[bool]:
        """Begin job after job."""
        for number, shard in enumerate(shards):
            size = shard.stop - shard.start
            self.open[number] = _Open(shard, [[] for _ in range(size)], size)
            for row, job in enumerate(jobs.one_by_one(shard.start, shard.stop)):
                self._go_on(_Running(number, row, self.make(job)), None)
                yield True

    def _go_on(self, job: _Running, replies: list[Reply | None] | None) -> None:
        try:
            wanted = next(job.rounds) if replies is None else job.rounds.send(replies)  # type: ignore[arg-type]
        except StopIteration as done:
            self._made(job, costed(done.value, job.costs))
            return
        job.replies, job.missing = [None] * len(wanted), len(wanted)
        for place, request in enumerate(wanted):
            call = self.teachers[request.teacher].call(request)
            self.ready[request.teacher].append(Item((job, place), request, call))

    def _made(self, job: _Running, made: list[Made]) -> None:
        shard = self.open[job.shard]
        shard.made[job.row] = made
        shard.missing -= 1
        size = sum(_size(one) for one in made)
        shard.held += size
        self.held += size
        self.gate.count(made)
        if not shard.missing:
            task = asyncio.get_running_loop().create_task(self._commit(job.shard))
            self.commits.add(task)
            task.add_done_callback(self._committed)

    def _room(self) -> bool:
        """Whether another job may begin. A shard that is open alone is filled, however large: it frees nothing else."""
        if len(self.open) <= 1 and not self.commits:
            return True
        return self.held < _HELD_BYTES and len(self.open) < _OPEN_SHARDS and len(self.commits) < _COMMITTING

    async def _commit(self, number: int) -> None:
        shard = self.open.pop(number)
        async with self.turn:  # one at a time: a second thread would only contend for the interpreter
            await asyncio.to_thread(self.write, shard.shard, shard.made)
        self.held -= shard.held
        failed = sum(isinstance(one, Failure) for made in shard.made for one in made)
        self.bar.advance(len(shard.made), failed=failed)

    def _committed(self, task: asyncio.Task[None]) -> None:
        self.commits.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = error if isinstance(error, Exception) else RuntimeError(str(error))
        self.wake()


class _Batch:
    """Some requests, each to be answered once. A `Work`."""

    def __init__(self, teachers: Mapping[str, RemoteTeacher], requests: Sequence[Request]) -> None:
        self.replies: list[Reply | None] = [None] * len(requests)
        self.ready: dict[str, deque[Item]] = defaultdict(deque)
        for place, request in enumerate(requests):
            self.ready[request.teacher].append(Item(place, request, teachers[request.teacher].call(request)))

    @property
    def finished(self) -> bool:
        return not any(self.ready.values())

    def take(self, teacher: str) -> Item | None:
        return self.ready[teacher].popleft() if self.ready[teacher] else None

    def deliver(self, item: Item, reply: Reply) -> None:
        self.replies[item.place] = reply


class Remotes:
    """The remote teachers of a run, by name, with the cache, the ledger and the budget that they share.

    `parts`: on how many machines the run is made, each with its share of the budget. Close it after use.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        teachers: Mapping[str, RemoteTeacher],
        bar: Progress,
        *,
        retry_failed: bool = False,
        parts: int = 1,
    ) -> None:
        self.recipe, self.teachers, self.bar = recipe, teachers, bar
        paid = any(teacher.paid for teacher in teachers.values())
        self.cache = Cache(durable.cache_folder() / "replies.sqlite", retry_failed=retry_failed) if paid else None
        try:
            self.run = _run_id(folder)
            self.budget = open_budget(recipe, self.cache.spent(self.run) if self.cache else Spent(), parts)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the cache's file."""
        if self.cache is not None:
            self.cache.close()

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in order. Raises BudgetReached, TeacherError."""
        work = _Batch(self.teachers, requests)
        asyncio.run(self._run(work))
        return [reply for reply in work.replies if reply is not None]

    def fill(
        self,
        jobs: Jobs,
        shards: Sequence[corpus.Shard],
        write: Write,
        gate: Gate,
        first: Callable[[Cache, Budget, str], Awaitable[None]] | None = None,
    ) -> None:
        """Make `shards`; `write` commits one; `first` may fill the cache before anything is asked.

        Raises BudgetReached, GateDenied, TeacherError, and what `write` raises.
        """

        async def main() -> None:
            if first is not None and self.cache is not None:
                await first(self.cache, self.budget, self.run)
            filling = Filling(jobs, shards, self.teachers, write, self.bar, gate)
            try:
                await self._run(filling)
            finally:
                if filling.commits:
                    await asyncio.wait(set(filling.commits))
            if filling.error is not None:
                raise filling.error

        asyncio.run(main())

    async def _run(self, work: Work) -> None:
        """A scheduler for each teacher until `work` is done; when one stops, all do."""
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

        if isinstance(work, Filling):
            work.wake = wake
        seen = _Seen(self.bar, [scheduler.live for scheduler in schedulers])
        view = asyncio.create_task(seen.go_on())
        try:
            results = await asyncio.gather(*map(one, schedulers), return_exceptions=True)
        finally:
            view.cancel()
            for teacher in self.teachers.values():
                await teacher.close()
        seen.look()
        errors = [result for result in results if isinstance(result, BaseException)]
        # One of ours that says what to do comes before what it brought about elsewhere.
        for error in sorted(errors, key=lambda e: not isinstance(e, SynthgenError)):
            raise error

    def _scheduler(self, name: str, teacher: RemoteTeacher, work: Work) -> Scheduler:
        section = cast(self.recipe)[name]
        return Scheduler(
            name,
            teacher,
            work,
            self.cache,
            run=self.run,
            budget=self.budget,
            prices=prices(section),
            max_in_flight=getattr(section, "max_in_flight", 64),
            rpm=getattr(section, "rpm", None),
            tpm=getattr(section, "tpm", None),
            timeout=getattr(section, "timeout", 300.0),
            attempts=getattr(section, "max_retries", 4) + 1,
        )


class _Seen:
    """The live view of some schedulers together."""

    def __init__(self, bar: Progress, lives: Sequence[Live]) -> None:
        self.bar, self.lives, self.shown = bar, lives, 0

    async def go_on(self) -> None:
        """Look now and then until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK)

    def look(self) -> None:
        """Once."""
        made = sum(live.made for live in self.lives)
        self.bar.tokens(made - self.shown)
        self.shown = made
        idle = "; ".join(dict.fromkeys(live.idle for live in self.lives if live.idle))
        usd = None if any(live.usd is None for live in self.lives) else max(live.usd or 0.0 for live in self.lives)
        self.bar.remote(sum(v.in_flight for v in self.lives), sum(v.limit for v in self.lives), idle, usd)


def _run_id(folder: Path) -> str:
    """The ledger's name for this corpus: made once, gone with the corpus."""
    path = folder / _RUN_ID
    if not path.exists():
        durable.write_text(path, secrets.token_hex(16))
    return path.read_text().strip()


def _size(made: Made) -> int:
    """About how many bytes a row holds."""
    if isinstance(made, Failure):
        return 256
    arrays = sum(value.nbytes for target in made.targets.values() for value in vars(target).values())
    return 2048 + len(made.record.text) + 32 * len(made.record.token_ids or ()) + arrays
