"""How fast to ask: buckets of requests and tokens a minute, and concurrency that learns from 429.

All times are those of the event loop. Nothing here sleeps: each class says how long to wait.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_CUT = 0.75  # of the concurrency, once for each burst of refusals
_SLOW = 25  # successes for one more in flight above the remembered ceiling
_FAST = 5  # … and below it
_SHARE = 0.98  # of the quota: clocks differ, and a refusal costs more than two in a hundred
_BURST = 1.0  # seconds' worth that may be sent at once; providers enforce minutes in smaller steps


class Bucket:
    """`per_minute` units, refilled evenly. Taking more than a full bucket holds leaves a debt."""

    def __init__(self, per_minute: float, now: float) -> None:
        self.rate = per_minute * _SHARE / 60
        self.capacity = max(1.0, self.rate * _BURST)
        self.level = min(1.0, self.capacity)
        self.then = now

    def wait(self, need: float, now: float) -> float:
        """Seconds until `need` can be taken."""
        self.level = min(max(self.capacity, self.level), self.level + (now - self.then) * self.rate)
        self.then = now
        return max(0.0, (min(need, self.capacity) - self.level) / self.rate)

    def take(self, need: float) -> None:
        """Take after `wait` said 0; a negative need gives back."""
        self.level -= need


class Quota:
    """Requests and tokens a minute. Tokens are reserved by estimate and corrected when the reply is there.

    The estimate is the most a request can use times the share that replies have used so far: reserving the
    most itself would leave a quota half unused while the answers are on their way.
    """

    def __init__(self, rpm: int | None, tpm: int | None, now: float) -> None:
        self.requests = Bucket(rpm, now) if rpm else None
        self.tokens = Bucket(tpm, now) if tpm else None
        self.used = 1.0

    def wait(self, most: int, now: float) -> tuple[float, str]:
        """(seconds, which limit) until a request of at most `most` tokens may go."""
        found = [(0.0, "")]
        if self.requests:
            found.append((self.requests.wait(1, now), "rpm"))
        if self.tokens:
            found.append((self.tokens.wait(most * self.used, now), "tpm"))
        return max(found)

    def reserve(self, most: int) -> float:
        """Take one request and its tokens; returns the tokens reserved."""
        if self.requests:
            self.requests.take(1)
        reserved = most * self.used
        if self.tokens:
            self.tokens.take(reserved)
        return reserved

    def correct(self, reserved: float, most: int, used: int | None) -> None:
        """Give back what was reserved and not used (`used` None: unknown, the reservation stands)."""
        if used is None:
            return
        if self.tokens:
            self.tokens.take(used - reserved)
        if most and used:
            self.used += 0.05 * (min(1.0, used / most) - self.used)


@dataclass
class Concurrency:
    """How many may be in flight: doubles each round trip until the first refusal, then additive up, ×0.75 down."""

    most: int
    limit: float = 32.0
    ceiling: float | None = None
    cuts: int = 0
    _cut_at: float = -1.0
    _successes: int = 0

    def __post_init__(self) -> None:
        self.limit = min(self.limit, float(self.most))

    def success(self) -> None:
        """A reply came."""
        if self.ceiling is None:
            self.limit = min(float(self.most), self.limit + 1)
            return
        self._successes += 1
        if self._successes >= (_FAST if self.limit < self.ceiling * 0.9 else _SLOW):
            self._successes = 0
            self.limit = min(float(self.most), self.limit + 1)
            self.ceiling = max(self.ceiling, self.limit)

    def refused(self, sent: float, in_flight: int, now: float) -> None:
        """A 429 for a request sent at `sent`. Requests sent before the last cut belong to the same burst."""
        if sent <= self._cut_at:
            return
        self._cut_at = now
        self._successes = 0
        self.ceiling = min(self.limit, float(in_flight))
        self.limit = max(1.0, self.ceiling * _CUT)
        self.cuts += 1


def backoff(attempt: int, longest: float = 30.0) -> float:
    """Seconds before attempt `attempt` + 1: doubling from half a second, full jitter above a quarter of it."""
    return min(longest, 0.5 * 2.0 ** (attempt - 1)) * (0.25 + 0.75 * random.random())
