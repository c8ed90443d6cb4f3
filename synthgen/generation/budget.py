"""Budgets in money and tokens. A cost is reserved before a request is sent and settled afterwards.

Amounts are whole picodollars (1e-12 $), so there is no rounding. The maximum cost of a request is known before it is
sent: a token of the prompt has at least one byte, and the completion has at most `max_new_tokens` tokens. When the
outcome of a request is unknown (a timeout, a broken connection, a partial body), the whole reservation counts as spent,
because the provider may bill it.
"""

from __future__ import annotations

from synthgen.errors import RecipeError
from synthgen.generation.cache import Spent
from synthgen.generation.prices import PICO, prices
from synthgen.recipe import Recipe


class Budget:
    """The remaining budget. `usd` is in picodollars; None means no limit."""

    def __init__(self, usd: int | None, tokens: int | None, spent: Spent) -> None:
        self.usd, self.tokens = usd, tokens
        self.spent = spent
        self.held = Spent()

    @property
    def limited(self) -> bool:
        """Whether there is a limit at all."""
        return self.usd is not None or self.tokens is not None

    @property
    def holds(self) -> bool:
        """Whether any reservation is open that may be given back."""
        return self.held != Spent()

    def fits(self, most: Spent) -> bool:
        """Whether a request that costs `most` can be sent now."""
        usd = self.spent.usd + self.held.usd + most.usd
        tokens = self.spent.tokens + self.held.tokens + most.tokens
        return (self.usd is None or usd <= self.usd) and (self.tokens is None or tokens <= self.tokens)

    def hold(self, most: Spent) -> None:
        """Reserve."""
        self.held = Spent(self.held.usd + most.usd, self.held.tokens + most.tokens)

    def settle(self, most: Spent, spent: Spent) -> None:
        """Release a reservation and subtract what was actually spent."""
        self.held = Spent(self.held.usd - most.usd, self.held.tokens - most.tokens)
        self.spent = Spent(self.spent.usd + spent.usd, self.spent.tokens + spent.tokens)

    def text(self) -> str:
        """The spending as text, such as '$0.4987 of $0.5000', or in tokens."""
        parts = [f"${self.spent.usd / PICO:.4f} of ${self.usd / PICO:.4f}"] if self.usd is not None else []
        if self.tokens is not None:
            parts.append(f"{self.spent.tokens:,} of {self.tokens:,} tokens")
        return ", ".join(parts)


def open_budget(recipe: Recipe, spent: Spent, parts: int = 1) -> Budget:
    """The recipe's budget minus what the run has spent. With several machines (`parts`), each gets an equal share.

    Raises RecipeError when the budget is in dollars and the price of a teacher is unknown.
    """
    wanted = recipe.generate.budget
    if wanted is None:
        return Budget(None, None, spent)
    for teacher in recipe.teachers.values() or (recipe.teacher,):
        if wanted.usd is not None and prices(teacher) is None:
            raise RecipeError(
                f"generate.budget.usd is {wanted.usd}, and the price of '{teacher.model}' is not known",
                "give teacher.prices: {input: …, output: …} in dollars per million tokens, or a budget in tokens",
            )
    usd = None if wanted.usd is None else int(wanted.usd * PICO) // parts
    return Budget(usd, None if wanted.tokens is None else wanted.tokens // parts, spent)
