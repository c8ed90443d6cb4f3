"""With a server full of faults, every request becomes one row or one failure, nothing hangs, and the budget holds."""

from __future__ import annotations

import time

import pytest
from support.reading import read
from support.serving import KEY, Serving, write_recipe

import synthgen
from synthgen.generation.scheduler import BudgetReached
from synthgen.teachers.base import FAILURES

pytestmark = pytest.mark.slow

# The probability of each fault for a request. The probabilities add up to 30%.
FAULTS = {
    "429": 0.03,
    "429:1": 0.01,
    "429:date": 0.01,
    "500": 0.03,
    "503": 0.02,
    "503:1": 0.01,
    "timeout": 0.02,
    "reset": 0.03,
    "half": 0.03,
    "badjson": 0.03,
    "wrongschema": 0.02,
    "emptychoices": 0.02,
    "huge": 0.01,
    "length": 0.02,
    "filter": 0.01,
}


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    monkeypatch.setenv("SYNTHGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    running = []

    def start(**config) -> Serving:
        running.append(Serving(**config))
        return running[-1]

    yield start
    for server in running:
        server.stop()


@pytest.mark.parametrize("seed", [1, 2])
def test_every_request_becomes_one_row_or_one_failure(hostile, tmp_path, seed):
    assert sum(FAULTS.values()) == pytest.approx(0.30)
    server = hostile(latency=0.02, jitter=0.05, faults=FAULTS, seed=seed)
    path = write_recipe(
        tmp_path / "task",
        server.url,
        seeds=300,
        teacher={"timeout": 1.5, "max_in_flight": 48},
        generate={"shard_size": 32},
    )
    began = time.monotonic()
    rows, failures, manifest = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    stats = server.stats()
    print(f"\n{len(rows)} rows, {len(failures)} failures in {time.monotonic() - began:.1f} s; {stats['statuses']}")
    assert len(rows) + len(failures) == 300
    assert len({r.id for r in rows} | {f["id"] for f in failures}) == 300
    assert {f["kind"] for f in failures} <= set(FAILURES)
    assert {"too_large", "content_filter"} <= {f["kind"] for f in failures}
    assert {r.finish_reason for r in rows} == {"stop", "length"}
    assert len(rows) > 280  # requests that can succeed later are sent again
    assert all(r.text and "ERROR" not in r.text for r in rows)
    assert stats["most_in_flight"] <= 48
    assert stats["in_flight"] <= stats["statuses"].get("timeout", 0)
    assert manifest["counts"]["failures"] == len(failures)


def test_budget_holds_with_faults(hostile, tmp_path):
    server = hostile(latency=0.01, faults=FAULTS, seed=3)
    for limit in (0.0005, 0.0013, 0.0021):
        path = write_recipe(
            tmp_path / "task", server.url, seeds=300, teacher={"timeout": 1.5}, generate={"budget": {"usd": limit}}
        )
        with pytest.raises(BudgetReached):
            synthgen.generate(synthgen.load_recipe(path), tmp_path / "run")
        billed = server.stats()["usd_pico"] / 1e12
        print(f"\nbudget ${limit}: the server billed ${billed:.6f}")
        assert 0 < billed <= limit


@pytest.mark.parametrize(("quota", "count"), [("rpm", 240), ("tpm", 240), ("both", 240)])
def test_quota_is_used(hostile, tmp_path, quota, count):
    """The server enforces a quota for each second. The test prints which share of the quota was used."""
    rpm = 1800 if quota in ("rpm", "both") else None
    # The server counts 21 or 22 tokens for a reply.
    tpm = 1800 * 22 if quota in ("tpm", "both") else None
    server = hostile(latency=0.1, rpm=rpm, tpm=tpm, burst=1.0)
    teacher = {"rpm": rpm, "tpm": tpm, "max_in_flight": 64}
    path = write_recipe(tmp_path / "task", server.url, seeds=count, teacher=teacher, generate={"shard_size": 64})
    rows, failures, _ = read(synthgen.generate(synthgen.load_recipe(path), tmp_path / "run").folder)
    stats = server.stats()
    accepted = stats["accepted"]
    seconds = accepted[-1][0] - accepted[0][0]
    shares = []
    if rpm:
        shares.append(len(accepted) / (rpm / 60 * seconds))
    if tpm:
        shares.append(sum(tokens for _, tokens in accepted) / (tpm / 60 * seconds))
    print(f"\n{quota}: {max(shares):.3f} of the quota used; refused {stats['statuses'].get('429 quota', 0)} times")
    assert len(rows) == count
    assert not failures
    # On an idle machine the share is 0.98. The limit leaves room for a busy machine.
    assert max(shares) > 0.8
    assert stats["statuses"].get("429 quota", 0) < count / 4
