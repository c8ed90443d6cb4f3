"""Records what a teacher's requests cost, and stores their replies in the cache. The maximum cost of a request is
reserved before the request is sent. When the reply has arrived, the actual cost replaces the reservation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from synthgen.generation.budget import Budget
from synthgen.generation.cache import Cache, Entry, Spent
from synthgen.generation.prices import PICO, Prices
from synthgen.generation.work import Item
from synthgen.requests import Request
from synthgen.teachers.base import Call, RemoteTeacher, Reply


class Account:
    """The cache, the budget and the prices for one teacher's requests. `run` is the run's name in the ledger, the part
    of the cache file that records the costs of runs.

    Without a cache, no replies or costs are stored.
    """

    def __init__(
        self, teacher: RemoteTeacher, cache: Cache | None, *, budget: Budget, prices: Prices | None, run: str
    ) -> None:
        self.teacher, self.cache, self.budget, self.prices, self.run = teacher, cache, budget, prices, run
        self._kept: dict[bytes, Entry] = {}  # the entries that the last call of `read_ahead` found, by key
        self._since: set[bytes] = set()  # keys of the entries that were stored since the last call of `read_ahead`

    @property
    def usd(self) -> float | None:
        """US dollars that the run has spent. None when prices are unknown."""
        return None if self.prices is None else self.budget.spent.usd / PICO

    def most(self, call: Call) -> Spent:
        """The maximum cost of the request whose content is `call`."""
        usd = self.prices.most(call.most_prompt, call.most_completion) if self.prices else 0
        return Spent(usd, call.most_prompt + call.most_completion)

    def spent(self, reply: Reply, most: Spent) -> Spent:
        """The cost of a reply. When the server reports no usage, it is `most`, the maximum cost of the request."""
        if reply.usage is None:
            return most
        return Spent(self._cost(reply), (reply.usage["prompt_tokens"] or 0) + (reply.usage["completion_tokens"] or 0))

    def priced(self, reply: Reply) -> Reply:
        """A copy of the reply with its cost in `cost_usd`. The cost is None when it is unknown."""
        if self.prices is None or (reply.usage is None and self.teacher.paid):
            return replace(reply, cost_usd=None)
        return replace(reply, cost_usd=self._cost(reply) / PICO)

    def read_ahead(self, items: Sequence[Item]) -> None:
        """Read the cached entries of all `items` in one query."""
        self._since.clear()
        if items and self.cache and self.teacher.paid:
            self._kept = self.cache.find([item.call.key for item in items])

    def look_up(self, item: Item, again: bool) -> Entry | None:
        """The cached entry of an item, or None. Always None for an item that has already been sent. Without `again`,
        the result of the last call of `read_ahead` is used. With `again`, the cache is read now, because the item has
        waited since that call.
        """
        if self.cache is None or not self.teacher.paid or item.tries:
            return None
        if again or item.call.key in self._since:
            return self.cache.get(item.call.key)
        return self._kept.get(item.call.key)

    def reply(self, request: Request, kept: Entry) -> Reply:
        """The reply in a cached entry."""
        if kept.failure is not None:
            return Reply(failure=kept.failure)
        return self.priced(self.teacher.read(request, kept.body or b""))

    async def reserve(self, most: Spent) -> int | None:
        """Reserve the maximum cost of a request in the ledger. Returns the reservation's id when the reservation is on
        disk. Without a budget, reserves nothing in the ledger and returns None.
        """
        if self.cache is None or not self.budget.limited:
            return None
        ticket, statement = self.cache.reserve(self.run, most)
        await self.cache.commit([statement])
        return ticket

    async def settle(
        self, most: Spent, spent: Spent, ticket: int | None, entry: tuple[bytes, Entry] | None = None
    ) -> None:
        """Replace the reservation of `most` by the actual cost `spent`. If `entry` (key, cache entry) is given, store
        it in the same commit.
        """
        self.budget.settle(most, spent)
        if self.cache is None:
            return
        statements = self.cache.settle(self.run, ticket, spent)
        if entry is not None and self.teacher.paid:
            statements.append(self.cache.put(*entry, self.teacher.identity["model"]))
        if statements:
            await self.cache.commit(statements)
        # The key is added only after the commit. Otherwise a `read_ahead` during the commit would remove the key, and
        # would not find the entry either.
        if entry is not None:
            self._since.add(entry[0])

    def _cost(self, reply: Reply) -> int:
        if self.prices is None or reply.usage is None:
            return 0
        return int(self.prices.cost(reply.usage) * reply.price_share)
