"""Runs against a server with malformed replies: which replies become rows, are cached, are paid, or stop the run."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from support.serving import generated, read_generated, write_recipe
from support.wire import mutated, reply_with

import synthgen
from synthgen.errors import CorpusError, RecipeError, TeacherError
from synthgen.generation import interruption, ledger
from synthgen.generation.cache import Cache, Entry
from synthgen.generation.ledger import Ledger, Spent
from synthgen.generation.scheduler import BudgetReached

QUESTION = "What is 1?"


def answers(server, *replies, question: str = QUESTION) -> None:
    server.set(answers={question: [one if isinstance(one, str) else {"body": one} for one in replies]})


def one(tmp_path, server, name: str = "run", **recipe):
    seeds = [{"id": "q", "question": QUESTION}]
    return generated(
        tmp_path, server, name, seeds=seeds, teacher={"max_retries": 3, **recipe.pop("teacher", {})}, **recipe
    )


def cached(tmp_path) -> int:
    with sqlite3.connect(tmp_path / "cache/replies.sqlite") as db:
        return db.execute("SELECT count(*) FROM reply").fetchone()[0]


def test_an_error_with_status_200_is_that_error(serve, tmp_path):
    server = serve()
    answers(
        server, {"error": {"message": "slow down", "code": 429}}, {"error": {"message": "down", "code": 503}}, "Good."
    )
    rows, failures, _ = one(tmp_path, server)
    assert [r.text for r in rows] == ["Good."]
    answers(server, {"error": {"message": "no such key", "code": 401}})
    with pytest.raises(TeacherError, match=r"refuses every request: status 200 with an error: 401: .*no such key"):
        one(tmp_path, server, "second", generate={"seed": 1})
    answers(server, reply_with(choice={"error": {"code": 502, "message": "upstream"}, "finish_reason": "error"}))
    rows, failures, _ = one(tmp_path, server, "third", generate={"seed": 2}, teacher={"max_retries": 0})
    assert (rows, [f["kind"] for f in failures]) == ([], ["server"])
    assert "upstream" in failures[0]["reason"]
    assert cached(tmp_path) == 1  # only the good reply is cached


def test_a_server_without_any_valid_reply_stops_the_run_and_nothing_is_cached(serve, tmp_path):
    server = serve(answers={f"What is {i}?": [{"body": "<html>Sign in</html>"}] for i in range(40)})
    with pytest.raises(TeacherError, match=r"the first 20 replies of .* are not valid: .*HTML"):
        generated(tmp_path, server, seeds=40, teacher={"max_in_flight": 8})
    assert server.stats()["requests"] < 40
    assert cached(tmp_path) == 0
    server.set(answers={})
    rows, failures, _ = generated(tmp_path, server, seeds=40)
    assert (len(rows), failures) == (40, [])


def test_another_model_stands_in_the_row_and_its_sources(serve, tmp_path):
    server = serve()
    answers(server, reply_with(model="cheap/other"))
    [row], _, _ = one(tmp_path, server)
    assert row.served_model == "cheap/other"
    [other] = [source for source in row.sources if source["id"] == "cheap/other"]
    assert (other["role"], other["license"]) == ("generator", "unknown")
    answers(server, reply_with(model="m-20260801"))
    [row], _, _ = one(tmp_path, server, "second", generate={"seed": 1})
    assert row.served_model == "m-20260801"
    assert len(row.sources) == 3


def test_an_unknown_number_of_tokens_is_not_zero(serve, tmp_path):
    server = serve()
    answers(server, reply_with(usage={"prompt_tokens": 10, "completion_tokens": -5}))
    [row], _, _ = one(tmp_path, server, split={"test": 0.0}, curate={"length": None})
    assert row.usage is None
    counts = synthgen.curate(synthgen.load_recipe(tmp_path / "task" / "recipe.yaml"), tmp_path / "run").counts
    assert counts["kept"] == 1
    assert "tokens_kept" not in counts


def test_a_row_says_what_was_sent(serve, tmp_path):
    server = serve()
    extra = {"temperature": 0.3, "top_p": None, "max_completion_tokens": 700, "seed": 9}
    [row], _, _ = one(tmp_path, server, teacher={"extra": extra})
    [sent] = server.stats()["bodies_text"]
    assert row.sampling == {"temperature": 0.3, "top_p": None, "max_new_tokens": 700, "seed": 9, "sample_index": 0}
    assert "max_tokens" not in sent
    assert (sent["temperature"], sent["max_completion_tokens"], sent["seed"]) == (0.3, 700, 9)
    for bad in (
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"temperature": "hot"},
        {"n": 3},
        {"seed": True},
        {"best_of": 2},
    ):
        with pytest.raises(RecipeError, match=next(iter(bad))):
            one(tmp_path, server, "refused", teacher={"extra": bad})


def test_a_prompt_that_the_server_cut_is_noticed(serve, tmp_path):
    server = serve()
    long = " ".join(["word"] * 900)
    answers(server, reply_with(usage={"prompt_tokens": 512, "completion_tokens": 2}), question=long)
    seeds = [{"id": "long", "question": long}, {"id": "short", "question": "word " * 3}]
    rows, _, _ = generated(tmp_path, server, seeds=seeds)
    scores = {r.seed_id: {s["name"]: s["value"] for s in r.scores} for r in rows}
    assert scores["long"]["prompt_was_cut"] == pytest.approx(512 / 900)
    assert scores["short"] == {}


# Token counts that a server may state for a reply that used 2 tokens of a limit of 16.
LIES = {
    "ten times the limit": {"prompt_tokens": 10, "completion_tokens": 4002},
    "total above its parts": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 4012},
    "negative": {"prompt_tokens": -(10**9), "completion_tokens": -(10**9)},
    "huge": {"prompt_tokens": 10**13, "completion_tokens": 2},
    "wrong type": {"prompt_tokens": True, "completion_tokens": "2"},
    "own price": {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.002},
    "negative price": {"prompt_tokens": 10, "completion_tokens": 2, "cost": -1},
    "nothing at no price": {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0},
    "none": None,
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_budget_ends_what_a_lying_server_may_cost(serve, tmp_path, lie):
    """When the server counts wrongly, spending ends with the requests that were in flight at its first wrong count. If
    the counts of the server can be bounded, spending stays within the budget.
    """
    flight, budget = 4, 0.002
    body = reply_with(usage=lie)
    server = serve(answers={f"What is {i}?": [{"body": body}] for i in range(80)}, latency=0.002)
    recipe = {"seeds": 80, "teacher": {"max_in_flight": flight}, "generate": {"budget": {"usd": budget}}}
    said = ""
    for _ in range(2):  # the same command again spends nothing more
        try:
            generated(tmp_path, server, **recipe)
        except (BudgetReached, TeacherError) as stopped:
            said = str(stopped)
    paid = server.stats()["paid"]
    spent = ledger.spent(tmp_path / "run/ledger").usd / 1e12
    each = 0.0 if lie is None else lie.get("cost", 0) if lie.get("cost", 0) > 0 else spent / max(1, paid)
    print(f"\n{paid} replies, ${spent:.6f} of ${budget} in the ledger; {said[:100]}")
    assert paid < 80 or spent <= budget
    assert spent <= budget + flight * max(each, 0.0025)
    assert spent > 0


def test_counts_that_grow_without_limit_stop_the_run(serve, tmp_path):
    replies = {
        f"What is {i}?": [{"body": reply_with(usage={"prompt_tokens": 10, "completion_tokens": 40 * 3**i})}]
        for i in range(14)
    }
    server = serve(answers=replies)
    recipe = {"seeds": 14, "teacher": {"max_in_flight": 1}, "generate": {"budget": {"tokens": 10**9}}}
    with pytest.raises(TeacherError, match="does not keep to the limit of tokens"):
        generated(tmp_path, server, **recipe)
    assert server.stats()["paid"] <= 3


def test_an_unpriced_service_tier_and_a_budget_in_dollars(serve, tmp_path):
    server = serve()
    answers(server, reply_with(service_tier="priority"))
    [row], _, _ = one(tmp_path, server)
    assert row.cost_usd is None
    budget = {"budget": {"usd": 1.0}}
    with pytest.raises(TeacherError, match="service tier 'priority', whose price is not known"):
        one(tmp_path, server, "second", generate={**budget, "seed": 1})
    with pytest.raises(RecipeError, match="service tier 'priority' of 'm' is not known"):
        one(tmp_path, server, "third", generate=budget, teacher={"extra": {"service_tier": "priority"}})
    prices = {"input": 1.0, "output": 2.0, "service_tier": "priority"}
    teacher = {"prices": prices, "extra": {"service_tier": "priority"}}
    [row], _, _ = one(tmp_path, server, "fourth", generate={**budget, "seed": 2}, teacher=teacher)
    assert row.cost_usd == pytest.approx((10 * 1.0 + 2 * 2.0) / 1e6)


def test_the_ledger_outlives_the_cache_and_the_shards_outlive_the_ledger(serve, tmp_path):
    server = serve()
    recipe = {"seeds": 60, "teacher": {"max_in_flight": 2}, "generate": {"budget": {"usd": 0.0004}}}

    def again() -> int:
        with pytest.raises(BudgetReached):
            generated(tmp_path, server, **recipe)
        return server.stats()["paid"]

    paid = again()
    assert 0 < paid < 60
    shutil.rmtree(tmp_path / "cache")
    assert again() == paid
    if any((tmp_path / "run/generated/data").glob("*.parquet")):
        shutil.rmtree(tmp_path / "cache")
        shutil.rmtree(tmp_path / "run/ledger")
        assert again() - paid < paid  # the costs of committed rows still count
    (tmp_path / "run/ledger/1-of-1-00.jsonl").write_text('{"picodollars": "many"}\n')
    with pytest.raises(CorpusError, match="is damaged, so it is not known what this run has spent"):
        generated(tmp_path, server, **recipe)


def test_requests_reserve_more_and_the_run_goes_on_after_one_wrong_count(serve, tmp_path):
    """Every reply uses a little more than its reservation, always by the same factor."""
    body = reply_with(usage={"prompt_tokens": 10, "completion_tokens": 700})
    server = serve(answers={f"What is {i}?": [{"body": body}] for i in range(40)}, latency=0.002)
    budget = {"budget": {"tokens": 10**7}}
    rows, failures, _ = generated(tmp_path, server, seeds=40, teacher={"max_in_flight": 8}, generate=budget)
    assert (len(rows), failures) == (40, [])


def test_a_ledger_that_cannot_be_written_ends_whoever_waits(tmp_path):
    async def reserve() -> list[object]:
        book = Ledger(tmp_path)
        os.close(book._file)
        async with asyncio.timeout(5):
            return await asyncio.gather(*(book.reserve(Spent(1, 1)) for _ in range(8)), return_exceptions=True)

    assert all(isinstance(one, OSError) for one in asyncio.run(reserve()))


def test_a_canceled_reservation_cancels_no_other(tmp_path):
    async def reserve() -> list[object]:
        book = Ledger(tmp_path)
        tasks = [asyncio.create_task(book.reserve(Spent(1, 1))) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        book.close()
        return results

    first, second, third = asyncio.run(reserve())
    assert (first, third) == (None, None)
    assert isinstance(second, asyncio.CancelledError)


def test_the_ledger_counts_open_reservations_and_parts(tmp_path):
    async def write(part, *, end: bool) -> None:
        book = Ledger(tmp_path, part)
        await book.reserve(Spent(100, 10))
        await book.reserve(Spent(50, 5))
        book.settle(Spent(100, 10), Spent(30, 3))
        await book.add(Spent(1, 1))
        if end:
            book.close()

    asyncio.run(write((1, 1), end=False))
    assert ledger.spent(tmp_path) == Spent(30 + 50 + 1, 3 + 5 + 1)
    [path] = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"picodollars": 9')  # a kill left half a line
    assert ledger.spent(tmp_path) == Spent(81, 9)
    asyncio.run(write((1, 2), end=True))
    asyncio.run(write((2, 2), end=True))
    # part 1 of 2: its own costs, and half of what the run spent before it had parts
    assert ledger.spent(tmp_path, (1, 2)) == Spent(81 + 41, 9 + 5)
    ledger.discard(tmp_path)
    assert not tmp_path.exists()


def test_an_error_in_the_thread_of_the_cache_reaches_who_waits(tmp_path):
    cache = Cache(tmp_path / "replies.sqlite")

    async def store(made: int) -> None:
        sql, (key, kind, reason, body, model, _) = cache.put(b"k", Entry(b"{}"), "m")
        async with asyncio.timeout(5):
            await cache.commit([(sql, (key, kind, reason, body, model, made))])

    with pytest.raises(OverflowError):
        asyncio.run(store(2**70))
    asyncio.run(store(1))  # the thread has not ended
    assert cache.get(b"k") == Entry(b"{}")
    cache.close()


def test_a_failed_batch_reply_is_sent_again_with_retry_failed(serve, tmp_path):
    server = serve(batch={"polls": 0})
    answers(server, reply_with(message={"content": None}))
    path = write_recipe(tmp_path / "task", server.url, seeds=[{"id": "q", "question": QUESTION}])
    recipe = synthgen.load_recipe(path)
    rows, failures, _ = read_generated(synthgen.generate(recipe, tmp_path / "run", batch=True).folder)
    assert (rows, [f["kind"] for f in failures]) == ([], ["empty"])
    answers(server, reply_with())
    rows, failures, _ = read_generated(
        synthgen.generate(recipe, tmp_path / "run", batch=True, retry_failed=True).folder
    )
    assert ([r.text for r in rows], failures) == (["Yes."], [])


def test_a_status_of_a_batch_may_be_text(serve, tmp_path):
    server = serve(batch={"polls": 0}, answers={QUESTION: [{"body": reply_with(), "status_code": "200"}]})
    path = write_recipe(tmp_path / "task", server.url, seeds=[{"id": "q", "question": QUESTION}])
    rows, failures, _ = read_generated(
        synthgen.generate(synthgen.load_recipe(path), tmp_path / "run", batch=True).folder
    )
    assert ([r.text for r in rows], failures) == (["Yes."], [])
    assert ledger.spent(tmp_path / "run" / "ledger").tokens == 12


def test_a_batch_that_counts_no_tokens_costs_its_reservation(serve, tmp_path):
    server = serve(batch={"polls": 0})
    recipe = {"seeds": [{"id": "q", "question": QUESTION}]}
    path = write_recipe(tmp_path / "task", server.url, **recipe)
    costs = []
    for name, count in (("honest", 2), ("silent", 0)):
        answers(server, reply_with(usage={"prompt_tokens": 20, "completion_tokens": count}))
        changed = synthgen.load_recipe(path, [f"generate.seed={count}"])
        synthgen.generate(changed, tmp_path / name, batch=True)
        costs.append(ledger.spent(tmp_path / name / "ledger").tokens)
    assert costs[0] == 22
    assert costs[1] > 100  # at most one token for each byte of the request, plus max_new_tokens


def interrupted(tmp_path, server, *, signals: int, latency: float) -> tuple[int, float, str]:
    """Interrupt a run while requests are in flight. Returns (exit code, seconds until the end, stderr)."""
    server.set(latency=latency)
    path = write_recipe(tmp_path / "task", server.url, seeds=40, teacher={"max_in_flight": 6})
    command = [sys.executable, "-m", "synthgen.cli", "generate", str(path), "-o", str(tmp_path / "run")]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    while server.stats()["in_flight"] < 6 and process.poll() is None:
        time.sleep(0.02)
    began = time.monotonic()
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    _, said = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - began, said


def test_the_first_interruption_keeps_what_is_in_flight(serve, tmp_path):
    server = serve()
    code, _, said = interrupted(tmp_path, server, signals=1, latency=1.0)
    assert code == 130
    assert f"awaited for at most {interruption.GRACE:.0f} s and kept" in said
    stats = server.stats()
    assert stats["in_flight"] == 0
    assert cached(tmp_path) == stats["paid"] >= 6
    server.set(latency=0.0)
    rows, failures, _ = generated(tmp_path, server, seeds=40, teacher={"max_in_flight": 6})
    assert (len(rows), failures) == (40, [])
    assert server.stats()["paid_twice"] == 0


def test_the_second_interruption_cuts(serve, tmp_path):
    server = serve()
    code, seconds, _ = interrupted(tmp_path, server, signals=2, latency=30.0)
    assert code == 130
    assert seconds < 15


@pytest.mark.parametrize("count", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_replies_over_loopback(serve, tmp_path, count):
    """Each question always gets the same damaged reply, and different questions get different replies. The run ends,
    and each row keeps the promises of an answer.
    """
    draw = random.Random(23)
    replies = {}
    for i in range(count):
        while True:
            kind, _, body = mutated(draw)
            if kind == "sample" and b'"error"' not in body:  # errors have tests of their own, and may stop a run
                break
        replies[f"What is {i}?"] = [{"body": body.decode("latin-1")}]
    server = serve()
    server.set(answers=replies)
    rows, failures, _ = generated(tmp_path, server, seeds=count, teacher={"max_retries": 0})
    assert len(rows) + len(failures) == count
    for row in rows:
        assert row.finish_reason in ("stop", "length", "tool_calls")
        assert row.text.strip() or row.completion[0]["tool_calls"]
        assert row.cost_usd is None or row.cost_usd >= 0
        assert "<think>" not in row.text
    print(f"\n{len(rows)} rows, {len(failures)} failures")
    assert rows
    assert failures
