"""Checks of a server's replies: usage, finish reasons, content, log-probabilities, and arbitrary damage."""

from __future__ import annotations

import copy
import json
import math
import random

import pytest
from support.wire import FUZZ, MODEL, TOKENS, body_of, mutated, request

from synthgen.generation.account import Account
from synthgen.generation.budget import Budget
from synthgen.generation.ledger import Spent
from synthgen.generation.prices import Prices
from synthgen.records import FINISH_REASONS
from synthgen.teachers.base import FAILURES, Call, Reply, TeacherOptions
from synthgen.teachers.finish import ERROR, finish_reason
from synthgen.teachers.gate import admitted
from synthgen.teachers.openai import ApiModel
from synthgen.teachers.refusals import refusal
from synthgen.teachers.served import same_model


def read(**changes) -> Reply:
    return MODEL.read(request(), body_of(**changes))


def usage(**counts) -> Reply:
    return read(usage={"prompt_tokens": 40, "completion_tokens": 6, **counts})


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({}, (40, 6, None, None)),
        ({"total_tokens": 46}, (40, 6, None, None)),
        ({"total_tokens": 20}, (40, 6, None, None)),
        ({"total_tokens": 66, "completion_tokens_details": {"reasoning_tokens": 20}}, (40, 26, 20, None)),
        ({"total_tokens": 50}, (40, 10, None, None)),
        ({"prompt_tokens_details": {"cached_tokens": 30}}, (40, 6, None, 30)),
        ({"prompt_cache_hit_tokens": 30, "prompt_cache_miss_tokens": 10}, (40, 6, None, 30)),
        ({"cached_tokens": 30}, (40, 6, None, 30)),
        ({"cached_tokens": 41}, (40, 6, None, None)),
        ({"prompt_tokens_details": {"cached_tokens": 0}, "prompt_cache_hit_tokens": 30}, (40, 6, None, 30)),
        ({"completion_tokens_details": {"reasoning_tokens": 500}}, (40, 506, 500, None)),
        ({"prompt_tokens": 5, "input_tokens": 40}, (40, 6, None, None)),
        ({"cache_read_input_tokens": 30, "cache_creation_input_tokens": 5}, (75, 6, None, 30)),
        ({"prompt_tokens": None, "input_tokens": 12}, (12, 6, None, None)),
        ({"prompt_tokens": 40.0}, (40, 6, None, None)),
        ({"prompt_tokens_details": None, "completion_tokens_details": None}, (40, 6, None, None)),
        ({"completion_tokens": 2**31 - 1}, (40, 2**31 - 1, None, None)),
        ({"prompt_tokens": 2**31 - 1}, (2**31 - 1, 6, None, None)),
        ({"cost": 1_000_000}, (40, 6, None, None)),
    ],
)
def test_usage_in_every_dialect(counts, expected):
    reply = usage(**counts)
    assert reply.failure is None
    assert tuple(reply.usage.values()) == expected


@pytest.mark.parametrize(
    "counts",
    [
        {"prompt_tokens": True},
        {"prompt_tokens": "40"},
        {"completion_tokens": 10**13},
        {"completion_tokens": 2**31},
        {"total_tokens": 2**31},
        {"completion_tokens": 2**31 - 6, "completion_tokens_details": {"reasoning_tokens": 2**31 - 5}},
        {"prompt_tokens": 2**31 - 5, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 4},
        {"prompt_tokens": 2.5},
        {"prompt_tokens": [40]},
        {"completion_tokens_details": "none"},
        {"completion_tokens_details": []},
        {"completion_tokens_details": {"reasoning_tokens": "5"}},
        {"cached_tokens": "3"},
        {"cost": -0.5},
        {"cost": 1e12},
        {"cost": 1_000_000.01},
    ],
)
def test_impossible_usage_is_a_failure_and_costs_the_reservation(counts):
    reply = usage(**counts)
    assert reply.failure[0] == "usage"
    assert reply.usage is None
    assert account().spent(reply, Spent(1000, 50)) == Spent(1000, 50)


@pytest.mark.parametrize(
    "counts",
    [
        {"prompt_tokens": -5},
        {"completion_tokens": -(10**9)},
        {"total_tokens": -1},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": 0, "completion_tokens": 6},
        {"prompt_tokens": -5, "cost": 0},
    ],
)
def test_negative_usage_and_no_tokens_at_all_are_unknown(counts):
    reply = usage(**counts)
    assert (reply.failure, reply.usage) == (None, None)
    assert account().spent(reply, Spent(1000, 50)) == Spent(1000, 50)


def account(**budget) -> Account:
    limits = Budget(budget.get("usd"), budget.get("tokens"), Spent())
    return Account(MODEL, None, budget=limits, prices=Prices(1_000_000, 2_000_000, 100_000), ledger=None)


def test_costs_by_tokens_by_the_server_and_by_tier():
    assert account().priced(usage(prompt_cache_hit_tokens=30)).cost_usd == pytest.approx((10 + 3 + 12) / 1e6)
    assert account().priced(usage(cost=0.25)).cost_usd == 0.25
    byok = usage(cost=0.01, is_byok=True, cost_details={"upstream_inference_cost": 0.2})
    assert account().priced(byok).cost_usd == pytest.approx(0.21)
    assert account().priced(usage(cost=0.0, is_byok=True)).cost_usd == account().priced(usage()).cost_usd > 0
    assert account().priced(usage(cost=None, estimated_cost=0.5)).cost_usd == 0.5
    for tier, known in (("default", True), ("priority", False), ("flex", False), (None, True)):
        reply = read(service_tier=tier)
        assert (account().priced(reply).cost_usd is not None) == known
        assert account().unpriced(reply) == ("priority" if tier == "priority" else None)
    assert account().unpriced(usage(service_tier="priority")) == "priority"  # Anthropic
    assert account().unpriced(usage(service_tier="standard")) is None


def test_requests_reserve_more_after_one_cost_more():
    call = Call(b"", b"", 0, 30, 20)
    books = account(tokens=10_000)
    assert books.most(call) == Spent(70_000_000, 50)
    assert books.overspent(Spent(70_000_000, 50), books.most(call), 1.0) is None
    assert books.budget.excess == 1.0
    assert books.overspent(Spent(140_000_000, 100), books.most(call), 1.0) is None
    assert books.most(call).tokens == 125  # twice as many tokens were used, and a quarter more is reserved
    assert books.overspent(Spent(1, 125), Spent(1, 125), books.budget.excess) is None
    assert "126 tokens" in books.overspent(Spent(1, 126), Spent(1, 125), books.budget.excess)


REASONS = {
    "stop": [
        "stop",
        "STOP",
        "end_turn",
        "eos",
        "COMPLETE",
        "FINISH_REASON_STOP",
        {"type": "stop"},
        "FINISH",
        "stop: eos",
    ],
    "length": [
        "length",
        "LENGTH",
        "max_tokens",
        "MAX_TOKENS",
        "model_length",
        "max_output_tokens",
        "token_limit",
        "stop: max_tokens",
    ],
    "content_filter": [
        "content_filter",
        "SAFETY",
        "content_filter: VIOLENCE",
        "PROHIBITED_CONTENT",
        "recitation",
        "SPII",
        "blacklist",
        "stop:SAFETY",
    ],
    "refusal": ["refusal"],
    "tool_calls": ["tool_calls", "tool_use", "function_call"],
    ERROR: ["error", "ERROR", "abort", "insufficient_system_resource", "cancelled", "MALFORMED_FUNCTION_CALL"],
    "unknown": [
        None,
        "",
        ":",
        "whatever",
        3,
        ["stop"],
        {"type": 1},
        "stopped by the operator",
        "OTHER",
        "stop: whatever",
    ],
}


@pytest.mark.parametrize(("meaning", "spellings"), REASONS.items())
def test_finish_reasons_of_all_dialects(meaning, spellings):
    assert {finish_reason(one) for one in spellings} == {meaning}


@pytest.mark.parametrize(
    ("reason", "native", "kind"),
    [
        ("stop", None, None),
        ("length", None, None),
        ("stop", "MAX_TOKENS", None),
        ("stop", "SAFETY", "content_filter"),
        ("stop", "completed", None),
        ("stop", "", None),
        ("stop", "OTHER", "finish"),
        ("stop", "a_new_reason", "finish"),
        ("stop", 7, "finish"),
        ("length", "a_new_reason", None),
        ("RECITATION", None, "content_filter"),
        ("refusal", None, "refusal"),
        ("error", None, "server"),
        (None, None, "finish"),
        ("odd", None, "finish"),
        ("tool_calls", None, "tool_call"),
    ],
)
def test_only_a_finished_answer_is_a_success(reason, native, kind):
    reply = MODEL.read(request(), body_of(choice={"finish_reason": reason, "native_finish_reason": native}))
    assert (reply.failure and reply.failure[0]) == kind
    if kind is None:
        assert reply.finish_reason == ("length" if reason == "length" or native == "MAX_TOKENS" else "stop")
        assert reply.finish_reason in FINISH_REASONS


def message(**fields) -> Reply:
    return MODEL.read(request(), body_of(message=fields))


@pytest.mark.parametrize(
    ("fields", "text", "reasoning"),
    [
        ({"content": [{"type": "text", "text": "Ye"}, {"type": "text", "text": "s."}]}, "Yes.", None),
        ({"content": [{"type": "output_text", "text": "Yes."}]}, "Yes.", None),
        ({"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Yes."}]}, "Yes.", "Hm"),
        (
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}, "Yes."]},
            "Yes.",
            "Hm",
        ),
        ({"content": "Yes.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]}, "Yes.", "Hm"),
        ({"content": "Yes.", "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}, "Yes.", None),
        ({"content": "Yes.", "reasoning": {"summary": "Hm"}}, "Yes.", "Hm"),
        ({"content": "Yes.", "reasoning_text": "Hm"}, "Yes.", "Hm"),
        ({"content": "Yes.", "thinking_blocks": [{"type": "thinking", "thinking": "Hm"}]}, "Yes.", "Hm"),
        (
            {"content": [{"type": "text", "text": "Hm", "thought": True}, {"type": "text", "text": "Yes."}]},
            "Yes.",
            "Hm",
        ),
        ({"content": "<think>Hm</think>Yes.", "reasoning_content": "Before"}, "Yes.", "Before\n\nHm"),
    ],
)
def test_content_and_reasoning_in_every_form(fields, text, reasoning):
    reply = message(**fields)
    assert (reply.failure, reply.text, reply.reasoning) == (None, text, reasoning)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"content": {"text": "Yes."}}, "schema"),
        ({"content": 7}, "schema"),
        ({"content": [{"type": "image_url", "image_url": "x"}]}, "schema"),
        ({"content": [7]}, "schema"),
        ({"content": None}, "empty"),
        ({"content": "  \n"}, "empty"),
        ({"content": "\u200b\ufeff\u00ad"}, "empty"),
        ({"content": "<think>Hm</think>\u200b"}, "empty"),
        ({"content": "<think>Hm"}, "empty"),
        ({"content": "<think>Hm</think>"}, "empty"),
        ({"content": None, "refusal": "I must not."}, "refusal"),
        ({"content": "First you", "refusal": "I must not."}, "refusal"),
        ({"content": [{"type": "refusal", "refusal": "No."}]}, "refusal"),
        ({"content": None, "tool_calls": "call"}, "schema"),
        ({"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "tool_call"),
        ({"content": None, "tool_calls": [{"function": {"arguments": "{}"}}]}, "tool_call"),
        ({"content": None, "function_call": {"name": "f", "arguments": "{"}}, "tool_call"),
        ({"content": '[TOOL_CALLS] [{"name": "f", "arguments": {}}]'}, "tool_call"),
        ({"content": 'Let me look.\n<|python_tag|>{"name": "f", "parameters": {}}'}, "tool_call"),
    ],
)
def test_what_is_no_answer_is_a_failure(fields, kind):
    assert message(**fields).failure[0] == kind


def test_text_that_a_filter_removed_is_no_answer():
    def filtered(**results) -> Reply:
        return read(choice={"content_filter_results": results})

    found = filtered(hate={"filtered": False}, violence={"filtered": True, "severity": "high"})
    assert found.failure == ("content_filter", "the provider withheld a part of the answer (filtered: violence)")
    assert filtered(hate={"filtered": False, "severity": "safe"}, error=None).failure is None


def test_a_call_in_the_old_form_is_a_tool_call():
    old = {"name": "f", "arguments": '{"city": "Rome"}'}
    reply = MODEL.read(
        request(),
        body_of(message={"content": None, "function_call": old}, choice={"finish_reason": "function_call"}),
    )
    assert (reply.failure, reply.finish_reason) == (None, "tool_calls")
    assert json.loads(reply.tool_calls) == [{"type": "function", "function": old}]
    beside = message(content="Let me look.", function_call=old)
    assert (beside.text, json.loads(beside.tool_calls)[0]["function"]) == ("Let me look.", old)


def test_half_a_surrogate_pair_in_the_arguments_of_a_call():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": r'{"a": "\ud83d, \\ud83d"}'}}
    reply = MODEL.read(
        request(), body_of(message={"content": None, "tool_calls": [call]}, choice={"finish_reason": "tool_calls"})
    )
    assert reply.failure is None
    [kept] = json.loads(reply.tool_calls)
    assert (kept["id"], kept["type"]) == ("1", "function")
    assert json.loads(kept["function"]["arguments"]) == {"a": "�, \\ud83d"}


def test_half_a_surrogate_pair_becomes_a_replacement_character():
    whole = body_of(message={"content": "MARK"})
    for written, text in (
        (rb"\ud83d end", "\ufffd end"),
        (rb"\udc00\ud83d\ude00", "\ufffd😀"),
        (rb"\\ud83d", r"\ud83d"),
    ):
        reply = MODEL.read(request(), whole.replace(b"MARK", written))
        assert (reply.failure, reply.text) == (None, text)


def test_bodies_that_are_no_reply_are_not_cached():
    page = b"<!DOCTYPE html><html><body>Sign in</body></html>"
    for body in (page, b"data: {}\n\n", b"", b"[]", b"null", b"7", b"[" * 100_000, b'{"a":' * 5000, b'{"choices": {}}'):
        reply = MODEL.read(request(), body)
        assert reply.invalid
        assert reply.failure[0] == "schema"
    assert "HTML" in MODEL.read(request(), page).failure[1]
    assert not message(content=None).invalid  # an empty answer is a valid reply, and is cached


def test_the_choice_with_index_0_counts_and_the_model_is_recorded():
    whole = json.loads(body_of())
    other = copy.deepcopy(whole["choices"][0]) | {"index": 1}
    other["message"]["content"] = "second"
    whole["choices"].insert(0, other)
    reply = MODEL.read(request(), json.dumps(whole | {"model": "another/thing"}).encode())
    assert (reply.text, reply.served_model, reply.substitute) == ("Yes.", "another/thing", "another/thing")
    assert MODEL.read(request(), body_of(model="m-2026-05-01")).substitute is None
    for name in (None, 7, "", "  ", ["m"]):
        assert MODEL.read(request(), json.dumps(whole | {"model": name}).encode()).served_model is None
    assert MODEL.read(request(), json.dumps(whole | {"model": "n" * 301}).encode()).served_model == "n" * 300


def test_long_texts_of_a_server_are_cut_in_messages():
    assert message(content=None, refusal="x" * 400).failure[1] == f"refused: {'x' * 291}"
    calls = [{"function": {"name": "n" * 81, "arguments": "{"}}]
    assert message(content=None, tool_calls=calls).failure[1] == f"the arguments of tool '{'n' * 80}' are not JSON"


@pytest.mark.parametrize(
    ("asked", "served", "same"),
    [
        ("gpt-x", "gpt-x-2026-08-06", True),
        ("gpt-x-latest", "gpt-x-20260806", True),
        ("org/Model-7B", "model-7b", True),
        ("Model-7B", "/models/model-7b.gguf", True),
        ("gpt-x", "gpt-x-mini", False),
        ("gpt-x", "gpt-xl", False),
        ("model-7b", "model-70b", False),
        ("llama-3", "llama-3-2", False),
        ("o1", "o1-preview", False),
        ("gpt-4", "gpt-4-0125-preview", False),
        ("qwen3", "qwen3-235", False),
        ("deepseek", "deepseek-v2", False),
        ("mistral-7b-instruct", "mistral-7b-instruct-v0.3", False),
        ("one/model", "two/model", False),
        ("command-r", "command-r-08-2024", True),
        ("x/y", "x/y:nitro", True),
        ("claude-3.5-sonnet", "claude-3-5-sonnet-20241022", True),
        ("qwen2-0.5b-instruct", "qwen2-0.5b-instruct-q4_k_m.gguf", True),
        ("m", "m" + "-v1.111" * 40 + "x", False),
        ("m", "other", False),
    ],
)
def test_names_of_the_same_model(asked, served, same):
    assert same_model(asked, served) == same_model(served, asked) == same


def logged(*entries: tuple[str, float], text: str = "Yes.") -> Reply:
    content = [
        {"token": t, "logprob": p, "bytes": None, "top_logprobs": [{"token": t, "logprob": p, "bytes": None}]}
        for t, p in entries
    ]
    return TOKENS.read(request(), body_of(choice={"logprobs": {"content": content}}, message={"content": text}))


def test_logged_tokens_must_spell_the_text():
    assert logged(("Yes", -0.1), (".", -0.1)).failure is None
    assert logged(("Yes", -0.1), (".", -0.1), ("<|im_end|>", -0.1)).failure is None
    for entries in (
        [("Yes", -0.1)],
        [("No", -0.1), (".", -0.1)],
        [(" Yes", -0.1), (".", -0.1)],
        [("Hm", -0.2), ("Yes", -0.1), (".", 0)],
    ):
        assert logged(*entries).failure[0] == "logprobs"


def test_a_wrong_address_stops_the_run():
    assert refusal(405, {}, b"Method Not Allowed", str).fatal
    moved = refusal(308, {"Location": "https://host.test/v1/chat/completions"}, b"<html>", str)
    assert (moved.fatal, moved.retry) == (True, False)
    assert moved.reason == "308: the address leads to https://host.test/v1/chat/completions"


def test_tools_that_extra_removes_were_not_sent():
    section = MODEL.section.model_copy(update={"extra": {"tools": None}})
    assert ApiModel(section, TeacherOptions(), None, None).read(request(), body_of()).tools == "[]"


@pytest.mark.parametrize("bad", [0.5, 1000, True, "-0.1", None, [0.1], -(10**400)])
def test_impossible_logprobs_are_a_failure(bad):
    assert logged(("Yes", bad), (".", -0.1)).failure[0] == "logprobs"


def test_more_than_all_of_the_probability_is_a_failure():
    content = [{"token": "Yes.", "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": -0.1} for t in "abc"]}]
    assert "total probability" in MODEL.read(request(), body_of(choice={"logprobs": {"content": content}})).failure[1]


@pytest.mark.parametrize(
    "bad",
    [
        Reply("Yes.", label_probs=[math.nan, 1.0], finish_reason="stop"),
        Reply("Yes.", label_probs=[0.4, 0.4], finish_reason="stop"),
        Reply("Yes.", token_logprobs=[-math.inf], finish_reason="stop"),
        Reply("Yes.", scores=(("x", math.inf),), finish_reason="stop"),
        Reply("Yes.", cost_usd=-1.0, finish_reason="stop"),
        Reply("Yes.", token_ids=[-1], finish_reason="stop"),
        Reply("Yes.", token_ids=[2**31], finish_reason="stop"),
        Reply("half \ud83d", finish_reason="stop"),
        Reply("Yes.", finish_reason="unknown"),
        Reply("Yes.", finish_reason="odd"),
        Reply("<think>Hm", finish_reason="stop"),
    ],
)
def test_local_replies_pass_the_same_gate(bad):
    assert admitted(request(), bad).failure[0] in FAILURES
    assert admitted(request(), Reply("Yes.", finish_reason="stop")).failure is None
    assert admitted(request(), Reply("Yes.", token_ids=[0, 2**31 - 1], finish_reason="stop")).failure is None


@pytest.mark.parametrize("count", [600, pytest.param(100_000, marks=pytest.mark.slow)])
def test_damaged_replies_are_answers_or_failures(count):
    """Every mutated reply is a failure of a known kind, or an answer that keeps all promises."""
    draw = random.Random(11)
    outcomes = {"answers": 0, "failures": 0}
    for _ in range(count):
        kind, model, body = mutated(draw)
        reply = account().priced(model.read(request(kind), body))
        if reply.failure is not None:
            outcomes["failures"] += 1
            assert reply.failure[0] in FAILURES, body
            assert 0 < len(reply.failure[1]) <= 600
        else:
            outcomes["answers"] += 1
            FUZZ.check(reply, model)
        spent = account().spent(reply, Spent(10**9, 10**6))
        assert 0 <= spent.usd <= 2**31 * 10**7
        assert 0 <= spent.tokens < 2**33
    print(f"\n{outcomes}")
    assert min(outcomes.values()) > count // 20
