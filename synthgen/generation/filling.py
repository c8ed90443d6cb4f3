"""Opens shards in order, runs their jobs as replies arrive, and commits each shard when it is complete.

The requests of a job's first round are built when the job starts. The requests of a later round are built when all
requests of the previous round have been answered. A committed shard is dropped from memory. Memory therefore holds only
the open shards, never the corpus. Shards are compressed, written and synced in a thread, so that the event loop is not
blocked.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from synthgen.errors import CorpusError, GateDenied
from synthgen.generation.division import Shard
from synthgen.generation.inputs import runner
from synthgen.generation.jobs import Jobs
from synthgen.generation.rounds import Answer, Failure, Outcome, Rounds, answer_of, settled
from synthgen.generation.work import Item
from synthgen.recipe import Recipe
from synthgen.requests import Query
from synthgen.teachers.base import FAILURES, Caller, Reply
from synthgen.ui import Progress

_HELD_BYTES = 256 << 20  # while the rows in memory have more bytes than this, no new job starts
_OPEN_SHARDS = 64  # maximum number of open shards
_COMMITTING = 4  # maximum number of shards that wait to be written

Write = Callable[[Shard, list[list[Outcome]]], None]
"""A function that commits a shard. The function gets the outcomes of each of the shard's jobs."""


class Gate:
    """Counts failed requests, and stops the run when more requests have failed than the recipe allows.

    A job that makes no row although its requests succeeded, for example because a vote is tied, is not counted.
    """

    def __init__(self, recipe: Recipe, total: int, failed: int) -> None:
        self.most = most_failures(recipe.generate.max_failures, total)
        self.failed = failed

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Count the failed requests among `outcomes`. Raises GateDenied when too many requests of the run have
        failed.
        """
        for one in outcomes:
            if isinstance(one, Failure) and one.kind in FAILURES:
                self.failed += 1
                if self.failed > self.most:
                    raise GateDenied(
                        f"{self.failed:,} requests failed, more than generate.max_failures allows; "
                        f"the last failure: {one.kind}: {one.reason}",
                        "correct the cause and repeat with --retry-failed, or allow more with --max-failures",
                    )


def most_failures(wanted: str | int | None, total: int) -> float:
    """The number of failures that `wanted` (`max_failures` of the recipe: a number, a percentage or None) allows among
    `total` jobs. Infinite if `wanted` is None.
    """
    if wanted is None:
        return float("inf")
    text = str(wanted)
    return float(text[:-1]) / 100 * total if text.endswith("%") else float(text)


@dataclass(frozen=True)
class Output:
    """The receivers of outcomes: `write` commits a shard, `bar` shows progress, and `gate` counts failures."""

    write: Write
    bar: Progress
    gate: Gate


@dataclass(slots=True)
class _Running:
    """A job that waits for the replies of its current round. `shard` is the shard's index among the shards to make, and
    `row` is the job's index in its shard. `missing` is the number of replies that have not arrived.
    """

    shard: int
    row: int
    rounds: Rounds
    replies: list[Reply | None] = field(default_factory=list)
    missing: int = 0
    queries: list[Query] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)


@dataclass
class _Open:
    """A shard whose jobs are running. `missing` is the number of unfinished jobs, and `held` is the size in bytes of
    the outcomes of the finished jobs.
    """

    shard: Shard
    outcomes: list[list[Outcome]]
    missing: int
    held: int = 0


class Filling:
    """Holds the open shards of one run, provides their requests, receives the replies, and commits complete shards.
    Implements the protocol `Work`.
    """

    def __init__(self, jobs: Jobs, shards: Sequence[Shard], callers: Mapping[str, Caller], output: Output) -> None:
        """`callers` holds, for each teacher, the object that converts requests to the content that is sent."""
        self.callers, self.output = callers, output
        self.run = runner(jobs.setting.recipe)
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
        """Whether every job has been started and every shard is complete."""
        return self._begun and not self.open

    def take(self, teacher: str) -> Item | None:
        """The next request for a teacher. Requests of jobs that have started are returned first. If the started jobs
        have no request left, new jobs are started. Returns None when no request is available now. Raises the error of a
        failed commit.
        """
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
        """Store a reply. After the last reply of a round, the job continues. Raises GateDenied when too many requests
        have failed.
        """
        job, place = item.place
        assert isinstance(job, _Running)
        if job.replies[place] is not None:
            raise CorpusError(
                f"request {item.request.id} was answered twice", "this is a bug in synthgen; please report it"
            )
        job.replies[place] = reply
        job.missing -= 1
        if not job.missing:
            replies = [one for one in job.replies if one is not None]
            job.answers += [answer_of(*pair) for pair in zip(job.queries, replies, strict=True)]
            self._go_on(job, replies)
            if len(self.callers) > 1:
                self.wake()

    async def committed(self) -> None:
        """Wait for running commits. Raises the error of a failed commit."""
        if self.commits:
            await asyncio.wait(set(self.commits))
        if self.error is not None:
            raise self.error

    def _begin(self, jobs: Jobs, shards: Sequence[Shard]) -> Iterator[bool]:
        """A generator that starts one job each time it is advanced. Jobs are started in the order of the shards."""
        for number, shard in enumerate(shards):
            size = shard.stop - shard.start
            self.open[number] = _Open(shard, [[] for _ in range(size)], size)
            for row, job in enumerate(jobs.one_by_one(shard.start, shard.stop)):
                self._go_on(_Running(number, row, self.run(job)), None)
                yield True

    def _go_on(self, job: _Running, replies: list[Reply] | None) -> None:
        try:
            wanted = next(job.rounds) if replies is None else job.rounds.send(replies)
        except StopIteration as done:
            self._ended(job, settled(done.value, job.answers))
            return
        job.queries, job.replies, job.missing = wanted, [None] * len(wanted), len(wanted)
        for place, query in enumerate(wanted):
            request = query.request
            call = self.callers[request.teacher].call(request)
            self.ready[request.teacher].append(Item((job, place), request, call))

    def _ended(self, job: _Running, outcomes: list[Outcome]) -> None:
        shard = self.open[job.shard]
        shard.outcomes[job.row] = outcomes
        shard.missing -= 1
        size = sum(_size(one) for one in outcomes)
        shard.held += size
        self.held += size
        self.output.gate.count(outcomes)
        if not shard.missing:
            task = asyncio.get_running_loop().create_task(self._commit(job.shard))
            self.commits.add(task)
            task.add_done_callback(self._committed)

    def _room(self) -> bool:
        """Whether another job may start. When only one shard is open and none is being committed, its jobs always
        start, because waiting would free no memory.
        """
        if len(self.open) <= 1 and not self.commits:
            return True
        return self.held < _HELD_BYTES and len(self.open) < _OPEN_SHARDS and len(self.commits) < _COMMITTING

    async def _commit(self, number: int) -> None:
        shard = self.open.pop(number)
        # One shard is written at a time, because a second thread would only compete for the interpreter lock.
        async with self.turn:
            await asyncio.to_thread(self.output.write, shard.shard, shard.outcomes)
        self.held -= shard.held
        failed = sum(isinstance(one, Failure) for several in shard.outcomes for one in several)
        self.output.bar.advance(len(shard.outcomes), failed=failed)

    def _committed(self, task: asyncio.Task[None]) -> None:
        self.commits.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = error if isinstance(error, Exception) else RuntimeError(str(error))
        self.wake()


def _size(one: Outcome) -> int:
    """The approximate size of an outcome in bytes."""
    if isinstance(one, Failure):
        return 256
    arrays = sum(value.nbytes for target in one.targets.values() for value in vars(target).values())
    return 2048 + len(one.record.text) + 32 * len(one.record.token_ids or ()) + arrays
