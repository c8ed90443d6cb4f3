"""Schedules the requests of a remote teacher. A loop for each teacher sends requests, waits, stores replies, retries,
and stops in a well-defined state.

The loop takes the next request: one that is due for a retry, otherwise a new one. It answers the request from the cache
if possible. Otherwise it sends the request when concurrency, quota, budget and the server's waiting time allow. There
are no barriers: a slow answer delays only its own shard. A reply is delivered after it is durable. Until then it counts
as in flight, so a kill loses no more requests than the in-flight limit.

Every problem ends in one of three ways. The request is sent again (with limits of number and time), it becomes a typed
failure, or the run stops because no request can succeed (budget reached, invalid key, dead server).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from dataclasses import dataclass, fields

from synthgen.errors import SynthgenError, TeacherError
from synthgen.generation.account import Account
from synthgen.generation.cache import Entry, Spent
from synthgen.generation.pacing import Concurrency, Quota, backoff
from synthgen.generation.work import BudgetReached, Item, Live, Work
from synthgen.teachers.base import Refused, Reply

# seconds to wait without an answer from a server that only refuses; also the longest wait that a server may ask for
_PATIENCE = 600.0
_DOUBT = 3  # requests in a row without an answer that used up their tries; the server is then probed
_DEAD = 20  # the same; the run then stops even if the server responds to the probe
_HOPELESS = 20  # refusals in a row, before any answer
_PAID_TRIES = 3  # tries when replies are useless, since each of them is paid
_LOOK = 0.5  # seconds between checks of a budget that is fully reserved
_AHEAD = 16  # number of requests in one cache lookup
_TURN = 32  # cached rows delivered before other tasks get a turn
# kinds of failure that would occur again, so they are cached
_KEPT = ("bad_request", "context", "content_filter", "schema", "empty", "too_large")


@dataclass(frozen=True)
class Limits:
    """Limits of a teacher: requests in flight, requests and tokens a minute, seconds to wait for an answer, and retries
    of a failed request.
    """

    max_in_flight: int = 64
    rpm: int | None = None
    tpm: int | None = None
    timeout: float = 300.0
    max_retries: int = 4

    @classmethod
    def of(cls, section: object) -> Limits:
        """The limits in a teacher's section, with defaults for the others."""
        named = [field.name for field in fields(cls) if hasattr(section, field.name)]
        return cls(**{name: getattr(section, name) for name in named})


@dataclass(frozen=True)
class _Reservation:
    """The maximum and the actual cost of a request, and the ledger's id of its reservation."""

    most: Spent
    spent: Spent
    ticket: int | None


class Scheduler:
    """Sends every item that `work` has for one teacher. `name` is the teacher's name, and the account belongs to it.

    `run` raises BudgetReached, TeacherError and the errors of `work`.
    """

    def __init__(self, name: str, work: Work, account: Account, limits: Limits) -> None:
        self.name, self.work, self.account, self.limits = name, work, account, limits
        self.teacher, self.budget = account.teacher, account.budget
        self.pace = Concurrency(limits.max_in_flight)
        self.quota = Quota(limits.rpm, limits.tpm, time.monotonic())
        self.live = Live(usd=account.usd)
        self._ahead: deque[Item] = deque()  # taken but not started
        self._waiting: list[tuple[float, int, Item]] = []  # heap of items that wait for a retry
        # requests in flight by key; later items of the same key wait for the first
        self._flying: dict[bytes, list[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._count = 0
        self._resume_at = 0.0  # the server asked not to be called before this time
        self._refusals = 0  # 429 responses since the last success
        self._answers = 0
        self._hopeless = 0
        self._given_up = 0
        self._last_answer = time.monotonic()
        self._stop: Exception | None = None

    async def run(self) -> None:
        """Run until every item is delivered. On an error, wait for requests in flight, store their replies, and raise
        the error.
        """
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
        """Signal that new work or capacity may be available."""
        self._wake.set()

    def stop(self, error: Exception) -> None:
        """Stop with this error after the requests in flight have ended."""
        self._stop = self._stop or error
        self._wake.set()

    def _open(self) -> bool:
        """Whether new requests may start; false when too many wait for a retry."""
        return len(self._waiting) < 4 * self.pace.most

    def _next(self) -> Item | None:
        """The next new request. Several are taken together, so that one cache query serves them all."""
        if not self._ahead:
            while len(self._ahead) < _AHEAD and (item := self.work.take(self.name)) is not None:
                self._ahead.append(item)
            self.account.read_ahead(self._ahead)
        return self._ahead.popleft() if self._ahead else None

    async def _begin(self, item: Item, again: bool) -> None:
        """Answer from the cache, join an identical request in flight, or send it when all limits allow."""
        self._count += 1
        if self._count % _TURN == 0:
            await asyncio.sleep(0)
        kept = self.account.look_up(item, again)
        if kept is not None:
            self.live.cached += 1
            self._finish(item, self.account.reply(item.request, kept))
            return
        if item.call.key in self._flying:
            self._flying[item.call.key].append(item)
            return
        most = self.account.most(item.call)
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
        """Wait until the request may be sent. Returns False when the run stops."""
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
                    self._stop = BudgetReached(self.budget.text())
                    return False
                await self._pause("budget", _LOOK)  # another teacher's reply may free some budget
            elif wait > 0:
                await self._pause(why, wait)
            else:
                self.live.idle = ""
                return True
        return False

    async def _pause(self, why: str, seconds: float | None = None) -> None:
        """Wait until a request ends, or for `seconds`."""
        self.live.idle = why
        self._wake.clear()
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _attempt(self, item: Item, most: Spent, reserved: float) -> None:
        """Send a request once. In every case the reservation is settled, and the item is delivered or queued again."""
        sent = time.monotonic()
        item.tries += 1
        self.live.sent += 1
        ticket = await self.account.reserve(most)
        try:
            # longer than the teacher's own timeout, which should fire first
            async with asyncio.timeout(self.limits.timeout + 5):
                body = await self.teacher.send(item.call)
        except (Refused, TimeoutError) as problem:
            if isinstance(problem, TimeoutError):
                problem = Refused("timeout", f"no answer in {self.limits.timeout:g} s", retry=True, billed=True)
            spent = most if problem.billed else Spent()
            self.quota.correct(reserved, 0, None if problem.billed or problem.pace else 0)
            await self._refused(item, problem, sent, _Reservation(most, spent, ticket))
            return
        reply = self.teacher.read(item.request, body)
        spent = self.account.spent(reply, most)
        used = None if reply.usage is None else spent.tokens
        self.quota.correct(reserved, item.call.prompt_tokens + item.call.most_completion, used)
        reply = self.account.priced(reply)
        if reply.failure is None or reply.failure[0] == "content_filter":
            self._answered()
        elif reply.failure[0] in ("schema", "empty"):
            item.paid_tries += 1
            if item.paid_tries < _PAID_TRIES and self._may_retry(item):
                await self._settle(_Reservation(most, spent, ticket))
                self._again(item, backoff(item.paid_tries))
                return
        await self._settle(_Reservation(most, spent, ticket), (item.call.key, Entry(body, reply.failure)))
        self._landed(item, reply)

    async def _refused(self, item: Item, problem: Refused, sent: float, reservation: _Reservation) -> None:
        """Handle a failed attempt: stop the run when no request can succeed, wait, retry, or fail the item."""
        now = time.monotonic()
        if problem.fatal:
            await self._settle(reservation)
            self._drop(item)
            raise TeacherError(
                f"{self._where()} refuses every request: {problem.reason}",
                "correct this, then give the same command; finished and cached requests are not sent again",
            )
        if problem.pace:
            await self._settle(reservation)
            self.live.refused += 1
            item.tries -= 1
            self.pace.refused(sent, self.live.in_flight, now)
            self._slow_down(item, problem, now)
            return
        if problem.retry and self._may_retry(item):
            await self._settle(reservation)
            self._again(item, max(backoff(item.tries), min(problem.after or 0.0, self.limits.timeout)))
            return
        await self._fail(item, problem, reservation)

    async def _fail(self, item: Item, problem: Refused, reservation: _Reservation) -> None:
        """Fail the item; cache the failure if it would occur again. The run stops when no item seems able to
        succeed.
        """
        failure = (problem.kind, problem.reason)
        kept = None
        if problem.retry:
            await self._gave_up(item, problem)
        elif not self._answers:
            self._hopeless += 1
            if self._hopeless >= _HOPELESS:
                self._stop = self._stop or TeacherError(
                    f"{self._where()} refused the first {_HOPELESS} requests: {problem.reason}",
                    "in teacher.extra, add a parameter, or remove one with null (top_p: null)",
                )
        elif problem.kind in _KEPT:
            kept = (item.call.key, Entry(None, failure))
        await self._settle(reservation, kept)
        if self._stop is None:
            self._landed(item, Reply(failure=failure))
        else:
            self._drop(item)

    def _slow_down(self, item: Item, problem: Refused, now: float) -> None:
        """Wait as long as the server asks; without a stated time, wait longer with every refusal in a row."""
        self._refusals += 1
        wait = problem.after if problem.after is not None else backoff(min(self._refusals, 7)) / 2
        self._resume_at = max(self._resume_at, now + min(wait, _PATIENCE))
        if wait > _PATIENCE or now - max(self._last_answer, item.began) > _PATIENCE:
            self._stop = self._stop or TeacherError(
                f"{self._where()} asks to wait {wait:.0f} s, after {self._refusals} refusals in a row: "
                f"{problem.reason}",
                "give the same command later; finished and cached requests are not sent again",
            )
        self._again(item, 0.0)

    def _may_retry(self, item: Item) -> bool:
        return item.tries <= self.limits.max_retries and time.monotonic() - item.began < 3 * self.limits.timeout

    async def _gave_up(self, item: Item, problem: Refused) -> None:
        """Handle a request that has used all its tries. Several in a row without any answer suggest that the server is
        the problem.
        """
        self._given_up += 1
        if self._given_up < _DOUBT or self._answers != item.answers:
            return
        if self._given_up >= _DEAD or not await self.teacher.alive():
            self._stop = self._stop or TeacherError(
                f"{self._where()} is not answering; the last error: {problem.reason}",
                "start the server, then give the same command; finished and cached requests are not sent again",
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
        """Deliver the reply to the item and to all items with the same request."""
        others = self._flying.pop(item.call.key, [])
        self._finish(item, reply)
        for other in others:
            self.live.cached += 1
            self._finish(other, reply)

    def _finish(self, item: Item, reply: Reply) -> None:
        if reply.failure is not None:
            self.live.failures[reply.failure[0]] = self.live.failures.get(reply.failure[0], 0) + 1
        self.live.tokens += int((reply.usage or {}).get("completion_tokens") or 0)
        self.work.deliver(item, reply)

    async def _settle(self, reservation: _Reservation, entry: tuple[bytes, Entry] | None = None) -> None:
        await self.account.settle(reservation.most, reservation.spent, reservation.ticket, entry)
        self.live.usd = self.account.usd

    def _where(self) -> str:
        identity = self.teacher.identity
        return f"the server at {identity.get('base_url', identity['model'])}"
