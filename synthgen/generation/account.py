"""Records what a teacher's requests cost, and stores their replies in the cache. The maximum cost of a request is
reserved before the request is sent. When the reply has arrived, the actual cost replaces the reservation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from synthgen.errors import TeacherError
from synthgen.generation.budget import Budget
from synthgen.generation.cache import Cache, Entry
from synthgen.generation.ledger import Ledger, Spent
from synthgen.generation.prices import PICO, Prices
from synthgen.generation.work import Item
from synthgen.teachers.base import Call, RemoteTeacher, Reply

# When a reply has cost r times its maximum, every later request reserves r × `_MARGIN` times its own maximum.
_MARGIN = 1.25


class Account:
    """The cache, the ledger, the budget and the prices for one teacher's requests.

    Without a cache, no replies are stored. Without a ledger, no costs are stored.
    """

    def __init__(
        self,
        teacher: RemoteTeacher,
        cache: Cache | None,
        *,
        budget: Budget,
        prices: Prices | None,
        ledger: Ledger | None,
    ) -> None:
        self.teacher, self.cache, self.budget, self.prices = teacher, cache, budget, prices
        self.ledger = ledger
        self._kept: dict[bytes, Entry] = {}  # the entries that the last call of `read_ahead` found, by key
        self._since: set[bytes] = set()  # keys of the entries that were stored since the last call of `read_ahead`

    @property
    def usd(self) -> float | None:
        """US dollars that the run has spent. None when prices are unknown."""
        return None if self.prices is None else self.budget.spent.usd / PICO

    def most(self, call: Call) -> Spent:
        """The maximum cost of the request whose content is `call`. The result is larger when an earlier reply cost more
        than the maximum of its request.
        """
        return self.expected(call).times(self.budget.excess)

    def expected(self, call: Call) -> Spent:
        """The maximum cost of the request whose content is `call`, if the server counts tokens correctly."""
        usd = self.prices.most(call.most_prompt, call.most_completion) if self.prices else 0
        return Spent(usd, call.most_prompt + call.most_completion)

    def spent(self, reply: Reply, most: Spent) -> Spent:
        """The cost of a reply. When the server reports no usage or impossible usage, the cost is `most`, the maximum
        cost of the request. When only the dollars are unknown, the dollars of `most` are used.
        """
        usage = reply.usage
        tokens = most.tokens if usage is None else (usage["prompt_tokens"] or 0) + (usage["completion_tokens"] or 0)
        usd = self._cost(reply)
        return Spent(most.usd if usd is None else usd, tokens)

    def unbounded(self, reply: Reply, spent: Spent, most: Spent, excess: float) -> TeacherError | None:
        """The error that stops the run when the recipe has a budget but the cost of replies has no known limit.
        Otherwise None. `spent` is the cost of `reply`. See `overspent` for `most` and `excess`.
        """
        if (problem := self.overspent(spent, most, excess)) is not None:
            return self.uncounted(problem)
        if self.budget.usd is None:
            return None
        if spent.usd and not most.usd:
            return TeacherError(
                f"{self.where} states a price of ${spent.usd / PICO:.6f} for a reply, and teacher.prices says that its "
                "replies cost nothing",
                "give the model's real prices in teacher.prices",
            )
        tier = self.unpriced(reply)
        if tier is None:
            return None
        return TeacherError(
            f"{self.where} answered with service tier '{tier}', whose price is not known",
            f"set teacher.extra: {{service_tier: {tier}}} and teacher.prices: {{…, service_tier: {tier}}}",
        )

    def uncounted(self, problem: str) -> TeacherError:
        """The error for a server whose token counts have no limit. `problem` is the result of `overspent`."""
        return TeacherError(
            f"{self.where} does not keep to the limit of tokens, so the budget cannot be kept: {problem}",
            "ask the provider how it counts; raise generate.max_new_tokens to what replies use, or leave out the "
            "budget",
        )

    @property
    def where(self) -> str:
        """The name of the server for a message."""
        identity = self.teacher.identity
        return f"the server at {identity.get('base_url', identity['model'])}"

    def overspent(self, spent: Spent, most: Spent, excess: float) -> str | None:
        """Take the cost `spent` of a request into account. `most` is the amount that was reserved for the request, and
        `excess` is the value that `budget.excess` had at that time.

        When the request cost more than was reserved, later requests reserve more. If the reservation was already
        increased and the request still cost more, returns the reason to stop, because the server's counts then have no
        limit.
        """
        if spent.tokens <= max(1, most.tokens) and (spent.usd <= most.usd or not most.usd):
            return None
        ratio = max(spent.tokens / max(1, most.tokens), spent.usd / most.usd if most.usd else 0.0)
        self.budget.excess = max(self.budget.excess, excess * ratio * _MARGIN)
        if excess > 1 and self.budget.limited:
            return (
                f"a request used {spent.tokens:,} tokens, and at most {most.tokens:,} were expected after an earlier "
                "request had also used too many"
            )
        return None

    def unpriced(self, reply: Reply) -> str | None:
        """The service tier of a reply if its price is unknown and may be above the usual price, otherwise None."""
        bill = reply.bill
        if bill is None or bill.usd is not None or self.prices is None or self.prices.covers(bill.tier):
            return None
        return bill.tier or "default"

    def priced(self, reply: Reply) -> Reply:
        """A copy of the reply with its cost in `cost_usd`. The cost is None when it is unknown."""
        usd = self._cost(reply)
        return reply.costing(None if usd is None else usd / PICO)

    def read_ahead(self, items: Sequence[Item]) -> None:
        """Read the cached entries of all `items` in one query."""
        self._since.clear()
        if items and self.cache and self.teacher.paid:
            self._kept = self.cache.find([item.call.key for item in items])

    def look_up(self, item: Item, again: bool) -> Reply | None:
        """The cached reply of an item, or None. Always None for an item that has already been sent. Without `again`,
        the result of the last call of `read_ahead` is used. With `again`, the cache is read now, because the item has
        waited since that call.
        """
        if self.cache is None or not self.teacher.paid or item.tries:
            return None
        key = item.call.key
        kept = self.cache.get(key) if again or key in self._since else self._kept.get(key)
        if kept is None or kept.failure is not None:
            return None if kept is None else Reply(failure=kept.failure)
        reply = self.priced(self.teacher.read(item.request, kept.body or b""))
        return None if reply.invalid or (reply.failure and self.cache.repeats(key)) else reply

    async def reserve(self, most: Spent) -> Spent:
        """Reserve the maximum cost of a request in the ledger. Returns the reserved amount as soon as the reservation
        is on disk. Without a budget, nothing is reserved.
        """
        if self.ledger is None or not self.budget.limited:
            return Spent()
        await self.ledger.reserve(most)
        return most

    async def settle(
        self, most: Spent, spent: Spent, reserved: Spent, entry: tuple[bytes, Entry] | None = None
    ) -> None:
        """Replace the reservation of `most` by the actual cost `spent`. `reserved` is the amount that was reserved in
        the ledger. If `entry` (key, cache entry) is given, it is stored in the cache.
        """
        self.budget.settle(most, spent)
        if self.ledger is not None and (reserved, spent) != (Spent(), Spent()):
            self.ledger.settle(reserved, spent)
        if self.cache is not None and entry is not None and self.teacher.paid:
            await self.cache.commit([self.cache.put(*entry, self.teacher.identity["model"])])
        # The key is added only after the commit. If the key were added before the commit, a `read_ahead` during the
        # commit would remove the key, although the cache does not have the entry yet.
        if entry is not None:
            self._since.add(entry[0])

    def _cost(self, reply: Reply) -> int | None:
        """The cost of a reply in picodollars: the amount that the server states, or else the price of its tokens. None
        when the cost is unknown.
        """
        bill = reply.bill
        if bill is not None and bill.usd is not None:
            return math.ceil(bill.usd * PICO)
        if self.prices is None or (reply.usage is None and self.teacher.paid):
            return None
        if bill is not None and bill.tier != self.prices.tier:
            return None
        prices = self.prices.in_batch() if reply.batched else self.prices
        return 0 if reply.usage is None else prices.cost(reply.usage)
