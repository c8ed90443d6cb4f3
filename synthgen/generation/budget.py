"""Budgets in dollars and tokens. The maximum cost of a request is reserved before the request is sent. When the reply
has arrived, the actual cost replaces the reservation.

Amounts are whole picodollars (1e-12 $), so there is no rounding. The maximum cost is known before a request is sent:
the prompt has at most as many tokens as bytes, and the completion has at most `max_new_tokens` tokens. When the outcome
of a request is unknown (a timeout, a broken connection, a partial body), the maximum cost counts as spent, because the
provider may bill the request.
"""

from __future__ import annotations

from synthgen.errors import RecipeError
from synthgen.generation.casting import cast
from synthgen.generation.ledger import Spent
from synthgen.generation.prices import PICO, prices
from synthgen.recipe import Recipe


class Budget:
    """A budget. `usd` is the limit in picodollars, and `tokens` is the limit in tokens. None means no limit. `spent` is
    the amount that was spent so far, and `held` is the sum of the open reservations.
    """

    def __init__(self, usd: int | None, tokens: int | None, spent: Spent) -> None:
        self.usd, self.tokens = usd, tokens
        self.spent = spent
        self.held = Spent()
        self.excess = 1.0  # factor for reservations; larger than 1 after a reply has cost more than its reservation

    @property
    def limited(self) -> bool:
        """Whether there is a limit in dollars or tokens."""
        return self.usd is not None or self.tokens is not None

    @property
    def holds(self) -> bool:
        """Whether there is an open reservation. When a reservation is settled, some of the reserved amount may become
        free.
        """
        return self.held != Spent()

    def fits(self, most: Spent) -> bool:
        """Whether a request that costs at most `most` may be sent now."""
        usd = self.spent.usd + self.held.usd + most.usd
        tokens = self.spent.tokens + self.held.tokens + most.tokens
        return (self.usd is None or usd <= self.usd) and (self.tokens is None or tokens <= self.tokens)

    def hold(self, most: Spent) -> None:
        """Reserve the maximum cost of a request."""
        self.held += most

    def settle(self, most: Spent, spent: Spent) -> None:
        """Replace a reservation of `most` by the actual cost `spent`."""
        self.held -= most
        self.spent += spent

    def text(self) -> str:
        """The amounts spent as text, such as '$0.4987 of $0.5000, 1,200 of 5,000 tokens'. Only amounts with a limit are
        shown.
        """
        parts = [f"${self.spent.usd / PICO:.4f} of ${self.usd / PICO:.4f}"] if self.usd is not None else []
        if self.tokens is not None:
            parts.append(f"{self.spent.tokens:,} of {self.tokens:,} tokens")
        return ", ".join(parts)


def open_budget(recipe: Recipe, spent: Spent, parts: int = 1) -> Budget:
    """The budget of this machine. `spent` is the amount that the run has already used. `parts` is the number of
    machines that make the run. Each machine gets an equal share of the recipe's budget.

    Raises RecipeError when the budget is in dollars and the price of a teacher is unknown.
    """
    wanted = recipe.generate.budget
    if wanted is None:
        return Budget(None, None, spent)
    for teacher in cast(recipe).values():
        if wanted.usd is None:
            continue
        known = prices(teacher)
        if known is None:
            raise RecipeError(
                f"generate.budget.usd is {wanted.usd}, and the price of '{teacher.model}' is not known",
                "give teacher.prices: {input: …, output: …} in dollars per million tokens, or a budget in tokens",
            )
        if not known.covers(known.asked):
            raise RecipeError(
                f"generate.budget.usd is {wanted.usd}, and the price of service tier '{known.asked}' of "
                f"'{teacher.model}' is not known",
                f"give its prices: teacher.prices: {{input: …, output: …, service_tier: {known.asked}}}",
            )
    usd = None if wanted.usd is None else int(wanted.usd * PICO) // parts
    return Budget(usd, None if wanted.tokens is None else wanted.tokens // parts, spent)
