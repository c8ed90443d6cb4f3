"""Prices and budgets: exact sums of tokens and dollars, and which amounts fit under a limit."""

from __future__ import annotations

import pytest

from synthgen.errors import CorpusError, RecipeError
from synthgen.generation.budget import Budget, open_budget
from synthgen.generation.ledger import Ledger, Spent
from synthgen.generation.prices import PICO, Prices, prices
from synthgen.recipe import Recipe
from synthgen.tables.engines import ApiTeacher, TeacherSection

SEEDS = [{"path": "s.jsonl", "source": "s", "license": "MIT"}]


def api(**more) -> ApiTeacher:
    return ApiTeacher(**{"engine": "openai", "model": "m", "base_url": "http://host.test/v1", "license": "MIT", **more})


def recipe(budget: dict | None, *teachers: dict) -> Recipe:
    plain = {"engine": "openai", "base_url": "http://host.test/v1", "license": "MIT"}
    found = [{**plain, "model": f"m{number}", **teacher} for number, teacher in enumerate(teachers)]
    one = {"teacher": found[0]} if len(found) == 1 else {"teachers": {t["model"]: t for t in found}}
    return Recipe.model_validate({"task": "t", "seeds": SEEDS, "generate": {"budget": budget}, **one})


def used(prompt: int | None, completion: int | None, cached: int | None = None) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "cached_tokens": cached}


@pytest.mark.parametrize(
    ("usage", "cost"),
    [
        (used(10, 4), 10 * 7 + 4 * 11),
        (used(10, 4, 3), 7 * 7 + 3 * 2 + 4 * 11),
        (used(10, 4, 12), 10 * 2 + 4 * 11),
        (used(10, 0, 0), 10 * 7),
        (used(0, 4), 4 * 11),
        (used(None, None), 0),
    ],
)
def test_the_cost_of_tokens(usage, cost):
    assert Prices(7, 11, 2).cost(usage) == cost


def test_the_most_that_tokens_may_cost():
    assert Prices(7, 11, 2).most(10, 4) == 10 * 7 + 4 * 11
    assert Prices(2, 11, 7).most(10, 4) == 10 * 7 + 4 * 11


def test_where_prices_come_from():
    assert prices(TeacherSection(model="m", license="MIT")) == Prices(0, 0, 0), "a local model costs nothing"
    assert prices(api()) is None
    assert prices(api(prices={"input": 0.15, "output": 0.6})) == Prices(150_000, 600_000, 150_000)
    assert prices(api(prices={"input": 0.15, "output": 0.6, "cached_input": 0})) == Prices(150_000, 600_000, 0)
    listed = {"model": "gpt-4o-mini", "base_url": "https://api.openai.com/v1"}
    assert prices(api(**listed)) == Prices(150_000, 600_000, 75_000)
    assert prices(api(**{**listed, "model": "gpt-4o-minimal"})) is None
    for path in ("api.openai.com/v1", "https://api.openai.com/v1"):
        assert prices(api(**{**listed, "base_url": f"https://other.test/{path}"})) is None


@pytest.mark.parametrize(
    ("priced", "tier", "covered"),
    [
        (None, None, True),
        (None, "flex", True),
        (None, "priority", False),
        ("flex", None, False),
        ("flex", "flex", True),
    ],
)
def test_prices_are_of_a_tier(priced, tier, covered):
    assert Prices(1, 1, 1, priced).covers(tier) == covered


@pytest.mark.parametrize(
    ("usd", "tokens", "most", "fits"),
    [
        (None, None, Spent(10**30, 10**30), True),
        (100, None, Spent(70, 10**9), True),
        (100, None, Spent(71, 0), False),
        (None, 50, Spent(10**30, 33), True),
        (None, 50, Spent(0, 34), False),
        (100, 50, Spent(70, 33), True),
        (100, 50, Spent(71, 33), False),
        (100, 50, Spent(70, 34), False),
    ],
)
def test_what_was_spent_and_what_is_held_count_together(usd, tokens, most, fits):
    budget = Budget(usd, tokens, Spent(20, 10))
    assert budget.limited == (usd is not None or tokens is not None)
    assert not budget.holds
    budget.hold(Spent(10, 7))
    assert budget.holds
    assert budget.fits(most) == fits
    budget.settle(Spent(10, 7), Spent(4, 3))
    assert (budget.held, budget.spent) == (Spent(), Spent(24, 13))
    assert not budget.holds
    budget.hold(Spent(0, 1))
    assert budget.holds


def test_a_budget_as_text():
    spent = Spent(PICO // 2, 1200)
    assert Budget(PICO, 5000, spent).text() == "$0.5000 of $1.0000, 1,200 of 5,000 tokens"
    assert Budget(PICO, None, spent).text() == "$0.5000 of $1.0000"
    assert Budget(None, 5000, spent).text() == "1,200 of 5,000 tokens"
    assert Budget(None, None, spent).text() == ""


def test_each_machine_has_its_share():
    priced = {"prices": {"input": 1, "output": 1}}
    for parts, usd, tokens in ((1, 250_000_000_000, 10), (3, 83_333_333_333, 3)):
        budget = open_budget(recipe({"usd": 0.25, "tokens": 10}, priced), Spent(5, 6), parts)
        assert (budget.usd, budget.tokens, budget.spent) == (usd, tokens, Spent(5, 6))
    assert not open_budget(recipe(None, {}), Spent()).limited
    assert open_budget(recipe({"tokens": 9}, {}), Spent()).usd is None


def test_dollars_need_the_price_of_every_teacher_and_tier():
    priced = {"prices": {"input": 1, "output": 1}}
    with pytest.raises(RecipeError, match="price of 'm0' is not known"):
        open_budget(recipe({"usd": 1}, {}), Spent())
    with pytest.raises(RecipeError, match="service tier 'priority'"):
        open_budget(recipe({"usd": 1}, {**priced, "extra": {"service_tier": "priority"}}), Spent())
    named = {"input": 1, "output": 1, "service_tier": "priority"}
    assert open_budget(recipe({"usd": 1}, {"prices": named, "extra": {"service_tier": "Priority"}}), Spent()).limited


def test_without_a_ledger_damaged_rows_have_no_known_cost(tmp_path):
    (tmp_path / "train-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match=r"train-00000\.parquet is damaged"):
        Ledger(tmp_path / "ledger", shards=[tmp_path / "train-00000.parquet"])
    assert not (tmp_path / "ledger").exists()
