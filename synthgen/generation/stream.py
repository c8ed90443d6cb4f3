"""Generation with local engines that take single requests. No job or shard waits for another job or shard, so the
engines are always busy.

Each teacher has one loop for each request that it can answer in parallel. A loop takes the next request of any open
shard, awaits the reply, and continues the request's job. In the meantime, complete shards are committed. For an engine
that answers in batches, `synthgen.generation.rounds` runs the jobs of a shard in lockstep instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from synthgen.generation.division import Shard
from synthgen.generation.filling import Filling, Output
from synthgen.generation.jobs import Jobs
from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.teachers.base import Call, StreamingTeacher, Tick
from synthgen.teachers.gate import admitted

_NOTHING = Call(b"", b"", 0, 0, 0)


class _NoWire:
    """A `Caller` for local engines. This `Caller` makes empty `Call` objects, because local engines use the `Request`
    itself.
    """

    def call(self, request: Request) -> Call:
        return _NOTHING


def stream(
    jobs: Jobs,
    shards: Sequence[Shard],
    teachers: Mapping[str, StreamingTeacher],
    spec: LogitsSpec | None,
    output: Output,
) -> None:
    """Make `shards`. Raises GateDenied, TeacherError, and the error of a shard that cannot be written."""
    asyncio.run(_main(jobs, shards, teachers, spec, output))


async def _main(
    jobs: Jobs,
    shards: Sequence[Shard],
    teachers: Mapping[str, StreamingTeacher],
    spec: LogitsSpec | None,
    output: Output,
) -> None:
    filling = Filling(jobs, shards, dict.fromkeys(teachers, _NoWire()), output)
    news = asyncio.Event()
    filling.wake = news.set
    loops: list[asyncio.Task[None]] = []
    try:
        for name, teacher in teachers.items():
            for _ in range(await teacher.start()):
                loops.append(asyncio.create_task(_go_on(filling, news, (name, teacher), spec, output.bar.tokens)))
        await asyncio.gather(*loops)
    finally:
        for task in loops:
            task.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if filling.commits:
            await asyncio.wait(set(filling.commits))
    await filling.committed()


async def _go_on(
    filling: Filling,
    news: asyncio.Event,
    named: tuple[str, StreamingTeacher],
    spec: LogitsSpec | None,
    tick: Tick,
) -> None:
    """Send one request after another until all jobs are done."""
    name, teacher = named
    while not filling.finished:
        item = filling.take(name)
        if item is None:
            news.clear()
            await news.wait()
            continue
        reply = await teacher.ask(item.request, spec if item.request.target else None, tick)
        filling.deliver(item, admitted(item.request, reply))
        news.set()
