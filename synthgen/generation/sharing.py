"""A crew whose requests this process schedules. Its workers build the requests, send them, and write the shards. This
process decides when each request is sent. So the run has one budget, one pace, one ledger and one cache of paid
replies, exactly as on one machine.

A request is not tied to the worker that built it: any worker may send it. When the worker that built it has died, the
request is still sent, because another worker will build the same request again. That other worker then finds the reply
in the cache.

The API key is not sent to the workers. Each node reads the key from its own environment.
"""

from __future__ import annotations

import asyncio
import pickle
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

from synthgen.executor.messages import Worker
from synthgen.generation.away import Alive, Done, NotSent, Probe, Replied, Requests, Send, Sent
from synthgen.generation.crew import Crew, Identities, Member
from synthgen.generation.division import Shard
from synthgen.generation.filling import Gate
from synthgen.generation.remote import Remotes, go
from synthgen.generation.work import Item
from synthgen.requests import Request
from synthgen.teachers.base import Call, Refused, RemoteTeacher, Reply
from synthgen.ui import Progress

_OPEN = 64  # maximum number of open shards of a worker
_READY = 4096  # no further shard is opened while this many requests are ready to be sent
_HELD_BYTES = 256 << 20  # a worker gets no further shard while its rows in memory have more bytes than this


class _Body(bytes):
    """The body of a response, with the reply that the worker has read from it."""

    reply: Reply


class FarTeacher:
    """A teacher whose requests the workers of a crew send (see `synthgen.teachers.base.RemoteTeacher`). `real` is the
    same teacher in this process. It sends nothing.
    """

    def __init__(self, name: str, real: RemoteTeacher, crew: SharingCrew) -> None:
        self.name, self.real, self.crew = name, real, crew
        self.identity, self.can, self.paid = real.identity, real.can, real.paid

    def call(self, request: Request) -> Call:
        """The content to send for a request."""
        return self.real.call(request)

    async def send(self, call: Call) -> bytes:
        """Let a worker send the call. Raises Refused."""
        sent = await self.crew.sent(lambda number: Send(number, self.name, call.payload))
        assert isinstance(sent, Sent)
        body = _Body(sent.body)
        body.reply = sent.reply
        return body

    def read(self, request: Request, body: bytes) -> Reply:
        """The reply in a body. A worker has read the reply already, unless the body is from the cache."""
        return body.reply if isinstance(body, _Body) else self.real.read(request, body)

    async def alive(self) -> bool:
        """Whether the server responds to a worker."""
        return bool(await self.crew.sent(lambda number: Probe(number, self.name)))

    async def close(self) -> None:
        """Does nothing, because the connections belong to the workers."""


class SharingCrew(Crew):
    """The workers, and the requests that they have built. Implements the protocol `Work`."""

    def __init__(self, hire: Callable[[], Worker], workers: int, identities: Identities) -> None:
        super().__init__(hire, workers, identities)
        self.wake: Callable[[], None] = lambda: None
        self.ready: dict[str, deque[Item]] = defaultdict(deque)
        self.waiting = 0  # number of items in `ready`
        self._numbers = count()

    def share(self, shards: Sequence[Shard], bar: Progress, gate: Gate, remotes: Remotes) -> None:
        """Make the shards. `remotes` schedules the requests. Raises the errors of `Remotes.fill` and of workers."""

        async def main() -> None:
            async with self.at_work():
                for member in self.members:
                    self.next(member)
                watching = asyncio.create_task(self._watch())
                try:
                    await remotes.run(self)
                finally:
                    watching.cancel()
            if self.error is not None:
                raise self.error

        self.expect(shards, bar, gate)
        go(main())

    @property
    def finished(self) -> bool:
        """Whether all shards are committed."""
        return not self.undone

    def take(self, teacher: str) -> Item | None:
        """The next request for a teacher. When there is none, another shard is opened. Raises the errors of workers."""
        ready = self.ready[teacher]
        if self.error is not None:
            raise self.error
        if not ready:
            self._open()
            return None
        self.waiting -= 1
        return ready.popleft()

    def deliver(self, item: Item, reply: Reply) -> None:
        """Pass a reply to the worker that built the request. If that worker has died, the reply is not needed now."""
        member, number = item.place
        assert isinstance(member, Member)
        if not member.dead:
            member.worker.put(Replied(number, reply))

    async def sent(self, message: Callable[[int], Send | Probe]) -> Sent | bool:
        """Send a message to the worker with the fewest requests in flight, and wait for the worker's answer. Raises
        Refused.
        """
        while not (able := [member for member in self.members if member.ready]):
            await asyncio.sleep(0.1)
            if self.error is not None:
                raise self.error
        member = min(able, key=lambda one: len(one.sending))
        number = next(self._numbers)
        future: asyncio.Future[Sent | bool] = asyncio.get_running_loop().create_future()
        member.sending[number] = future
        member.worker.put(message(number))
        try:
            return await future
        finally:
            member.sending.pop(number, None)

    def hear(self, member: Member, message: object) -> None:
        """Handle a message of a worker."""
        if isinstance(message, Requests):
            member.opening, member.held = False, message.held
            for number, name, request, call in message.requests:
                content = pickle.dumps((request, call))
                self.ready[name].append(Item((member, number), request, replace(call, payload=content)))
            self.waiting += len(message.requests)
            self.wake()
        elif isinstance(message, Sent):
            self._answer(member, message.number, message)
        elif isinstance(message, Alive):
            self._answer(member, message.number, message.alive)
        elif isinstance(message, NotSent):
            future = member.sending.get(message.number)
            if future is not None and not future.done():
                future.set_exception(Refused(**message.refused))  # type: ignore[arg-type]
        else:
            super().hear(member, message)
            if isinstance(message, Done):
                member.opening = member.opening and bool(member.open)
                self.wake()

    def assign(self, member: Member) -> None:
        """Give the next shard of the plan to a worker, which then builds the shard's requests."""
        member.opening = True
        super().assign(member)

    def gone(self, member: Member, reason: str) -> None:
        """Expect nothing more from a worker. The requests that the worker was sending may be billed, and are sent
        again.
        """
        super().gone(member, reason)
        for future in member.sending.values():
            if not future.done():
                future.set_exception(Refused("connection", reason, retry=True, billed=True, lost=True))
        self.wake()

    def fail(self, error: Exception) -> None:
        """Stop the run with this error."""
        super().fail(error)
        self.wake()

    def _answer(self, member: Member, number: int, answer: Sent | bool) -> None:
        future = member.sending.get(number)
        if future is not None and not future.done():
            future.set_result(answer)

    def _open(self) -> None:
        """Open another shard at the worker with the fewest open shards, if memory allows."""
        if not self.plan or self.waiting >= _READY:
            return
        able = [
            one
            for one in self.members
            if one.ready and not one.opening and len(one.open) < _OPEN and (one.held < _HELD_BYTES or not one.open)
        ]
        if able:
            self.assign(min(able, key=lambda one: len(one.open)))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.look()
