"""When the scheduler sends, waits, gives up and stops. The clock skips all waiting, so times are exact."""

from __future__ import annotations

import pytest
from support.scheduling import COMPLETION, PROMPT, answered, broken, busy, failing, of_tier, schedule

from synthgen.errors import TeacherError, UserError
from synthgen.generation.budget import Budget
from synthgen.generation.ledger import Spent
from synthgen.generation.prices import Prices
from synthgen.generation.scheduler import BudgetReached
from synthgen.teachers.base import Refused


def names(count: int, step) -> dict:
    return {f"q{number}": [step] for number in range(count)}


def times(found, question: str = "a") -> list[float]:
    return [at for name, at in found.sent if name == question]


def test_a_failed_request_waits_twice_as_long_each_time():
    found = schedule({"a": [failing()] * 9 + ["ok"]}, max_retries=9)
    assert times(found) == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5, 121.5]
    assert found.delivered == {"a": ["fine"]}
    live = found.scheduler.live
    assert (live.sent, live.retried, live.refused, live.in_flight) == (10, 9, 0, 0)


@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (4, 5)])
def test_retries_are_counted(retries, tries):
    found = schedule({"a": [failing()]}, max_retries=retries)
    assert len(found.sent) == tries
    assert found.delivered == {"a": ["server"]}
    assert found.scheduler.live.failures == {"server": 1}


def test_the_death_of_a_machine_costs_no_try_but_counts_as_spent():
    budget = Budget(None, 1000, Spent())
    lost = failing(kind="connection", lost=True, billed=True)
    found = schedule({"a": [lost, lost, failing(), "ok"]}, max_retries=1, budget=budget)
    assert times(found) == [0, 0, 0, 0.5]
    assert found.delivered == {"a": ["fine"]}
    assert budget.spent.tokens == 2 * (2 * PROMPT + COMPLETION) + PROMPT + COMPLETION


def test_what_cannot_succeed_is_not_sent_again():
    found = schedule({"a": [failing(kind="bad_request", retry=False)], "b": ["ok"]})
    assert [name for name, _ in found.sent] == ["a", "b"]
    assert found.delivered == {"a": ["bad_request"], "b": ["fine"]}


@pytest.mark.parametrize(("after", "waited"), [(0.2, 0.5), (7, 7), (50, 20)])
def test_a_server_names_a_longer_wait_up_to_the_timeout(after, waited):
    assert times(schedule({"a": [failing(after), "ok"]}, timeout=20)) == [0, waited]


def test_tries_end_after_three_timeouts():
    slow = [(8, failing())]
    assert times(schedule({"a": slow}, timeout=10, max_retries=9)) == [0, 8.5, 17.5, 27.5]
    assert times(schedule({"a": [(15, failing())]}, timeout=10, max_retries=9)) == [0, 15.5]


@pytest.mark.parametrize(("seconds", "said"), [(14.9, "fine"), (15.1, "timeout")])
def test_an_attempt_ends_five_seconds_after_its_timeout(seconds, said):
    found = schedule({"a": [(seconds, "ok")]}, timeout=10, max_retries=0)
    assert found.delivered == {"a": [said]}
    assert found.seconds == pytest.approx(min(seconds, 15))


def test_an_attempt_without_an_answer_is_sent_again_and_paid():
    budget = Budget(None, 1000, Spent())
    found = schedule({"a": [(99, "ok"), "ok"]}, timeout=10, budget=budget)
    assert times(found) == [0, 15.5]
    assert budget.spent.tokens == (20 + 5) + (10 + 5)


def test_all_wait_for_a_server_that_is_busy():
    found = schedule({"a": [busy(3), "ok"], **names(3, "ok")}, max_in_flight=1)
    assert [at for _, at in found.sent] == pytest.approx([0, 3, 3, 3, 3])
    assert found.scheduler.live.refused == found.scheduler.pace.cuts == 1
    assert schedule({"a": [(1, busy(3)), "ok"], "b": [busy(9), "ok"]}).seconds == pytest.approx(9)


def test_a_busy_server_that_names_no_time():
    found = schedule({"a": [busy()] * 9 + ["ok"]})
    waits = [0.25, 0.5, 1, 2, 4, 8, 15, 15, 15]
    assert times(found) == [sum(waits[:number]) for number in range(10)]
    found = schedule({"a": [busy(), "ok"], "b": ["ok"], "c": [busy(), busy(), "ok"]}, max_in_flight=1)
    assert (times(found), times(found, "b")) == ([0, 0.25], [0.25])
    assert times(found, "c") == [0.25, 0.5, 1.0], "an answer ends the count of refusals"


def test_a_busy_server_costs_no_try():
    found = schedule({"a": [busy(0), busy(0), failing(), busy(0), failing(), "ok"]}, max_retries=1)
    assert len(found.sent) == 5
    assert found.delivered == {"a": ["server"]}


def test_patience_with_a_busy_server_has_an_end():
    assert schedule({"a": [busy(600), "ok"]}).delivered == {"a": ["fine"]}
    found = schedule({"a": [busy(600.5), "ok"]}, error=TeacherError, match="asks to wait 600 s, after 1 refusals")
    assert (found.delivered, len(found.sent)) == ({}, 1)
    found = schedule({"a": [busy(250)]}, error=TeacherError, match="after 4 refusals in a row: slow down")
    assert times(found) == [0, 250, 500, 750]
    late = {"a": [(500, "ok")], "b": [(500, "ok")], "c": [busy(300), busy(300), "ok"]}
    assert schedule(late, max_in_flight=1, timeout=900).delivered["c"] == ["fine"], "time begins with the last answer"


def test_too_many_retries_keep_new_requests_back():
    found = schedule({**names(12, failing(after=9)), "z": ["ok"]}, max_in_flight=2, max_retries=1, timeout=100)
    first = [name for name, at in found.sent if at == 0]
    assert len(first) == 8 + 1, "four times as many as may be in flight, and the one that was already taken"
    assert found.delivered["z"] == ["fine"]
    assert found.work.taken == 13


def test_no_more_than_the_limit_are_in_flight():
    found = schedule(names(5, (1, "ok")), max_in_flight=2)
    assert [at for _, at in found.sent] == pytest.approx([0, 0, 1, 1, 2])
    assert found.scheduler.live.limit == 2


def test_the_quota_holds_back_and_learns():
    found = schedule(names(3, "ok"), rpm=60, max_in_flight=1)
    assert [at for _, at in found.sent] == pytest.approx([0, 1 / 0.98, 2 / 0.98], abs=0.001)
    found = schedule(names(4, answered(prompt=5, completion=1)), tpm=600, max_in_flight=1)
    rate = 9.8  # tokens a second, and the size of the bucket
    waits = [(rate - 1) / rate, 6 / rate, 6 / rate, 6 / rate]
    assert [at for _, at in found.sent] == pytest.approx([sum(waits[: n + 1]) for n in range(4)], abs=0.001)
    assert found.scheduler.quota.used == pytest.approx(0.4 + 0.6 * 0.95**4)


@pytest.mark.parametrize(
    ("step", "taken"),
    [
        (failing(retry=False, kind="bad_request"), 0),
        (failing(retry=False, kind="bad_request", billed=True), 15),
        (answered(), 15),
        (answered(prompt=2, completion=1), 3),
        (broken("content_filter"), 15),
    ],
)
def test_what_each_outcome_takes_from_the_quota(step, taken):
    quota = schedule({"a": [step]}, tpm=60_000).scheduler.quota
    assert quota.tokens.level == pytest.approx(15 - taken, abs=0.01), "the request waited for 15 tokens"


@pytest.mark.parametrize("kind", ["schema", "empty", "server"])
def test_replies_without_use_are_asked_for_three_times(kind):
    found = schedule({"a": [broken(kind)], "b": [broken(kind), "ok"]}, max_in_flight=1)
    assert times(found) == [0, 0.5, 1.5]
    assert found.delivered == {"a": [kind], "b": ["fine"]}
    assert len(schedule({"a": [broken(kind)]}, max_retries=1).sent) == 2
    assert len(schedule({"a": [broken("content_filter")]}).sent) == 1


def test_replies_that_are_never_valid_stop_the_run():
    bad = broken("too_large", invalid=True)
    found = schedule(names(30, bad), max_in_flight=1, error=TeacherError, match="the first 20 replies .* not valid")
    assert len(found.sent) == 20
    found = schedule({"a": ["ok"], **names(30, bad)}, max_in_flight=1)
    assert len(found.sent) == 31
    assert len(schedule(names(19, bad), max_in_flight=1).delivered) == 19
    assert len(schedule(names(30, broken("refusal")), max_in_flight=1).delivered) == 30, "they are valid"


def test_requests_that_are_all_refused_stop_the_run():
    bad = failing(kind="bad_request", retry=False)
    found = schedule(names(30, bad), max_in_flight=1, error=TeacherError, match="refused the first 20 requests")
    assert (len(found.sent), len(found.delivered)) == (20, 19)
    assert len(schedule(names(19, bad), max_in_flight=1).delivered) == 19
    assert len(schedule({"a": ["ok"], **names(30, bad)}, max_in_flight=1).delivered) == 31


def test_a_dead_server_is_noticed_after_three_requests():
    down = names(30, failing(kind="connection"))
    found = schedule(down, living=False, max_retries=1, max_in_flight=1, error=TeacherError, match="is not answering")
    assert (found.probes, len(found.delivered)) == (1, 2)
    found = schedule(down, max_retries=1, max_in_flight=1, error=TeacherError, match="is not answering")
    assert (found.probes, len(found.delivered)) == (17, 19), "it responds to the probe, so 20 requests are tried"
    few = names(2, failing())
    assert schedule(few, living=False, max_retries=0, max_in_flight=1).probes == 0
    between = {"a": [failing()], "b": [failing()], "c": ["ok"], "d": [failing()], "e": [failing()]}
    assert schedule(between, living=False, max_retries=0, max_in_flight=1).probes == 0


def test_an_answer_while_a_request_failed_shows_that_the_server_lives():
    slow = {"a": [(5, failing())], "b": [(5, failing())], "c": [(5, failing())], "d": [(1, "ok")]}
    found = schedule(slow, living=False, max_retries=0)
    assert (found.probes, len(found.delivered)) == (0, 4)


def test_a_fatal_error_stops_the_run_at_once():
    found = schedule(
        {"a": [failing(retry=False, kind="auth", fatal=True)], **names(9, "ok")},
        max_in_flight=1,
        error=TeacherError,
        match="the server at http://host.test/v1 refuses every request: broken",
    )
    assert (len(found.sent), found.delivered) == (1, {})


def test_what_is_in_flight_ends_before_the_run_stops():
    fatal = failing(retry=False, kind="auth", fatal=True)
    found = schedule({"a": [(1, fatal)], "b": [(4, "ok")], "c": [(2, fatal)]}, error=TeacherError)
    assert found.delivered == {"b": ["fine"]}
    assert found.seconds == pytest.approx(4)
    assert found.scheduler.live.in_flight == 0


def test_identical_requests_share_one_reply_and_one_retry():
    found = schedule({"a": [failing(), (1, "ok")]}, asked=["a"] * 4)
    assert times(found) == [0, 0.5]
    assert found.delivered == {"a": ["fine"] * 4}
    assert found.scheduler.live.cached == 3


def test_a_budget_is_held_while_requests_are_in_flight():
    budget = Budget(None, 60, Spent())
    found = schedule(names(9, (1.2, "ok")), budget=budget, error=BudgetReached)
    assert [at for _, at in found.sent] == [0, 0, 1.2]
    assert budget.spent.tokens == 45
    assert schedule({"a": ["ok"]}, budget=Budget(None, 25, Spent())).delivered == {"a": ["fine"]}


def test_counts_above_their_limit_stop_a_run_with_a_budget():
    much = names(4, answered(prompt=90, completion=60))
    budget = Budget(None, 10**6, Spent())
    found = schedule(much, max_in_flight=1, budget=budget)
    assert len(found.sent) == 4
    assert budget.excess == pytest.approx(150 / 25 * 1.25)
    more = {"a": [answered(prompt=90)], "b": [answered(prompt=900)], "c": ["ok"]}
    found = schedule(more, max_in_flight=1, budget=Budget(None, 10**6, Spent()), error=TeacherError, match="at most")
    assert len(found.sent) == 2
    assert len(schedule(more, max_in_flight=1).sent) == 3, "without a budget nothing is at stake"


@pytest.mark.parametrize(
    ("usd", "tier", "stops"), [(10**15, "fast", True), (None, "fast", False), (10**15, None, False)]
)
def test_a_tier_without_a_price_stops_a_run_with_a_budget_in_dollars(usd, tier, stops):
    steps = {"a": [of_tier(tier)], "b": ["ok"]}
    found = schedule(
        steps,
        budget=Budget(usd, None, Spent()),
        prices=Prices(1, 1, 1),
        max_in_flight=1,
        error=TeacherError if stops else None,
        match="service tier 'fast', whose price is not known",
    )
    assert len(found.sent) == (1 if stops else 2)


def test_the_figures_of_the_progress_bar():
    cut = answered(completion=3, scores=(("prompt_was_cut", 1.0), ("other", 1.0)))
    other = answered(scores=(("mass", 1.0),))
    found = schedule({"a": [cut], "b": [other], "c": [broken("refusal")], "d": [broken("refusal")], "e": [cut]})
    live = found.scheduler.live
    assert (live.tokens, live.cut_prompts, live.failures) == (3 + 5 + 3, 2, {"refusal": 2})
    assert (live.sent, live.retried, live.cached, live.idle) == (5, 0, 0, "server slow")


def test_an_error_of_the_questions_stops_the_run():
    bad = UserError("a seed has no question", "add one")
    found = schedule({"a": [(3, "ok")]}, asked=["a", *["a"] * 20, bad], error=UserError, match="no question")
    assert found.seconds == pytest.approx(3), "what is in flight ends"
    assert found.delivered["a"][0] == "fine"


def test_an_error_of_the_program_stops_the_run():
    found = schedule({"a": [ValueError("no")], "b": ["ok"]}, error=AttributeError)
    assert found.scheduler.live.in_flight == 0
    assert isinstance(failing(), Refused)
