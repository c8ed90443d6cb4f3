"""Keeping a remote teacher full: a loop for each that sends, waits, keeps, retries, and stops in a clear state.

The loop takes the next request (one that is due again first, else a new one), answers it from the cache if it
can, and sends it when concurrency, quota, budget and the server's own word allow. There are no barriers: a slow
answer holds nothing up but its own shard. A reply is handed on once it is durable; until then it occupies its
place in flight, so that a kill can lose no more than the in-flight limit.

What can go wrong ends in one of three ways: the request is asked again (bounded in number and in time), it
becomes a typed failure, or the run stops because no request can succeed: the budget is reached, the key is
wrong, the server is dead.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from synthgen.errors import SynthgenError, TeacherError, UserError
from synthgen.generation.budget import PICO, Budget, Prices
from synthgen.generation.cache import Cache, Entry, Spent
from synthgen.generation.pacing import Concurrency, Quota, backoff
from synthgen.requests import Request
from synthgen.teachers.base import Call, Refused, RemoteTeacher, Reply

_PATIENCE = 600.0  # seconds without one answer from a server that only refuses; and the longest wait it may ask for
_DOUBT = 3  # requests given up in a row, with no answer between them: is the server there at all?
_DEAD = 20  # … and when it is, but answers none
_HOPELESS = 20  # refused in a row, with no answer ever
_PAID_TRIES = 3  # for answers that came and are no use: each was paid
_LOOK = 0.5  # seconds between looks at a budget that is all reserved
_AHEAD = 16  # requests looked up in the cache together
_TURN = 32  # cached rows before others get a turn
_KEPT = ("bad_request", "context", "content_filter", "schema", "empty", "too_large")  # would be the same again


@dataclass(slots=True)
class Item:
    """One request on its way; `place` is its sender's word for where the reply belongs."""

    place: Any
    request: Request
    call: Call
    tries: int = 0
    paid_tries: int = 0
    began: float = 0.0
    answers: int = 0  # successes of the run when it was first sent


@dataclass
class Live:
    """What a view shows; amounts in dollars, None when prices are unknown."""

    in_flight: int = 0
    limit: int = 0
    idle: str = ""
    usd: float | None = 0.0
    sent: int = 0
    cached: int = 0
    refused: int = 0
    retried: int = 0
    made: int = 0
    failures: dict[str, int] = field(default_factory=dict)


class Work(Protocol):
    """Where requests come from and replies go; schedulers of several teachers may share it."""

    def take(self, teacher: str) -> Item | None:
        """The next request for a teacher; None when there is none now."""

    @property
    def finished(self) -> bool:
        """Whether none will ever come again."""

    def deliver(self, item: Item, reply: Reply) -> None:
        """A reply, once for each item. May raise to stop the run."""


class BudgetReached(UserError):
    """The next request could cost more than the budget has left."""


class Scheduler:
    """Asks `teacher`, whose name is `name`, for every item that `work` has for it. `run` is the ledger's name of
    this run. Raises what `work` raises, BudgetReached, TeacherError.
    """

    def __init__(
        self,
        name: str,
        teacher: RemoteTeacher,
        work: Work,
        cache: Cache | None,
        *,
        run: str,
        budget: Budget,
        prices: Prices | None,
        max_in_flight: int,
        rpm: int | None = None,
        tpm: int | None = None,
        timeout: float = 300.0,
        attempts: int = 5,
    ) -> None:
        self.name, self.teacher, self.work = name, teacher, work
        self.cache, self.run_name, self.budget, self.prices = cache, run, budget, prices
        self.timeout, self.attempts = timeout, attempts
        self.pace = Concurrency(max_in_flight)
        self.quota = Quota(rpm, tpm, time.monotonic())
        self.model = str(teacher.identity["model"])
        self.live = Live(usd=None if prices is None else budget.spent.usd / PICO)
        self._ahead: deque[Item] = deque()  # taken, and not begun
        self._kept: dict[bytes, Entry] = {}  # what the cache held for these when it was read
        self._since: set[bytes] = set()  # keys of what has been put there since
        self._waiting: list[tuple[float, int, Item]] = []  # heap of those due again
        self._flying: dict[bytes, list[Item]] = {}  # by key; further ones that asked the same
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._count = 0
        self._resume_at = 0.0  # the server asked for quiet until then
        self._refusals = 0  # 429s since the last success
        self._answers = 0
        self._hopeless = 0
        self._given_up = 0
        self._last_answer = time.monotonic()
        self._stop: Exception | None = None

    async def run(self) -> None:
        """Until every item is delivered. On an error, what is in flight is awaited, kept, and the error raised."""
        try:
            while self._stop is None:
                item: Item | None = None
                again = bool(self._waiting) and self._waiting[0][0] <= time.monotonic()
                if again:
                    item = heapq.heappop(self._waiting)[2]
                elif self._open():
                    item = self._next()
                if item is not None:
                    await self._begin(item, again)
                elif not (self._waiting or self._tasks) and self.work.finished:
                    break
                else:
                    due = self._waiting[0][0] - time.monotonic() if self._waiting else None
                    why = "server slow" if self._tasks else "retries" if self._waiting else "no question yet"
                    await self._pause(why, due)
        except SynthgenError as error:
            self._stop = self._stop or error
        except BaseException:
            for task in self._tasks:
                task.cancel()
            raise
        while self._tasks:
            self.live.idle = "stopping"
            await asyncio.wait(set(self._tasks))
        if self._stop is not None:
            raise self._stop

    def wake(self) -> None:
        """There may be work or room again."""
        self._wake.set()

    def stop(self, error: Exception) -> None:
        """End with this error, after what is in flight."""
        self._stop = self._stop or error
        self._wake.set()

    def _open(self) -> bool:
        """New requests may begin while not too many wait to be asked again."""
        return len(self._waiting) < 4 * self.pace.most

    def _next(self) -> Item | None:
        """The next new request. Some are taken at a time, so that the cache is read once for all of them."""
        if not self._ahead:
            while len(self._ahead) < _AHEAD and (item := self.work.take(self.name)) is not None:
                self._ahead.append(item)
            self._since.clear()
            if self._ahead and self.cache and self.teacher.paid:
                self._kept = self.cache.find([item.call.key for item in self._ahead])
        return self._ahead.popleft() if self._ahead else None

    def _look_up(self, item: Item, again: bool) -> Entry | None:
        """What the cache holds for a new request, or one that waited before it was ever sent (`again`)."""
        if self.cache is None or not self.teacher.paid or item.tries:
            return None
        if again or item.call.key in self._since:
            return self.cache.get(item.call.key)
        return self._kept.get(item.call.key)

    async def _begin(self, item: Item, again: bool) -> None:
        """Answer from the cache, join an identical request in flight, or send when all limits allow."""
        self._count += 1
        if self._count % _TURN == 0:
            await asyncio.sleep(0)
        kept = self._look_up(item, again)
        if kept is not None:
            self.live.cached += 1
            self._finish(item, self._from_entry(item, kept))
            return
        if item.call.key in self._flying:
            self._flying[item.call.key].append(item)
            return
        most = self._most(item.call)
        if not await self._admit(item, most):
            return
        self.budget.hold(most)
        reserved = self.quota.reserve(item.call.prompt_tokens + item.call.most_completion)
        self._flying[item.call.key] = []
        self.live.in_flight += 1
        if not item.tries:
            item.began, item.answers = time.monotonic(), self._answers
        task = asyncio.create_task(self._attempt(item, most, reserved))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.live.in_flight -= 1
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop = self._stop or (error if isinstance(error, Exception) else RuntimeError(str(error)))

    async def _admit(self, item: Item, most: Spent) -> bool:
        """Wait until the request may go; False when the run stops instead."""
        while self._stop is None:
            now = time.monotonic()
            self.live.limit = int(self.pace.limit)
            wait, why = self.quota.wait(item.call.prompt_tokens + item.call.most_completion, now)
            if self.live.in_flight >= int(self.pace.limit):
                await self._pause("")  # full: nothing idles
            elif self._resume_at > now:
                await self._pause("retry-after", self._resume_at - now)
            elif not self.budget.fits(most):
                if not self.budget.holds:
                    self._stop = self._out_of_budget()
                    return False
                await self._pause("budget", _LOOK)  # another teacher's reply may give some back
            elif wait > 0:
                await self._pause(why, wait)
            else:
                self.live.idle = ""
                return True
        return False

    async def _pause(self, why: str, seconds: float | None = None) -> None:
        """Until something ends, or for `seconds`."""
        self.live.idle = why
        self._wake.clear()
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _attempt(self, item: Item, most: Spent, reserved: float) -> None:
        """Send once. Whatever comes, the reservation is settled and the item delivered or queued again."""
        sent = time.monotonic()
        item.tries += 1
        self.live.sent += 1
        ticket = await self._reserve(most)
        try:
            async with asyncio.timeout(self.timeout + 5):  # the teacher's own limit comes first
                body = await self.teacher.send(item.call)
        except (Refused, TimeoutError) as problem:
            if isinstance(problem, TimeoutError):
                problem = Refused("timeout", f"no answer in {self.timeout:g} s", retry=True, billed=True)
            spent = most if problem.billed else Spent()
            self.quota.correct(reserved, 0, None if problem.billed or problem.pace else 0)
            await self._refused(item, problem, sent, most, spent, ticket)
            return
        reply = self.teacher.read(item.request, body)
        used = None
        if reply.usage is not None:
            used = int(reply.usage["prompt_tokens"] or 0) + int(reply.usage["completion_tokens"] or 0)
        self.quota.correct(reserved, item.call.prompt_tokens + item.call.most_completion, used)
        spent = most if used is None else Spent(self._cost(reply), used)
        reply = self._priced(reply)
        if reply.failure is None or reply.failure[0] == "content_filter":
            self._answered()
        elif reply.failure[0] in ("schema", "empty"):
            item.paid_tries += 1
            if item.paid_tries < _PAID_TRIES and self._may_retry(item):
                await self._keep(most, spent, ticket)
                self._again(item, backoff(item.paid_tries))
                return
        await self._keep(most, spent, ticket, (item.call.key, Entry(body, reply.failure)))
        self._landed(item, reply)

    async def _refused(
        self, item: Item, problem: Refused, sent: float, most: Spent, spent: Spent, ticket: int | None
    ) -> None:
        now = time.monotonic()
        if problem.fatal:
            await self._keep(most, spent, ticket)
            self._drop(item)
            raise TeacherError(
                f"{self._where()} refuses every request: {problem.reason}",
                "mend that, then give the same command; what is committed or in the cache is not asked again",
            )
        if problem.pace:
            await self._keep(most, spent, ticket)
            self.live.refused += 1
            item.tries -= 1
            self.pace.refused(sent, self.live.in_flight, now)
            self._slow_down(item, problem, now)
            return
        if problem.retry and self._may_retry(item):
            await self._keep(most, spent, ticket)
            self._again(item, max(backoff(item.tries), min(problem.after or 0.0, self.timeout)))
            return
        failure = (problem.kind, problem.reason)
        kept = None
        if problem.retry:
            await self._gave_up(item, problem)
        elif not self._answers:
            self._hopeless += 1
            if self._hopeless >= _HOPELESS:
                self._stop = self._stop or TeacherError(
                    f"{self._where()} refused the first {_HOPELESS} requests: {problem.reason}",
                    "teacher.extra adds a parameter, or takes one out with null (top_p: null)",
                )
        elif problem.kind in _KEPT:
            kept = (item.call.key, Entry(None, failure))
        await self._keep(most, spent, ticket, kept)
        if self._stop is None:
            self._landed(item, Reply(failure=failure))
        else:
            self._drop(item)

    def _slow_down(self, item: Item, problem: Refused, now: float) -> None:
        """The server wants quiet: for as long as it says, else longer with every refusal in a row."""
        self._refusals += 1
        wait = problem.after if problem.after is not None else backoff(min(self._refusals, 7)) / 2
        self._resume_at = max(self._resume_at, now + min(wait, _PATIENCE))
        if wait > _PATIENCE or now - max(self._last_answer, item.began) > _PATIENCE:
            self._stop = self._stop or TeacherError(
                f"{self._where()} asks to wait {wait:.0f} s, after {self._refusals} refusals in a row: "
                f"{problem.reason}",
                "give the same command later; what is committed or in the cache is not asked again",
            )
        self._again(item, 0.0)

    def _may_retry(self, item: Item) -> bool:
        return item.tries < self.attempts and time.monotonic() - item.began < 3 * self.timeout

    async def _gave_up(self, item: Item, problem: Refused) -> None:
        """A request has used up its tries. Several in a row and no answer since: it may be the server, not they."""
        self._given_up += 1
        if self._given_up < _DOUBT or self._answers != item.answers:
            return
        if self._given_up >= _DEAD or not await self.teacher.alive():
            self._stop = self._stop or TeacherError(
                f"{self._where()} is not answering; last: {problem.reason}",
                "see that it is up, then give the same command; what is committed or in the cache is not asked again",
            )

    def _again(self, item: Item, after: float) -> None:
        self.live.retried += 1
        for one in [item, *self._flying.pop(item.call.key, [])]:
            self._count += 1
            heapq.heappush(self._waiting, (time.monotonic() + after, self._count, one))

    def _drop(self, item: Item) -> None:
        self._flying.pop(item.call.key, None)

    def _answered(self) -> None:
        self._answers += 1
        self._given_up = self._refusals = self._hopeless = 0
        self._last_answer = time.monotonic()
        self.pace.success()

    def _landed(self, item: Item, reply: Reply) -> None:
        """Deliver to the item and to all that asked the same."""
        others = self._flying.pop(item.call.key, [])
        self._finish(item, reply)
        for other in others:
            self.live.cached += 1
            self._finish(other, reply)

    def _finish(self, item: Item, reply: Reply) -> None:
        if reply.failure is not None:
            self.live.failures[reply.failure[0]] = self.live.failures.get(reply.failure[0], 0) + 1
        self.live.made += int((reply.usage or {}).get("completion_tokens") or 0)
        self.work.deliver(item, reply)

    def _from_entry(self, item: Item, kept: Entry) -> Reply:
        if kept.failure is not None:
            return Reply(failure=kept.failure)
        return self._priced(self.teacher.read(item.request, kept.body or b""))

    async def _reserve(self, most: Spent) -> int | None:
        """Under a budget the reservation is on the disk before the request is on the wire."""
        if self.cache is None or not self.budget.limited:
            return None
        ticket, statement = self.cache.reserve(self.run_name, most)
        await self.cache.commit([statement])
        return ticket

    async def _keep(
        self, most: Spent, spent: Spent, ticket: int | None, entry: tuple[bytes, Entry] | None = None
    ) -> None:
        """Settle the reservation, and make the reply durable, in one commit."""
        self.budget.settle(most, spent)
        self.live.usd = None if self.prices is None else self.budget.spent.usd / PICO
        if self.cache is None:
            return
        statements = self.cache.settle(self.run_name, ticket, spent)
        if entry is not None and self.teacher.paid:
            statements.append(self.cache.put(*entry, self.model))
        if statements:
            await self.cache.commit(statements)
        if entry is not None:  # not before: a reading in the meantime did not see it
            self._since.add(entry[0])

    def _most(self, call: Call) -> Spent:
        usd = self.prices.most(call.most_prompt, call.most_completion) if self.prices else 0
        return Spent(usd, call.most_prompt + call.most_completion)

    def _cost(self, reply: Reply) -> int:
        if self.prices is None or reply.usage is None:
            return 0
        return int(self.prices.cost({key: value or 0 for key, value in reply.usage.items()}) * reply.price_share)

    def _priced(self, reply: Reply) -> Reply:
        if self.prices is None or (reply.usage is None and self.teacher.paid):
            return replace(reply, cost_usd=None)
        return replace(reply, cost_usd=self._cost(reply) / PICO)

    def _where(self) -> str:
        return f"the server at {self.teacher.identity.get('base_url', self.model)}"

    def _out_of_budget(self) -> BudgetReached:
        return BudgetReached(
            f"the budget is reached: {self.budget.said()} spent, and the next request could cost more than is left",
            "go on with more: raise generate.budget, or --budget, and give the same command; what was paid is kept",
        )
