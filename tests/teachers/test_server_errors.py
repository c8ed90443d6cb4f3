"""Errors inside a reply with status 200, in the dialects of servers."""

from __future__ import annotations

import json

import pytest
from support.wire import MODEL, body_of, request

from synthgen.teachers.base import Refused
from synthgen.teachers.refusals import error_with_200, refusal
from synthgen.teachers.server_errors import error_in


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"error": {"code": 502, "message": "down"}}, ("502", "down", 502)),
        ({"error": {"code": "429.0", "message": "slow"}}, ("429.0", "slow", 429)),
        ({"error": {"code": None, "status": 429}}, ("429", "no message", 429)),
        ({"error": {"code": 7, "status": "RESOURCE_EXHAUSTED", "message": "m"}}, ("7 RESOURCE_EXHAUSTED", "m", 429)),
        ([{"error": {"code": 503, "message": "m"}}], ("503", "m", 503)),
        ([], None),
        ([{"error": {"code": 503, "message": "m"}}, {"choices": []}], None),
        ("error", None),
        ({"object": "error", "code": 429, "message": "m"}, ("429", "m", 429)),
        ({"error": {"code": "²²²", "message": "m"}}, ("²²²", "m", None)),
        ({"error": "plain text"}, ("", "plain text", None)),
        ({"error": None, "choices": []}, None),
        ({"error": {"code": 0, "message": ""}, "choices": [{"message": {}}]}, None),
        ({"choices": [{"error": {"code": 502, "message": "m"}}]}, ("502", "m", 502)),
        ({"error": True, "message": "m", "code": 503}, ("503", "m", 503)),
        ({"error": [{"code": 503, "message": "m"}]}, ("503", "m", 503)),
        ({"error_code": 18, "error_msg": "m"}, ("18", "m", None)),
        ({"code": "Throttling.RateQuota", "message": "m"}, ("Throttling.RateQuota", "m", None)),
        ({"status": 503, "title": "m"}, ("503", "m", 503)),
        ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "m"}}, ("1002", "m", None)),
        ({"success": False, "errors": [{"code": 7009, "message": "m"}]}, ("7009", "m", None)),
        ({"errors": ["m"]}, ("", "m", None)),
        ({"fault": {"faultstring": "m", "detail": {"errorcode": "x"}}}, ("", "m", None)),
        ({"detail": "m"}, ("", "m", None)),
        ({"detail": [{"loc": ["body"], "msg": "m", "type": "missing"}]}, ("missing", "m", None)),
        ({"__type": "ThrottlingException", "message": "m"}, ("ThrottlingException", "m", None)),
        (
            {"promptFeedback": {"blockReason": "SAFETY"}},
            ("content_filter", "the prompt was blocked: SAFETY", 400),
        ),
        ({"answer": "42", "usage": {}}, None),
        ({"message": {"role": "assistant", "content": "m"}}, None),
        ({"base_resp": {"status_code": 0, "status_msg": "ok"}, "choices": [{"message": {}}]}, None),
        ({"message": "m", "choices": [{"message": {}}]}, None),
    ],
)
def test_errors_inside_a_reply(value, expected):
    assert error_in(value) == expected


def test_a_long_error_is_cut():
    code, message, _ = error_in({"error": {"code": "c" * 999, "message": "m" * 999}})
    assert (len(code), len(message)) == (100, 500)
    assert len(error_in({"error": "m" * 999})[1]) == 500


def test_an_error_that_quotes_the_prompt_does_not_stop_the_run():
    def refused(**error) -> Refused:
        return error_with_200(json.dumps({"error": error}).encode(), {}, str)

    assert not refused(message="cannot be processed: 'How do I rotate an API key and my billing address?'").fatal
    assert refused(code="invalid_api_key", message="wrong").fatal
    assert refused(code=429, message="You reached your rate limit. Please add a payment method: /billing").pace
    assert not refusal(429, {}, b'{"error": {"message": "rate limit; see billing"}}', str).fatal
    assert refusal(429, {}, b'{"error": {"message": "m", "code": "insufficient_quota"}}', str).fatal


@pytest.mark.parametrize(
    ("value", "kind", "pace", "said"),
    [
        ({"error_code": 18, "error_msg": "Open api qps request limit reached"}, "server", True, "qps request limit"),
        ({"code": "Throttling.RateQuota", "message": "Slow down"}, "server", True, "Slow down"),
        ({"detail": "The worker died"}, "server", False, "The worker died"),
        ({"promptFeedback": {"blockReason": "OTHER"}}, "content_filter", False, "blocked: OTHER"),
        ({"choices": None, "base_resp": {"status_code": 1013, "status_msg": "unknown"}}, "server", False, "unknown"),
    ],
)
def test_an_error_under_another_key_keeps_the_words_of_the_server(value, kind, pace, said):
    for spaced in (None, (",", ":")):
        problem = error_with_200(json.dumps(value, separators=spaced).encode(), {}, str)
        assert (problem.kind, problem.pace, problem.fatal) == (kind, pace, False)
        assert said in problem.reason
    assert said in MODEL.read(request(), json.dumps(value).encode()).failure[1]


def test_an_answer_is_no_error_whatever_it_holds():
    for more in ({}, {"base_resp": {"status_code": 0, "status_msg": ""}}, {"detail": "ok", "errors": []}):
        body = body_of(message={"content": '{"error": 1, "choices": null}'}, **more)
        assert error_with_200(body, {}, str) is None
        assert MODEL.read(request(), body).failure is None


FATAL, AGAIN, BILLED, SLOWER, FINAL = "stops", "again", "again, perhaps billed", "again, slower", "final"


@pytest.mark.parametrize(
    ("status", "body", "kind", "what"),
    [
        *((status, "", "bad_request", FATAL) for status in (300, 301, 308, 399, 401, 402, 404, 405)),
        *((status, "", "server", AGAIN) for status in (409, 425, 500, 502, 503, 529)),
        *((status, "", "server", BILLED) for status in (408, 504, 524)),
        *((status, "", "bad_request", FINAL) for status in (400, 403, 406, 422, 451)),
        (429, "", "server", SLOWER),
        (413, "", "too_large", FINAL),
        (400, "This model's maximum context length is 8 tokens", "context", FINAL),
        (400, "flagged by the content management policy", "content_filter", FINAL),
        (503, "too many tokens", "server", AGAIN),
    ],
)
def test_each_status_says_whether_to_try_again(status, body, kind, what):
    found = refusal(status, {}, json.dumps({"error": {"message": body}}).encode(), str)
    flags = {name: getattr(found, name) for name in ("fatal", "retry", "pace", "billed") if getattr(found, name)}
    said = {FATAL: "fatal", AGAIN: "retry", BILLED: "retry billed", SLOWER: "retry pace", FINAL: ""}[what]
    assert (found.kind, set(flags)) == (kind, set(said.split()))
    assert found.reason.startswith(f"{status}: ")


def test_the_client_of_batches_does_not_try_again_by_itself():
    client = MODEL.client()
    assert (client.max_retries, str(client.base_url), client.timeout) == (0, "http://127.0.0.1:9/v1/", 300.0)


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (400, "invalid_argument invalid_request_error context_length_exceeded content_filter"),
        (401, "unauthenticated invalid_api_key authentication_error"),
        (403, "permission_denied"),
        (429, "resource_exhausted rate_limit_exceeded rate_limit_error too_many_requests insufficient_quota"),
        (500, "internal server_error"),
        (503, "unavailable overloaded_error"),
    ],
)
def test_a_code_in_words_means_its_http_status(status, codes):
    for code in codes.split():
        for spelled in (code, code.upper()):
            assert error_in({"error": {"status": spelled, "message": "m"}}).status == status
            assert error_in({"error": {"code": 418, "type": spelled}}).status == 418, "a number counts first"
