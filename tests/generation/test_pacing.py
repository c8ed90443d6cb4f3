"""The exact waits and limits of pacing, without a clock."""

from __future__ import annotations

import random

import pytest

from synthgen.generation.pacing import Bucket, Concurrency, Quota, backoff


def bucket(per_second: float, now: float = 100.0) -> Bucket:
    """A bucket whose limit, less the margin of 2%, is `per_second` units a second."""
    return Bucket(per_second * 60 / 0.98, now)


def test_a_bucket_holds_the_units_of_one_second():
    ten = bucket(10)
    assert (ten.rate, ten.capacity, ten.level) == pytest.approx((10, 10, 1))
    assert ten.wait(1, 100.0) == 0
    assert ten.wait(4, 100.0) == pytest.approx(0.3)
    assert ten.wait(4, 100.1) == pytest.approx(0.2)
    assert ten.level == pytest.approx(2)
    assert ten.wait(10, 107.0) == 0
    assert ten.level == pytest.approx(10), "it never holds more than one second's units"
    ten.take(25)
    assert ten.wait(3, 107.0) == pytest.approx(1.8)
    assert ten.wait(10**6, 107.0) == pytest.approx(2.5), "a large request waits for a full bucket"
    ten.take(-40)
    assert ten.wait(1, 107.5) == 0
    assert ten.level == pytest.approx(25), "units that were given back stay"


def test_a_slow_bucket_holds_one_unit():
    slow = bucket(0.1)
    assert (slow.capacity, slow.level) == (1, 1)
    slow.take(1)
    assert slow.wait(1, 100.0) == pytest.approx(10)
    assert slow.wait(1, 104.0) == pytest.approx(6)
    assert Bucket(60, 0.0).rate == pytest.approx(0.98)


def test_a_quota_of_requests_and_tokens():
    quota = Quota(600, 6000, 0.0)
    assert quota.wait(1, 0.0) == (0.0, "tpm"), "nothing to wait for"
    assert quota.reserve(50) == 50
    assert quota.requests.level == 0
    assert quota.tokens.level == pytest.approx(1 - 50)
    requests, tokens = 1 / (10 * 0.98), (1 + 49) / (100 * 0.98)
    assert quota.wait(1, 0.0) == (pytest.approx(tokens), "tpm")
    assert quota.wait(1, 0.5) == (pytest.approx(tokens - 0.5), "tpm")
    quota = Quota(600, None, 0.0)
    assert quota.reserve(50) == 50
    assert quota.wait(50, 0.0) == (pytest.approx(requests), "rpm")
    quota = Quota(None, None, 0.0)
    assert quota.reserve(50) == 50
    assert quota.wait(50, 0.0) == (0.0, "")


def test_a_quota_reserves_what_earlier_requests_used():
    quota = Quota(None, 60_000, 0.0)
    quota.correct(quota.reserve(100), 100, 20)
    assert quota.used == pytest.approx(1 - 0.05 * 0.8)
    assert quota.tokens.level == pytest.approx(1 - 20)
    assert quota.reserve(100) == pytest.approx(96)
    level = quota.tokens.level
    quota.correct(96, 100, None)
    assert quota.tokens.level == level, "an unknown number changes nothing"
    quota.correct(96, 100, 0)
    assert (quota.tokens.level, quota.used) == (pytest.approx(level + 96), pytest.approx(0.96))
    quota.correct(0, 0, 7)
    assert (quota.tokens.level, quota.used) == (pytest.approx(level + 89), pytest.approx(0.96))
    quota.used = 0.5
    quota.correct(0, 100, 900)
    assert quota.used == pytest.approx(0.5 + 0.05 * 0.5), "a share is at most 1"
    quota = Quota(None, 60_000, 0.0)
    quota.used = 0.5
    assert quota.wait(100, 0.0)[0] == pytest.approx((50 - 1) / 980)


def test_a_limit_of_requests_in_flight():
    assert Concurrency(8).limit == 8
    pace = Concurrency(100)
    assert (pace.limit, pace.ceiling, pace.cuts) == (32, None, 0)
    pace.success()
    assert pace.limit == 33
    pace.refused(0.0, 20, 5.0)
    assert (pace.limit, pace.ceiling, pace.cuts) == (15, 20, 1)
    pace.refused(5.0, 15, 6.0)
    assert pace.cuts == 1, "sent before the limit was reduced"
    grown = []
    for number in range(1, 120):
        before = pace.limit
        pace.success()
        grown += [number] if pace.limit > before else []
    assert grown == [5, 10, 15, 40, 65, 90, 115], "fast below 90% of the ceiling, slow above it"
    assert (pace.limit, pace.ceiling) == (22, 22)
    for _ in range(4):
        pace.success()
    pace.refused(7.0, 9, 8.0)
    assert (pace.limit, pace.ceiling, pace.cuts) == (6.75, 9, 2)
    for _ in range(4):
        pace.success()
    assert pace.limit == 6.75, "the count of successes begins anew"
    pace.refused(9.0, 1000, 10.0)
    assert pace.ceiling == 6.75


def test_the_limit_never_leaves_its_range():
    pace = Concurrency(4, limit=3)
    for _ in range(3):
        pace.success()
    assert pace.limit == 4
    pace.refused(0.0, 1, 1.0)
    assert pace.limit == 1
    for _ in range(500):
        pace.success()
    assert pace.limit == pace.ceiling == 4


def test_the_wait_doubles_up_to_its_longest(monkeypatch):
    for drawn, factor in ((0.0, 0.25), (1.0, 1.0)):
        monkeypatch.setattr(random, "random", lambda drawn=drawn: drawn)
        assert [backoff(n) / factor for n in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
        assert backoff(9, longest=7) == 7 * factor
