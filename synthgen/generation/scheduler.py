"""Schedules the requests of a remote teacher. Each teacher has a loop that sends requests, stores replies and retries
failed requests.

The loop takes a request that is due for a retry, or else a new request. If the cache has the reply, the request is not
sent. Otherwise the loop sends the request as soon as the limit of requests in flight, the quota and the budget allow
this, but not before the end of a wait that the server asked for. A slow answer delays only its own shard. A reply is
delivered after it is durable in the cache; until then, its request counts as in flight. When the process is killed, at
most the requests in flight are lost.

A failed request is sent again, up to a maximum number of tries and a maximum time. A failure that would occur again, or
that remains after the last try, is delivered instead of an answer. The run stops when no further request can succeed:
the budget is reached, the API key is invalid, or the server is dead.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from typing import NamedTuple

from synthgen.errors import SynthgenError, TeacherError
from synthgen.generation.account import Account
from synthgen.generation.cache import Entry
from synthgen.generation.interruption import Interrupted
from synthgen.generation.ledger import Spent
from synthgen.generation.limits import Limits
from synthgen.generation.pacing import Concurrency, Quota, backoff
from synthgen.generation.work import BudgetReached, Item, Live, Work
from synthgen.teachers.base import Refused, Reply

# The run stops when a server has refused every request for this many seconds, or when it asks for a longer wait.
_PATIENCE = 600.0
_DOUBT = 3  # the server is probed when this many consecutive requests have used up their tries without any answer
_DEAD = 20  # the run stops when this many consecutive requests have used up their tries, whatever the probe shows
_HOPELESS = 20  # the run stops when this many requests were refused before any request was answered
_PAID_TRIES = 3  # a request whose replies cannot be used is tried at most this many times, because each reply is paid
_LOOK = 0.5  # seconds between checks for free budget while the rest of the budget is reserved
_AHEAD = 16  # number of requests that are looked up in the cache with one query
_TURN = 32  # after this many requests, the loop lets other asyncio tasks run
# Failures of these kinds would occur again if the request were repeated, so they are cached.
_KEPT = ("bad_request", "context", "content_filter", "refusal", "too_large")
# Requests with failures of these kinds are repeated, because the next answer may be right. Each of these answers costs
# money.
_REPEATED = ("schema", "empty", "server")


class _Reservation(NamedTuple):
    """The maximum and the actual cost of a request, and the amount that was reserved for it in the ledger."""

    most: Spent
    spent: Spent
    reserved: Spent


class Scheduler:
    """Sends every request that `work` has for one teacher. `name` is the teacher's name. `account` records the costs
    and replies of the teacher's requests.

    `run` raises BudgetReached, TeacherError and the errors of `work`.
    """

    def __init__(self, name: str, work: Work, account: Account, limits: Limits) -> None:
        self.name, self.work, self.account, self.limits = name, work, account, limits
        self.teacher, self.budget = account.teacher, account.budget
        self.pace = Concurrency(limits.max_in_flight)
        self.quota = Quota(limits.rpm, limits.tpm, time.monotonic())
        self.live = Live(usd=account.usd)
        self._ahead: deque[Item] = deque()  # items that were taken from `work` but not handled yet
        self._waiting: list[tuple[float, int, Item]] = []  # heap of items that wait for a retry, ordered by time
        # For each request in flight: its cache key, and later items with the same key. The later items are not sent,
        # but wait for the reply to the request in flight.
        self._flying: dict[bytes, list[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._count = 0
        self._resume_at = 0.0  # no request is sent before this time, because the server asked to wait
        self._refusals = 0  # number of 429 responses since the last successful request
        self._answers = 0
        self._hopeless = 0
        self._given_up = 0
        self._last_answer = time.monotonic()
        self._stop: Exception | None = None

    async def run(self) -> None:
        """Run until every item is delivered. After an error, wait until the requests in flight have ended and their
        replies are stored, and then raise the error.
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
        """Wake the loop of `run` if it waits. A new request may be available, or sending may be allowed again."""
        self._wake.set()

    def stop(self, error: Exception) -> None:
        """Stop `run` with this error, after the requests in flight have ended."""
        self._stop = self._stop or error
        self._wake.set()

    def cut(self) -> None:
        """Cancel the requests in flight. The maximum cost of these requests stays reserved in the ledger."""
        self.stop(Interrupted())
        for task in self._tasks:
            task.cancel()

    def _open(self) -> bool:
        """Whether new requests may start. False when too many requests wait for a retry."""
        return len(self._waiting) < 4 * self.pace.most

    def _next(self) -> Item | None:
        """The next new request. Up to `_AHEAD` requests are taken from `work` together, so that one query looks all of
        them up in the cache.
        """
        if not self._ahead:
            while len(self._ahead) < _AHEAD and (item := self.work.take(self.name)) is not None:
                self._ahead.append(item)
            self.account.read_ahead(self._ahead)
        return self._ahead.popleft() if self._ahead else None

    async def _begin(self, item: Item, again: bool) -> None:
        """Handle an item. If the cache has the reply to the item's request, deliver the reply. If an identical request
        is in flight, let the item wait for the reply to that request. Otherwise send the item's request when all limits
        allow this.
        """
        self._count += 1
        if self._count % _TURN == 0:
            await asyncio.sleep(0)
        kept = self.account.look_up(item, again)
        if kept is not None:
            self.live.cached += 1
            self._finish(item, kept)
            return
        if item.call.key in self._flying:
            self._flying[item.call.key].append(item)
            return
        if (most := await self._admit(item)) is None:
            return
        self.budget.hold(most)
        reserved = self.quota.reserve(item.call.prompt_tokens + item.call.most_completion)
        self._flying[item.call.key] = []
        self.live.in_flight += 1
        if not item.began:
            item.began, item.answers = time.monotonic(), self._answers
        task = asyncio.create_task(self._attempt(item, most, reserved, self.budget.excess))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.live.in_flight -= 1
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._stop = self._stop or (error if isinstance(error, Exception) else RuntimeError(str(error)))

    async def _admit(self, item: Item) -> Spent | None:
        """Wait until the request may be sent. Returns the request's maximum cost, or None when the run stops."""
        while self._stop is None:
            most = self.account.most(item.call)
            now = time.monotonic()
            self.live.limit = int(self.pace.limit)
            wait, why = self.quota.wait(item.call.prompt_tokens + item.call.most_completion, now)
            if self.live.in_flight >= int(self.pace.limit):
                await self._pause("")  # the maximum number of requests is in flight; this is normal, so show no reason
            elif self._resume_at > now:
                await self._pause("retry-after", self._resume_at - now)
            elif not self.budget.fits(most):
                if not self.budget.holds:
                    self._stop = BudgetReached(self.budget.text())
                    return None
                await self._pause("budget", _LOOK)  # another teacher's reply may free some budget
            elif wait > 0:
                await self._pause(why, wait)
            else:
                self.live.idle = ""
                return most
        return None

    async def _pause(self, why: str, seconds: float | None = None) -> None:
        """Wait until `wake` is called or a request ends, but at most for `seconds`. In the meantime, the progress bar
        shows `why`, the reason for waiting.
        """
        self.live.idle = why
        self._wake.clear()
        try:
            async with asyncio.timeout(None if seconds is None else max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _attempt(self, item: Item, most: Spent, reserved: float, excess: float) -> None:
        """Send an item's request once. In any case, the actual cost replaces the reservation of `most`. After that, the
        reply or a failure is delivered, or the item is queued again, or the item is dropped because the run stops.
        """
        sent = time.monotonic()
        item.tries += 1
        self.live.sent += 1
        noted = await self.account.reserve(most)
        try:
            # This timeout is 5 seconds longer than the teacher's own timeout, which should end the attempt first.
            async with asyncio.timeout(self.limits.timeout + 5):
                body = await self.teacher.send(item.call)
        except (Refused, TimeoutError) as problem:
            if isinstance(problem, TimeoutError):
                problem = Refused("timeout", f"no answer in {self.limits.timeout:g} s", retry=True, billed=True)
            spent = most if problem.billed else Spent()
            self.quota.correct(reserved, 0, None if problem.billed or problem.pace else 0)
            await self._refused(item, problem, sent, _Reservation(most, spent, noted))
            return
        reply = self.account.priced(self.teacher.read(item.request, body))
        spent = self.account.spent(reply, most)
        used = None if reply.usage is None else spent.tokens
        self.quota.correct(reserved, item.call.prompt_tokens + item.call.most_completion, used)
        unbounded = self.account.unbounded(reply, spent, most, excess)
        self._stop = self._stop or unbounded
        reservation = _Reservation(most, spent, noted)
        if not reply.invalid:
            self._answered()
        if reply.failure is not None and reply.failure[0] in _REPEATED:
            item.paid_tries += 1
            if item.paid_tries < _PAID_TRIES and self._may_retry(item):
                await self._settle(reservation)
                self._invalid(reply)
                self._again(item, backoff(item.paid_tries))
                return
        # Only a valid reply is cached. If a broken server sent an invalid reply, the next run sends the request again.
        await self._settle(reservation, None if reply.invalid else (item.call.key, Entry(body, reply.failure)))
        self._invalid(reply)
        self._landed(item, reply)

    def _invalid(self, reply: Reply) -> None:
        """Stop the run when the server has sent only invalid replies."""
        if not reply.invalid or self._answers or reply.failure is None:
            return
        self._hopeless += 1
        if self._hopeless >= _HOPELESS:
            self._stop = self._stop or TeacherError(
                f"the first {_HOPELESS} replies of {self.account.where} are not valid: {reply.failure[1]}",
                "check teacher.base_url, and whether the server speaks OpenAI's chat completions",
            )

    async def _refused(self, item: Item, problem: Refused, sent: float, reservation: _Reservation) -> None:
        """Handle an attempt without a reply. Stops the run when no request can succeed. Otherwise the item is queued
        again, or a failure is delivered.
        """
        now = time.monotonic()
        if problem.fatal:
            await self._settle(reservation)
            self._drop(item)
            raise TeacherError(
                f"{self.account.where} refuses every request: {problem.reason}",
                "correct this, then give the same command; finished and cached requests are not sent again",
            )
        if problem.pace:
            await self._settle(reservation)
            self.live.refused += 1
            item.tries -= 1
            self.pace.refused(sent, self.live.in_flight, now)
            self._slow_down(item, problem, now)
            return
        if problem.lost:
            await self._settle(reservation)
            item.tries -= 1
            self._again(item, 0.0)
            return
        if problem.retry and self._may_retry(item):
            await self._settle(reservation)
            self._again(item, max(backoff(item.tries), min(problem.after or 0.0, self.limits.timeout)))
            return
        await self._fail(item, problem, reservation)

    async def _fail(self, item: Item, problem: Refused, reservation: _Reservation) -> None:
        """Deliver a failure for the item. The failure is cached if its kind is in `_KEPT` and the server has answered a
        request before. Stops the run when it seems that no request can succeed.
        """
        failure = (problem.kind, problem.reason)
        kept = None
        if problem.retry:
            await self._gave_up(item, problem)
        elif not self._answers:
            self._hopeless += 1
            if self._hopeless >= _HOPELESS:
                self._stop = self._stop or TeacherError(
                    f"{self.account.where} refused the first {_HOPELESS} requests: {problem.reason}",
                    "add the missing parameter to teacher.extra, or remove one there with null (top_p: null)",
                )
        elif problem.kind in _KEPT:
            kept = (item.call.key, Entry(None, failure))
        await self._settle(reservation, kept)
        if self._stop is None:
            self._landed(item, Reply(failure=failure))
        else:
            self._drop(item)

    def _slow_down(self, item: Item, problem: Refused, now: float) -> None:
        """Queue the item again, and send no request for as long as the server asks. When the server names no time, the
        waiting time grows with each consecutive refusal.
        """
        self._refusals += 1
        wait = problem.after if problem.after is not None else backoff(min(self._refusals, 7)) / 2
        self._resume_at = max(self._resume_at, now + min(wait, _PATIENCE))
        if wait > _PATIENCE or now - max(self._last_answer, item.began) > _PATIENCE:
            self._stop = self._stop or TeacherError(
                f"{self.account.where} asks to wait {wait:.0f} s, after {self._refusals} refusals in a row: "
                f"{problem.reason}",
                "give the same command later; finished and cached requests are not sent again",
            )
        self._again(item, 0.0)

    def _may_retry(self, item: Item) -> bool:
        return item.tries <= self.limits.max_retries and time.monotonic() - item.began < 3 * self.limits.timeout

    async def _gave_up(self, item: Item, problem: Refused) -> None:
        """Handle an item that has used all its tries. When `_DOUBT` consecutive items have used all their tries, and no
        request was answered in the meantime, the server is probed. The run stops when the server does not respond to
        the probe, or when `_DEAD` consecutive items have used all their tries.
        """
        self._given_up += 1
        if self._given_up < _DOUBT or self._answers != item.answers:
            return
        if self._given_up >= _DEAD or not await self.teacher.alive():
            self._stop = self._stop or TeacherError(
                f"{self.account.where} is not answering; the last error: {problem.reason}",
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
        """Deliver the reply for the item, and for all identical items that wait for this reply."""
        others = self._flying.pop(item.call.key, [])
        self._finish(item, reply)
        for other in others:
            self.live.cached += 1
            self._finish(other, reply)

    def _finish(self, item: Item, reply: Reply) -> None:
        if reply.failure is not None:
            self.live.failures[reply.failure[0]] = self.live.failures.get(reply.failure[0], 0) + 1
        self.live.cut_prompts += any(name == "prompt_was_cut" for name, _ in reply.scores)
        self.live.tokens += int((reply.usage or {}).get("completion_tokens") or 0)
        self.work.deliver(item, reply)

    async def _settle(self, reservation: _Reservation, entry: tuple[bytes, Entry] | None = None) -> None:
        await self.account.settle(reservation.most, reservation.spent, reservation.reserved, entry)
        self.live.usd = self.account.usd
