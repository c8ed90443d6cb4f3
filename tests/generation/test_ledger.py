"""The ledger of a run and the account of a teacher: which costs count as spent, and which replies are kept."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest
from support.corpora import corpus_of, row
from support.scheduling import PROMPT, answered, broken

from synthgen.errors import CorpusError
from synthgen.generation import ledger as module
from synthgen.generation.account import Account
from synthgen.generation.budget import Budget
from synthgen.generation.cache import Cache, Entry
from synthgen.generation.ledger import Ledger, Spent, discard, spent
from synthgen.generation.prices import PICO, Prices
from synthgen.generation.work import Item
from synthgen.teachers.base import Call
from synthgen.teachers.usage import Bill


def line(usd: int, tokens: int, held: int = 0, held_tokens: int = 0) -> str:
    state = {
        "picodollars": usd, "tokens": tokens, "reserved_picodollars": held, "reserved_tokens": held_tokens
    }  # fmt: skip
    return json.dumps(state) + "\n"


def written(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text(text)


def test_reserved_and_spent_amounts_count_after_a_kill(tmp_path):
    async def use(ledger: Ledger) -> None:
        await ledger.reserve(Spent(100, 10))
        assert spent(tmp_path) == Spent(100, 10)
        ledger.settle(Spent(100, 10), Spent(30, 4))
        await ledger.add(Spent(5, 1))
        assert spent(tmp_path) == Spent(35, 5)
        await ledger.add(Spent(-2, 0))
        await ledger.reserve(Spent(7, 3))

    ledger = Ledger(tmp_path)
    assert (ledger.before, spent(tmp_path)) == (Spent(), Spent())
    asyncio.run(use(ledger))
    assert spent(tmp_path) == Spent(33 + 7, 5 + 3)
    later = Ledger(tmp_path)
    assert later.before == Spent(40, 8)
    assert spent(tmp_path) == Spent(40, 8), "the file of the second process adds nothing yet"
    ledger.close()
    later.close()
    assert len(list(tmp_path.glob("1-of-1-*.jsonl"))) == 2


def test_what_nobody_waits_for_is_written_soon_and_together(tmp_path):
    async def use() -> list[int]:
        ledger, lines = Ledger(tmp_path), []
        for _ in range(50):
            ledger.settle(Spent(), Spent(1, 1))
        await asyncio.sleep(0)
        lines.append(count())
        began = time.monotonic()
        while spent(tmp_path) != Spent(50, 50):
            await asyncio.sleep(0.01)
        assert 0.05 < time.monotonic() - began < 9
        lines.append(count())
        ledger.settle(Spent(), Spent(1, 1))
        ledger.close()
        return [*lines, count()]

    def count() -> int:
        return sum(len(path.read_text().splitlines()) for path in tmp_path.iterdir())

    assert asyncio.run(use()) == [1, 2, 3]
    assert spent(tmp_path) == Spent(51, 51)


def test_only_what_nobody_waits_for_is_written_later(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 30)

    async def use() -> None:
        await asyncio.wait_for(ledger.reserve(Spent(5, 5)), 20)
        await asyncio.wait_for(ledger.add(Spent(1, 1)), 20)
        ledger.settle(Spent(5, 5), Spent(2, 2))
        await asyncio.sleep(0.2)
        assert spent(tmp_path) == Spent(6, 6), "the last line is from before"

    ledger = Ledger(tmp_path)
    assert ledger.path.stat().st_mode & 0o133 == 0, "nobody else writes to it"
    asyncio.run(use())
    ledger.close()
    assert spent(tmp_path) == Spent(3, 3)


def test_a_ledger_works_in_one_loop_after_another(tmp_path):
    ledger = Ledger(tmp_path)
    for number in range(1, 4):
        asyncio.run(ledger.add(Spent(1, 1)))
        assert spent(tmp_path) == Spent(number, number)
    ledger.close()


def test_an_error_of_the_disk_reaches_everyone_who_waits(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)

    def broken_disk(line: bytes) -> None:
        raise OSError("no space")

    monkeypatch.setattr(ledger, "_write", broken_disk)

    async def use() -> None:
        found = await asyncio.gather(*(ledger.add(Spent(1, 1)) for _ in range(3)), return_exceptions=True)
        assert [str(error) for error in found] == ["no space"] * 3
        with pytest.raises(OSError, match="no space"):
            ledger.settle(Spent(), Spent(1, 1))

    asyncio.run(use())
    ledger.close()


def test_other_divisions_of_a_run_count_in_equal_shares(tmp_path):
    written(tmp_path, "1-of-3-aa", line(10, 10))
    written(tmp_path, "1-of-3-ab", line(5, 1, 1, 2))
    written(tmp_path, "2-of-3-aa", line(700, 700))
    written(tmp_path, "1-of-2-aa", line(100, 7))
    written(tmp_path, "1-of-1-aa", line(1, 1))
    written(tmp_path, "notes", "{")
    assert spent(tmp_path, (1, 3)) == Spent(16 + 34, 13 + 3), "a share is rounded up"
    assert spent(tmp_path, (2, 3)) == Spent(700 + 34, 700 + 3)
    assert spent(tmp_path, (1, 1)) == Spent(1 + 816, 1 + 720)
    assert spent(tmp_path / "none") == Spent()


def test_the_last_whole_line_counts(tmp_path):
    name = "1-of-1-aa"
    for text, found in (
        (line(1, 1) + line(3, 4, 5, 6), Spent(8, 10)),
        (line(1, 1) + line(3, 4)[:-1], Spent(1, 1)),
        (line(1, 1) + '{"picodollars": 9', Spent(1, 1)),
        (line(1, 1) + "\n\n", Spent(1, 1)),
        ("", Spent()),
        (line(2, 2) * 500 + line(9, 9), Spent(9, 9)),
    ):
        written(tmp_path, name, text)
        assert spent(tmp_path) == found
    for text in (
        "{\n",
        "[]\n",
        "{}\n",
        line(1, 1).replace("1", "1.5", 1),
        line(1, 1).replace('"tokens": 1', '"tokens": 1.0'),
        "7\n",
    ):
        written(tmp_path, name, line(1, 1) + text)
        with pytest.raises(CorpusError, match=r"1-of-1-aa\.jsonl is damaged"):
            spent(tmp_path)


def test_a_ledger_is_deleted_with_its_files_only(tmp_path):
    folder = tmp_path / "ledger"
    written(folder, "1-of-1-aa", line(1, 1))
    written(folder, "1-of-1-other", line(1, 1))
    discard(folder)
    assert [path.name for path in folder.iterdir()] == ["1-of-1-other.jsonl"]
    (folder / "1-of-1-other.jsonl").unlink()
    discard(folder)
    assert not folder.exists()
    discard(folder)


def test_the_costs_of_rows_replace_a_lost_ledger(tmp_path):
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "reasoning_tokens": None, "cached_tokens": None}
    rows = [row("x", 0, cost_usd=2e-12, usage=usage), row("y", 1, cost_usd=1.5, usage=None), row("z", 2)]
    run = corpus_of(tmp_path, rows, size=2)
    shards = sorted((run / "generated" / "data").iterdir())
    first = Ledger(tmp_path / "ledger", shards=shards)
    assert first.before == first.spent == Spent(1_500_000_000_002, 12)
    first.close()
    second = Ledger(tmp_path / "ledger", shards=shards)
    assert (second.before, second.spent) == (Spent(1_500_000_000_002, 12), Spent())
    second.close()
    assert spent(tmp_path / "ledger") == Spent(1_500_000_000_002, 12)


# Account

PRICES = Prices(7, 11, 7)
CALL = Call(b"q", b"k" * 32, PROMPT, 20, 5)


class Answering:
    """A teacher that reads every reply as `reply`."""

    identity = {"model": "m"}

    def __init__(self, reply, paid: bool = True) -> None:
        self.reply, self.paid = reply, paid

    def read(self, request, body: bytes):
        assert body == b"body"
        return self.reply


def account(reply=None, *, paid: bool = True, prices=PRICES, budget=None, cache=None, ledger=None) -> Account:
    budget = budget or Budget(None, None, Spent())
    return Account(Answering(reply, paid), cache, budget=budget, prices=prices, ledger=ledger)


def test_the_most_a_request_costs():
    books = account()
    assert books.most(CALL) == Spent(20 * 7 + 5 * 11, 25)
    books.budget.excess = 1.01
    assert books.most(CALL) == Spent(197, 26), "rounded up"
    assert account(prices=None).most(CALL) == Spent(0, 25)


@pytest.mark.parametrize(
    ("reply", "usd", "tokens"),
    [
        (answered(), 10 * 7 + 5 * 11, 15),
        (answered(batched=True), 10 * 4 + 5 * 6, 15),  # half of each price, rounded up
        (answered(bill=Bill(None, 3e-12, None)), 3, 15),
        (answered(bill=Bill(None, 2.1e-12, "fast")), 3, 15),
        (answered(bill=Bill(None, None, None)), 125, 15),
        (answered(bill=Bill(None, None, "fast")), 999, 15),
        (broken("schema"), 999, 777),
        (answered(completion=None), 10 * 7, 10),
        (answered(prompt=None), 5 * 11, 5),
    ],
)
def test_what_a_reply_costs(reply, usd, tokens):
    books = account()
    assert books.spent(reply, Spent(999, 777)) == Spent(usd, tokens)
    known = None if usd == 999 else usd / PICO
    assert books.priced(reply).cost_usd == known


def test_costs_without_a_price_or_without_pay():
    assert account(prices=None).priced(answered()).cost_usd is None
    assert account(prices=None).usd is None
    assert account(paid=False).priced(broken("schema")).cost_usd == 0
    half = account(budget=Budget(None, None, Spent(PICO // 2, 0)))
    assert half.usd == 0.5


def test_reservations_grow_after_a_reply_that_cost_too_much():
    books = account(budget=Budget(10**9, None, Spent()))
    assert books.overspent(Spent(100, 25), Spent(100, 25), 1.0) is None
    assert books.budget.excess == 1
    assert books.overspent(Spent(200, 25), Spent(100, 25), 1.0) is None
    assert books.budget.excess == pytest.approx(2 * 1.25)
    assert books.overspent(Spent(0, 30), Spent(0, 25), 1.0) is None
    assert books.budget.excess == pytest.approx(2.5), "it never shrinks"
    said = books.overspent(Spent(9, 75), Spent(9, 25), 2.0)
    assert said.startswith("a request used 75 tokens, and at most 25 were expected")
    assert books.budget.excess == pytest.approx(2 * 3 * 1.25)
    assert account().overspent(Spent(9, 75), Spent(9, 25), 1.5) is None, "without a budget"
    assert books.overspent(Spent(9, 1), Spent(9, 0), 1.0) is None
    assert books.overspent(Spent(1, 2), Spent(0, 1), 1.0) is None
    for usd, tokens in ((9, 1), (1, 9), (9, 0)):
        books.budget.excess = 1.0
        books.overspent(Spent(usd, tokens), Spent(1, 1), 1.0)
        assert books.budget.excess == pytest.approx(9 * 1.25)


@pytest.mark.parametrize(
    ("bill", "prices", "tier"),
    [
        (None, Prices(1, 1, 1), None),
        (Bill(None, None, "fast"), Prices(1, 1, 1), "fast"),
        (Bill(None, 0.5, "fast"), Prices(1, 1, 1), None),
        (Bill(None, None, "fast"), None, None),
        (Bill(None, None, "fast"), Prices(1, 1, 1, "fast"), None),
        (Bill(None, None, None), Prices(1, 1, 1), None),
    ],
)
def test_a_tier_without_a_price(bill, prices, tier):
    assert account(prices=prices).unpriced(answered(bill=bill)) == tier


def test_only_what_was_reserved_or_spent_is_in_the_ledger(tmp_path):
    async def use(limit: int | None) -> Spent:
        ledger = Ledger(tmp_path / str(limit))
        books = account(budget=Budget(None, limit, Spent()), ledger=ledger)
        noted = await books.reserve(Spent(8, 8))
        assert spent(tmp_path / str(limit)) == noted
        books.budget.hold(Spent(8, 8))
        await books.settle(Spent(8, 8), Spent(2, 3), noted)
        ledger.close()
        assert (books.budget.held, books.budget.spent) == (Spent(), Spent(2, 3))
        assert spent(tmp_path / str(limit)) == Spent(2, 3)
        return noted

    assert asyncio.run(use(None)) == Spent(), "without a limit nothing is reserved"
    assert asyncio.run(use(99)) == Spent(8, 8)
    assert asyncio.run(account(budget=Budget(None, 9, Spent())).reserve(Spent(1, 1))) == Spent()


def test_which_replies_are_found_in_the_cache(tmp_path):
    async def use() -> None:
        cache = Cache(tmp_path / "replies.sqlite")
        books = account(answered(), cache=cache)
        item = Item((None, 0), None, CALL)
        books.read_ahead([item])
        assert books.look_up(item, False) is None
        await books.settle(Spent(), Spent(), Spent(), (CALL.key, Entry(b"body", None)))
        assert books.look_up(item, False).text == "fine", "it was stored after the look"
        books.read_ahead([item])
        assert books.look_up(item, False).cost_usd == 125 / PICO
        assert books.look_up(item, True).text == "fine"
        item.tries = 1
        assert books.look_up(item, False) is None
        item.tries = 0
        for reply, found in ((broken("empty"), "empty"), (broken("schema", invalid=True), None)):
            other = account(reply, cache=cache)
            other.read_ahead([item])
            reply = other.look_up(item, False)
            assert (reply and reply.failure[0]) == found
        free = account(answered(), cache=cache, paid=False)
        free.read_ahead([item])
        assert free.look_up(item, True) is None
        await free.settle(Spent(), Spent(), Spent(), (b"n" * 32, Entry(b"body", None)))
        assert cache.get(b"n" * 32) is None
        await books.settle(Spent(), Spent(), Spent(), (b"f" * 32, Entry(None, ("refusal", "no"))))
        failed = Item((None, 0), None, Call(b"f", b"f" * 32, 1, 1, 1))
        assert books.look_up(failed, True).failure == ("refusal", "no")
        cache.close()
        alone = account(answered())
        alone.read_ahead([item])
        assert alone.look_up(item, True) is None, "there is no cache"
        await alone.settle(Spent(1, 1), Spent(2, 2), Spent(), (b"n" * 32, Entry(b"body", None)))
        assert alone.budget.spent == Spent(2, 2)

    asyncio.run(use())
    again = Cache(tmp_path / "replies.sqlite", retry_failed=True)
    item = Item((None, 0), None, CALL)
    for reply, found in ((broken("empty"), None), (answered(), "fine")):
        look = account(reply, cache=again)
        look.read_ahead([item])
        kept = look.look_up(item, False)
        assert (kept and kept.text) == found
    again.close()
    assert module.FOLDER == "ledger"
