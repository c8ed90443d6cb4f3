"""The protocol `Work`, from which a scheduler gets requests and to which it delivers replies, and the figures that the
progress bar shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from synthgen.errors import UserError
from synthgen.requests import Request
from synthgen.teachers.base import Call, Reply


@dataclass(slots=True)
class Item:
    """One request in progress. `call` is the content that is sent for the request. The `Work` object that made the
    request uses `place` to find where the reply belongs.
    """

    place: tuple[object, int]
    request: Request
    call: Call
    tries: int = 0
    paid_tries: int = 0
    began: float = 0.0
    answers: int = 0  # number of answers that the scheduler had received when the item was first sent


@dataclass
class Live:
    """The figures that the progress bar shows for one teacher. `usd` is None when prices are unknown."""

    in_flight: int = 0
    limit: int = 0
    idle: str = ""
    usd: float | None = 0.0
    sent: int = 0
    cached: int = 0
    refused: int = 0
    retried: int = 0
    tokens: int = 0
    cut_prompts: int = 0  # number of replies for which the server seems to have left out a part of the prompt
    failures: dict[str, int] = field(default_factory=dict)


class Work(Protocol):
    """The source of requests and the receiver of replies. The schedulers of several teachers may share one object."""

    def take(self, teacher: str) -> Item | None:
        """The next request for a teacher. None when no request is available now."""

    @property
    def finished(self) -> bool:
        """Whether no more requests will come."""

    def deliver(self, item: Item, reply: Reply) -> None:
        """Take the reply for an item. Called once for each item. May raise an error to stop the run."""


@runtime_checkable
class Wakes(Protocol):
    """A `Work` object that calls `wake` when new requests are available. The schedulers set `wake`."""

    wake: Callable[[], None]


class BudgetReached(UserError):
    """The next request could cost more than is left of the budget."""

    def __init__(self, spent: str) -> None:
        super().__init__(
            f"the budget is reached: {spent} spent, and the next request could cost more than is left",
            "raise generate.budget or --budget and give the same command; paid replies are kept",
        )
