"""The workers of a cluster that make the shards of a run. They run the functions of `synthgen.generation.away`.

When a worker dies, its unfinished shards are made again by other workers, and a new worker is started, which begins as
soon as a machine has room for it. `Crew` is for workers that make shards alone. The crew in
`synthgen.generation.sharing` is for workers whose requests this process schedules.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from synthgen import corpus
from synthgen.errors import SynthgenError, TeacherError, UserError
from synthgen.executor.messages import Worker, WorkerDied
from synthgen.generation.away import Advanced, Begun, Done, Failed, Make, Ready, Sent, Tokens, visible
from synthgen.generation.division import Shard
from synthgen.generation.filling import Gate
from synthgen.teachers.base import Identity
from synthgen.ui import Progress

_DEATHS = 5  # the run stops after so many deaths of workers during one shard, or while they open the teachers
_ROOM = 120.0  # the run stops when no machine had room for any worker for so many seconds
_LOOK = 0.5  # seconds between two looks at the workers

Identities = dict[str, Identity]
"""The identities of the teachers, by name."""


@dataclass(eq=False)
class Member:
    """A worker, and what it is doing. `open` holds its unfinished shards by name. `held` is the size in bytes of the
    rows that the worker holds in memory. `opening` is true while the worker has not yet built the requests of its
    newest shard. `sending` holds the futures of the requests that the worker is sending.
    """

    worker: Worker
    begun: bool = False
    ready: bool = False
    dead: bool = False
    opening: bool = False
    held: int = 0
    open: dict[str, Shard] = field(default_factory=dict)
    sending: dict[int, asyncio.Future[Sent | bool]] = field(default_factory=dict)


class Crew:
    """Workers that make shards alone, one shard at a time each.

    `hire` starts a worker, and `count` is the number of workers. `identities` are the identities that the teachers must
    have. When `identities` is None, `meet` learns the identities from the first worker. Close the object after use.
    """

    def __init__(self, hire: Callable[[], Worker], count: int, identities: Identities | None = None) -> None:
        self.hire, self.identities = hire, identities
        self.plan: deque[Shard] = deque()
        self.undone: set[str] = set()
        self.deaths: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()  # the failures that were counted for each unfinished shard
        self.error: Exception | None = None
        self.bar = Progress("", 0, "")
        self.gate: Gate | None = None
        self.folder = Path()  # RUN/generated, in which the workers write shards
        self.made_from = ""  # the hash of the inputs for which `folder` is claimed
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen = time.monotonic()
        self.members = [Member(hire()) for _ in range(count)]

    def close(self) -> None:
        """End all workers."""
        for member in self.members:
            member.worker.close()

    def meet(self) -> Identities:
        """Wait until one worker has opened the teachers. Returns their identities. Raises the errors of workers."""

        async def main() -> Identities:
            async with self.at_work():
                while self.identities is None:
                    await self.changed()
            return self.identities

        return asyncio.run(main())

    def make(self, shards: Sequence[Shard], bar: Progress, gate: Gate) -> None:
        """Make the shards. Raises GateDenied, and the errors of workers."""

        async def main() -> None:
            async with self.at_work():
                for member in self.members:
                    self.next(member)
                while self.undone:
                    await self.changed()

        self.expect(shards, bar, gate)
        asyncio.run(main())

    def expect(self, shards: Sequence[Shard], bar: Progress, gate: Gate) -> None:
        """Set the shards to make, the progress bar, and the gate that counts failures. Set `folder` before."""
        self.made_from = corpus.inputs_hash(self.folder)
        self.plan, self.undone, self.bar, self.gate = deque(shards), {shard.name for shard in shards}, bar, gate

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """A context in which messages of the workers are handled."""
        self._news = asyncio.Event()
        self._seen = time.monotonic()
        for member in self.members:
            self._attend(member)
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()

    async def changed(self) -> None:
        """Wait until something has changed, but at most `_LOOK` seconds. Raises the error that stops the run."""
        self._news.clear()
        if self.error is None:
            try:
                async with asyncio.timeout(_LOOK):
                    await self._news.wait()
            except TimeoutError:
                pass
        self.look()
        if self.error is not None:
            raise self.error

    def look(self) -> None:
        """Stop the run when no machine has had room for a worker for a long time."""
        if any(member.begun for member in self.members):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > _ROOM:
            self.fail(
                UserError(
                    f"for {_ROOM:.0f} s, no node of the cluster had room for a worker",
                    "a worker needs one CPU core, and a GPU if the teacher is local and the cluster has GPUs; the same "
                    "command continues",
                )
            )

    def fail(self, error: Exception) -> None:
        """Stop the run with this error."""
        self.error = self.error or error
        self._news.set()

    def assign(self, member: Member) -> None:
        """Give the next shard of the plan to a worker."""
        shard = self.plan.popleft()
        member.open[shard.name] = shard
        member.worker.put(Make(shard, self.made_from))

    def next(self, member: Member) -> None:
        """Give a shard to a worker that has none."""
        if member.ready and not member.dead and not member.open and self.plan:
            self.assign(member)

    def hear(self, member: Member, message: object) -> None:
        """Handle a message of a worker. Raises GateDenied and TeacherError."""
        member.begun = True
        if isinstance(message, Ready):
            if self.identities is None:
                self.identities = message.identities
            elif message.identities != self.identities:
                other = _difference(self.identities, message)
                raise TeacherError(
                    f"a node of the cluster opened another teacher than expected: {other}",
                    "every node must have the same models and packages",
                )
            member.ready = True
            self.deaths.pop("", None)
            self.next(member)
        elif isinstance(message, Advanced):
            self.bar.advance(message.jobs, failed=message.failed)
        elif isinstance(message, Tokens):
            self.bar.tokens(message.number)
        elif isinstance(message, Failed) and self.gate is not None:
            before = self.gate.failed
            try:
                self.gate.count(message.failures)
            finally:
                self.failed[message.shard] += self.gate.failed - before
        elif isinstance(message, Done):
            member.open.pop(message.shard, None)
            self.failed.pop(message.shard, None)
            self._run(self._see(message.shard))
            self.next(member)
        elif not isinstance(message, Begun):
            raise TypeError(f"unexpected message {message!r}")

    def lost(self, member: Member, reason: str) -> None:
        """A worker has died. Its shards go back to the beginning of the plan, and a new worker is started."""
        ready = member.ready
        self.gone(member, reason)
        self.members.remove(member)
        member.worker.close()  # the worker may still run if only the network to its machine failed
        shards = list(member.open.values())
        self.plan.extendleft(reversed(shards))
        for name in [shard.name for shard in shards] or ([] if ready else [""]):
            self.deaths[name] += 1
            if self.gate is not None:
                self.gate.failed -= self.failed.pop(name, 0)
            if self.deaths[name] >= _DEATHS:
                during = f"while they made shard {name}" if name else "while they opened the teachers"
                self.fail(
                    UserError(
                        f"workers of the cluster died {_DEATHS} times {during}; the last reason: {reason}",
                        "they may have run out of memory; the same command continues",
                    )
                )
        if self.error is None:
            self.members.append(Member(self.hire()))
            self._attend(self.members[-1])
            for other in self.members:
                self.next(other)

    def gone(self, member: Member, reason: str) -> None:
        """Expect nothing more from a worker, for this reason."""
        member.dead, member.ready = True, False

    def seen(self, shard: str) -> None:
        """A shard is complete, and its file is visible here."""
        self.undone.discard(shard)
        self._news.set()

    async def _see(self, shard: str) -> None:
        try:
            await visible(self.folder / "data" / f"{shard}.parquet")
        except UserError as error:
            self.fail(error)
        else:
            self.seen(shard)

    def _attend(self, member: Member) -> None:
        self._run(self._listen(member))

    def _run(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self, member: Member) -> None:
        """Handle the messages of a worker until it dies."""
        while True:
            try:
                messages = await member.worker.get()
            except WorkerDied as died:
                try:
                    self.lost(member, str(died))
                except Exception as error:  # no other worker can be started
                    self.fail(error)
                self._news.set()
                return
            except Exception as error:
                if isinstance(error, SynthgenError) and not member.ready:
                    error.message = f"on a node of the cluster: {error.message}"
                self.fail(error)
                self.gone(member, str(error))
                return
            try:
                for message in messages:
                    self.hear(member, message)
            except Exception as error:
                self.fail(error)
            self._news.set()


def _difference(expected: Identities, found: Ready) -> str:
    """The first key that differs between two sets of identities, with both values."""
    for name, identity in expected.items():
        for key, value in identity.items():
            other = dict(found.identities.get(name) or {}).get(key)
            if other != value:
                return f"'{name}' has {key} {other}, not {value}"
    return "the names differ"
