"""The request rate: token buckets for requests and tokens a minute, and a concurrency limit that adapts to 429
responses.

All times are event loop times. The classes do not sleep; they return how long to wait.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_CUT = 0.75  # factor of the concurrency after each burst of refusals
_SLOW = 25  # successes for each additional request in flight above the remembered ceiling
_FAST = 5  # the same, below the ceiling
_SHARE = 0.98  # share of the quota that is used: clocks differ, and a refusal costs more than the remaining 2%
_BURST = 1.0  # seconds of quota that may be sent at once; providers enforce limits in steps shorter than a minute


class Bucket:
    """A bucket of `per_minute` units that refills evenly. Taking more than the bucket holds leaves a debt."""

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
        """Take `need` units after `wait` returned 0. A negative need gives units back."""
        self.level -= need


class Quota:
    """Limits of requests and tokens a minute. Tokens are reserved by an estimate, which is corrected when the reply
    arrives.

    The estimate is the maximum tokens of a request times the share of the maximum that earlier replies used. Reserving
    the maximum would leave half of the quota unused while requests are in flight.
    """

    def __init__(self, rpm: int | None, tpm: int | None, now: float) -> None:
        self.requests = Bucket(rpm, now) if rpm else None
        self.tokens = Bucket(tpm, now) if tpm else None
        self.used = 1.0

    def wait(self, most: int, now: float) -> tuple[float, str]:
        """Return (seconds to wait, name of the limit) for a request of at most `most` tokens."""
        found = [(0.0, "")]
        if self.requests:
            found.append((self.requests.wait(1, now), "rpm"))
        if self.tokens:
            found.append((self.tokens.wait(most * self.used, now), "tpm"))
        return max(found)

    def reserve(self, most: int) -> float:
        """Take one request and its estimated tokens. Returns the reserved tokens."""
        if self.requests:
            self.requests.take(1)
        reserved = most * self.used
        if self.tokens:
            self.tokens.take(reserved)
        return reserved

    def correct(self, reserved: float, most: int, used: int | None) -> None:
        """Give back reserved tokens that were not used. When `used` is None (unknown), the reservation stays."""
        if used is None:
            return
        if self.tokens:
            self.tokens.take(used - reserved)
        if most and used:
            self.used += 0.05 * (min(1.0, used / most) - self.used)


@dataclass
class Concurrency:
    """The limit of requests in flight. It doubles each round trip until the first refusal; then it grows by addition
    and shrinks by ×0.75.
    """

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
        """Handle a 429 response to a request sent at time `sent`. Requests sent before the last reduction belong to the
        same burst.
        """
        if sent <= self._cut_at:
            return
        self._cut_at = now
        self._successes = 0
        self.ceiling = min(self.limit, float(in_flight))
        self.limit = max(1.0, self.ceiling * _CUT)
        self.cuts += 1


def backoff(attempt: int, longest: float = 30.0) -> float:
    """Seconds to wait after attempt `attempt`. They double from half a second; jitter varies them down to a quarter."""
    return min(longest, 0.5 * 2.0 ** (attempt - 1)) * (0.25 + 0.75 * random.random())
