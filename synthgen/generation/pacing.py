"""Limits how fast requests are sent: token buckets for requests and tokens a minute, and a limit of requests in flight,
which is reduced after 429 responses.

All times are in seconds of one monotonic clock. The classes of this module do not sleep; their methods return how long
to wait.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

_CUT = 0.75  # factor by which the limit of requests in flight is reduced after each burst of refusals
# The limit of requests in flight grows by one after this many successes: `_SLOW` if the limit is at least 90% of
# `Concurrency.ceiling`, and `_FAST` if it is lower.
_SLOW = 25
_FAST = 5
_SHARE = 0.98  # share of the quota that is used: clocks differ, and a refusal costs more than the unused 2%
_BURST = 1.0  # a bucket holds the quota of this many seconds, since providers enforce limits over less than a minute


class Bucket:
    """A token bucket, which is refilled evenly with `per_minute` units a minute. More units can be taken than the
    bucket holds; the level of the bucket is then negative.
    """

    def __init__(self, per_minute: float, now: float) -> None:
        self.rate = per_minute * _SHARE / 60
        self.capacity = max(1.0, self.rate * _BURST)
        self.level = min(1.0, self.capacity)
        self.then = now

    def wait(self, need: float, now: float) -> float:
        """Seconds until `need` units can be taken."""
        self.level = min(max(self.capacity, self.level), self.level + (now - self.then) * self.rate)
        self.then = now
        return max(0.0, (min(need, self.capacity) - self.level) / self.rate)

    def take(self, need: float) -> None:
        """Take `need` units after `wait` returned 0. A negative need gives units back."""
        self.level -= need


class Quota:
    """Limits of requests and tokens a minute. Before a request is sent, an estimate of its tokens is taken from the
    quota. When the reply arrives, the actual number replaces the estimate.

    Earlier requests used, on average, a certain share of their maximum number of tokens. The estimate is this share of
    the request's own maximum. If the whole maximum were reserved and replies used half of it, half of the quota would
    be unused while requests are in flight.
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
        """Take one request and its estimated tokens from the quota. Returns the number of reserved tokens."""
        if self.requests:
            self.requests.take(1)
        reserved = most * self.used
        if self.tokens:
            self.tokens.take(reserved)
        return reserved

    def correct(self, reserved: float, most: int, used: int | None) -> None:
        """Replace the reserved number of tokens by the number `used`. When `used` is None, nothing changes."""
        if used is None:
            return
        if self.tokens:
            self.tokens.take(used - reserved)
        if most and used:
            self.used += 0.05 * (min(1.0, used / most) - self.used)


@dataclass
class Concurrency:
    """The limit of requests in flight. The limit grows by one with each success, and thus doubles in each round trip,
    until the server refuses a request (status 429). From then on, the limit grows by one after several successes. After
    each burst of refusals, the limit is multiplied by 0.75.
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
        """Take a successful request into account, which may increase the limit."""
        if self.ceiling is None:
            self.limit = min(float(self.most), self.limit + 1)
            return
        self._successes += 1
        if self._successes >= (_FAST if self.limit < self.ceiling * 0.9 else _SLOW):
            self._successes = 0
            self.limit = min(float(self.most), self.limit + 1)
            self.ceiling = max(self.ceiling, self.limit)

    def refused(self, sent: float, in_flight: int, now: float) -> None:
        """Reduce the limit after a 429 response to a request that was sent at time `sent`. Requests that were sent
        before the last reduction belong to the same burst of refusals and do not reduce the limit again.
        """
        if sent <= self._cut_at:
            return
        self._cut_at = now
        self._successes = 0
        self.ceiling = min(self.limit, float(in_flight))
        self.limit = max(1.0, self.ceiling * _CUT)
        self.cuts += 1


def backoff(attempt: int, longest: float = 30.0) -> float:
    """The seconds to wait before the next attempt, after `attempt` failed attempts. The time is half a second after the
    first attempt and doubles with each attempt, up to `longest`. The waiting time is then multiplied by a random factor
    between 0.25 and 1.
    """
    return min(longest, 0.5 * 2.0 ** (attempt - 1)) * (0.25 + 0.75 * random.random())
