"""Runs the scheduler of a remote teacher with scripted replies and a clock that skips all waiting.

done = schedule({"a": [busy(after=5), "ok"], "b": ["ok"]}, max_in_flight=1)    # done.sent, done.delivered, …
"""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any

import pytest

from synthgen.generation import scheduler as module
from synthgen.generation.account import Account
from synthgen.generation.budget import Budget
from synthgen.generation.ledger import Spent
from synthgen.generation.limits import Limits
from synthgen.generation.prices import Prices
from synthgen.generation.scheduler import Scheduler
from synthgen.generation.work import Item
from synthgen.teachers.base import Bill, Call, Refused, Reply

START = 1000.0
PROMPT, COMPLETION = 10, 5
"""The tokens of each request. The upper bound of the prompt's tokens is twice PROMPT."""


class Clock(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next event when no task can run. Each round takes 10 nanoseconds."""

    now = START

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        self.now += 1e-8
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0]._when)
        super()._run_once()


class Scripted:
    """A teacher. `script` maps a question to the outcomes of its tries; the last outcome repeats. An outcome is 'ok', a
    Refused, a Reply, or (seconds, outcome) for an outcome that comes after these seconds.
    """

    identity = {"model": "m", "base_url": "http://host.test/v1"}
    can = frozenset[str]()
    paid = True

    def __init__(self, script: dict[str, list[Any]], living: bool, clock: Clock) -> None:
        self.script, self.living, self.clock = script, living, clock
        self.sent: list[tuple[str, float]] = []
        self.probes = 0

    async def send(self, call: Call) -> bytes:
        question = call.payload.decode()
        tries = sum(name == question for name, _ in self.sent)
        self.sent.append((question, round(self.clock.now - START, 4)))
        steps = self.script[question]
        step = steps[min(tries, len(steps) - 1)]
        if isinstance(step, tuple):
            await asyncio.sleep(step[0])
            step = step[1]
        if isinstance(step, Refused):
            raise step
        self.reply = step
        return f"{tries}".encode()

    def read(self, request: Any, body: bytes) -> Reply:
        return answered() if self.reply == "ok" else self.reply

    async def alive(self) -> bool:
        self.probes += 1
        return self.living

    async def close(self) -> None: ...


class Questions:
    """The questions in order, and what was delivered for each. If an entry of `names` is an error, the error is raised
    when its turn comes.
    """

    def __init__(self, names: list[str | Exception]) -> None:
        self.waiting = list(names)
        self.taken = 0
        self.delivered: dict[str, list[str]] = {}

    @property
    def finished(self) -> bool:
        return not self.waiting

    def take(self, teacher: str) -> Item | None:
        if not self.waiting:
            return None
        self.taken += 1
        name = self.waiting.pop(0)
        if isinstance(name, Exception):
            raise name
        call = Call(name.encode(), name.encode(), PROMPT, 2 * PROMPT, COMPLETION)
        return Item((None, self.taken), None, call)

    def deliver(self, item: Item, reply: Reply) -> None:
        said = reply.failure[0] if reply.failure else reply.text
        self.delivered.setdefault(item.call.payload.decode(), []).append(said)


def answered(completion: int | None = COMPLETION, prompt: int | None = PROMPT, **more: Any) -> Reply:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": None}
    return Reply(text="fine", finish_reason="stop", usage=usage, **more)


def of_tier(tier: str | None) -> Reply:
    return answered(bill=Bill(None, None, tier))


def broken(kind: str, **more: Any) -> Reply:
    return Reply(failure=(kind, "no use"), **more)


def busy(after: float | None = None) -> Refused:
    return Refused("rate", "slow down", pace=True, retry=True, after=after)


def failing(after: float | None = None, kind: str = "server", retry: bool = True, **more: Any) -> Refused:
    return Refused(kind, "broken", retry=retry, after=after, **more)


def schedule(
    script: dict[str, list[Any]],
    *,
    asked: list[str | Exception] | None = None,
    living: bool = True,
    error: type[Exception] | None = None,
    match: str | None = None,
    budget: Budget | None = None,
    prices: Prices | None = None,
    **limits: Any,
) -> SimpleNamespace:
    """Asks every question of the script, or only the questions in `asked`. Returns an object with `sent`, a list of
    (question, seconds since the start), and with `delivered`, `work`, `seconds`, `probes`, `error` and `scheduler`.
    Random waits are as long as possible.
    """
    clock = Clock()
    teacher = Scripted(script, living, clock)
    work = Questions(asked or list(script))
    found = SimpleNamespace(sent=teacher.sent, delivered=work.delivered, work=work, error=None)

    async def run() -> None:
        account = Account(teacher, None, budget=budget or Budget(None, None, Spent()), prices=prices, ledger=None)
        found.scheduler = Scheduler("t", work, account, Limits(**limits))
        await found.scheduler.run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(monotonic=clock.time))
        patch.setattr(random, "random", lambda: 1.0)
        try:
            if error is None:
                clock.run_until_complete(run())
            else:
                with pytest.raises(error, match=match) as caught:
                    clock.run_until_complete(run())
                found.error = caught.value
        finally:
            clock.close()
    found.seconds, found.probes = clock.now - START, teacher.probes
    return found
