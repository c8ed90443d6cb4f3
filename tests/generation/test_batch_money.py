"""Batches of a server that counts tokens wrongly, or answers with another service tier: the limits of their cost."""

from __future__ import annotations

import importlib
import json

import pytest
from support.reading import read
from support.serving import write_recipe

import synthgen
from synthgen.errors import SynthgenError, TeacherError, UserError
from synthgen.generation import ledger
from synthgen.generation.prices import Prices

EVERY = 10**9
# A request of these recipes has at most about 530 tokens. This usage has about ten times as many.
TENFOLD = {"usage": {"prompt_tokens": 5000, "completion_tokens": 160}}
SEEDS = 80


def command(tmp_path, server, name: str = "run", sets=(), **recipe):
    path = write_recipe(tmp_path / "task", server.url, **{"seeds": SEEDS, **recipe})
    return lambda: read(synthgen.generate(synthgen.load_recipe(path, list(sets)), tmp_path / name, batch=True).folder)


def spent(tmp_path, name: str = "run") -> float:
    return ledger.spent(tmp_path / name / "ledger").usd / 1e12


def stop_at_journal(monkeypatch, entries: int, key: str) -> None:
    """Raise KeyboardInterrupt instead of writing the journal when it has this many entries and its last entry has
    `key`.
    """
    durable = importlib.import_module("synthgen.generation.batch").durable
    whole = durable.write_json

    def write(target, value) -> None:
        if target.name == "batches.json" and len(value) == entries and key in value[-1]:
            raise KeyboardInterrupt
        whole(target, value)

    monkeypatch.setattr(durable, "write_json", write)


@pytest.mark.parametrize(
    "stopped", [None, (1, "batch"), (2, "file")], ids=["whole", "in the first batch", "before the second"]
)
def test_batches_reserve_more_after_one_wrong_count(serve, tmp_path, monkeypatch, stopped):
    """One reply of the first batch costs ten times its reservation. The other replies cost so little that most of the
    budget is left. From the second batch on, all replies cost ten times as much. With the usual reservations, the
    second batch would cost eight times the budget.
    """
    server = serve(batch={"polls": 0, "changes": [[1, TENFOLD], [EVERY, TENFOLD]]})
    go = command(tmp_path, server, generate={"budget": {"usd": 0.002}})
    if stopped is not None:  # another process continues after the interruption
        with monkeypatch.context() as during:
            stop_at_journal(during, *stopped)
            with pytest.raises(KeyboardInterrupt):
                go()
    with pytest.raises(UserError, match="budget is reached"):
        go()
    entries = json.loads((tmp_path / "run/generated/batches.json").read_text())
    print(f"\n{[entry['requests'] for entry in entries]} requests, ${spent(tmp_path):.6f} of $0.002")
    assert len(entries) >= 2
    assert 0.0006 < spent(tmp_path) <= 0.002
    assert entries[0]["requests"] > 10 * entries[1]["requests"]
    sent = server.stats()["paid"]
    with pytest.raises(UserError, match="budget is reached"):
        go()
    assert server.stats()["paid"] == sent


LIES = {
    "ten times the limit": {**TENFOLD},
    "total above its parts": {"usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 6000}},
    "own price": {"usage": {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.001}},
    "negative": {"usage": {"prompt_tokens": -(10**9), "completion_tokens": -(10**9)}},
    "nothing at no price": {"usage": {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}},
    "huge": {"usage": {"prompt_tokens": 10**13, "completion_tokens": 2}},
    "none": {"usage": None},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_budget_ends_what_the_batches_of_a_lying_server_may_cost(serve, tmp_path, lie):
    """Spending ends with the batch that was in flight at the first wrong count. If the server's counts can be bounded,
    spending stays within the budget.
    """
    server = serve(batch={"polls": 0, "changes": [[EVERY, lie]]})
    go = command(tmp_path, server, generate={"budget": {"usd": 0.001}})
    for _ in range(2):  # the same command again spends nothing more
        with pytest.raises(SynthgenError) as stop:
            go()
    batches, paid = len(server.stats()["batches"]), server.stats()["paid"]
    print(f"\n{batches} batches, {paid} replies, ${spent(tmp_path):.6f} of $0.001; {str(stop.value)[:90]}")
    assert spent(tmp_path) > 0.0009
    if spent(tmp_path) > 0.001:
        assert batches == 1


def test_counts_that_grow_without_limit_stop_the_batches(serve, tmp_path):
    grown = [[1, {"usage": {"prompt_tokens": 600 * 30**n, "completion_tokens": 2}}] for n in range(1, 4)]
    server = serve(batch={"polls": 0, "answered": 0.3, "status": "expired", "changes": grown})
    with pytest.raises(TeacherError, match="does not keep to the limit of tokens"):
        command(tmp_path, server, generate={"budget": {"tokens": 10**8}})()
    assert list(server.stats()["batches"].values()) == ["expired"] * 2


def test_a_server_that_bills_an_unknown_request_is_noticed_by_the_sum(serve, tmp_path):
    """The names of the answers differ from the names of the requests, so no reply can be compared with its own
    reservation.
    """
    server = serve(batch={"polls": 0, "changes": [[EVERY, TENFOLD]], "renamed": True})
    with pytest.raises(SynthgenError):
        command(tmp_path, server, generate={"budget": {"usd": 0.001}}, seeds=10)()
    assert json.loads((tmp_path / "run/generated/batches.json").read_text())[0]["excess"] > 9


@pytest.mark.parametrize("tier", ["batch", "default", None])
def test_the_tier_of_batches_has_half_the_usual_price(serve, tmp_path, tier):
    changes = {} if tier is None else {"service_tier": tier}
    server = serve(batch={"polls": 0, "changes": [[EVERY, changes]]})
    rows, _, _ = command(tmp_path, server, seeds=3, generate={"budget": {"usd": 1.0}})()
    assert [row.cost_usd for row in rows] == pytest.approx(
        [(row.usage["prompt_tokens"] * 0.15 + row.usage["completion_tokens"] * 0.6) / 2e6 for row in rows]
    )
    assert sum(row.cost_usd for row in rows) == pytest.approx(spent(tmp_path))


@pytest.mark.parametrize("tier", ["priority", "flex"])
def test_a_batch_with_another_tier_and_a_budget_in_dollars(serve, tmp_path, tier):
    server = serve(batch={"polls": 0, "changes": [[EVERY, {"service_tier": tier}]]})
    rows, _, _ = command(tmp_path, server, "free", seeds=3)()
    assert [row.cost_usd for row in rows] == [None] * 3
    with pytest.raises(TeacherError, match=f"service tier '{tier}', whose price is not known"):
        command(tmp_path, server, sets=["generate.seed=1"], seeds=3, generate={"budget": {"usd": 1.0}})()
    assert spent(tmp_path) > 0.0001  # the reservation of three requests
    asked = {"extra": {"service_tier": tier}, "prices": {"input": 1.0, "output": 2.0, "service_tier": tier}}
    rows, _, _ = command(tmp_path, server, "priced", seeds=3, teacher=asked, generate={"budget": {"usd": 1.0}})()
    for row in rows:  # no discount is known for another tier
        assert row.cost_usd == pytest.approx((row.usage["prompt_tokens"] + 2 * row.usage["completion_tokens"]) / 1e6)


def test_a_server_that_does_not_name_the_tier_and_one_that_names_the_usual_tier(serve, tmp_path):
    server = serve(batch={"polls": 0})
    asked = {"extra": {"service_tier": "flex"}, "prices": {"input": 1.0, "output": 2.0, "service_tier": "flex"}}
    recipe = {"seeds": 3, "teacher": asked, "generate": {"budget": {"usd": 1.0}}}
    rows, _, _ = command(tmp_path, server, **recipe)()
    for row in rows:
        assert row.cost_usd == pytest.approx((row.usage["prompt_tokens"] + 2 * row.usage["completion_tokens"]) / 1e6)
    server.set(batch={"polls": 0, "changes": [[EVERY, {"service_tier": "default"}]]})
    with pytest.raises(TeacherError, match="service tier 'default', whose price is not known"):
        command(tmp_path, server, "usual", sets=["generate.seed=1"], **recipe)()


def test_prices_in_a_batch():
    assert Prices(7, 11, 2).in_batch() == Prices(4, 6, 1, halved=True)
    assert Prices(7, 11, 2).in_batch().in_batch() == Prices(4, 6, 1, halved=True)
    assert not Prices(7, 11, 2).in_batch().covers("flex")
    assert Prices(7, 11, 2).in_batch().covers(None)
    for other in (Prices(7, 11, 2, tier="flex", asked="flex"), Prices(7, 11, 2, asked="flex")):
        assert other.in_batch() == other
        assert other.in_batch().covers("flex")


def test_a_price_although_replies_cost_nothing_stops_the_run(serve, tmp_path):
    server = serve(batch={"polls": 0, "changes": [[EVERY, LIES["own price"]]]})
    free = {"teacher": {"prices": {"input": 0, "output": 0}}, "generate": {"budget": {"usd": 1.0}}, "seeds": 3}
    with pytest.raises(TeacherError, match=r"states a price of \$0\.001000"):
        command(tmp_path, server, **free)()
    assert spent(tmp_path) == pytest.approx(0.003)
