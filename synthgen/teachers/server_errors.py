"""Finds the error inside a reply with status 200, in the dialects of all known servers.

Most servers put the error under the key `error`. A reply without any choice is an error too if it holds a message under
another key. The message is kept, because only the server knows what was wrong.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_MOST_ERROR = 500  # maximum number of characters of an error's message
# Error codes that are words, and the HTTP status with the same meaning.
_STATUSES = {
    "resource_exhausted": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "unauthenticated": 401,
    "invalid_api_key": 401,
    "authentication_error": 401,
    "permission_denied": 403,
    "invalid_argument": 400,
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "content_filter": 400,
    "unavailable": 503,
    "overloaded_error": 503,
    "internal": 500,
    "server_error": 500,
}
_CODES = ("code", "status", "type", "error_code", "status_code", "errorCode", "__type")
_MESSAGES = (
    "message", "msg", "error_msg", "error_message", "errorMessage", "status_msg", "faultstring", "detail", "title",
)  # fmt: skip


class ErrorIn(NamedTuple):
    """An error inside a reply with status 200. `status` is the HTTP status that the error names, or None."""

    code: str
    message: str
    status: int | None


def error_in(value: object) -> ErrorIn | None:
    """The error that a reply with status 200 contains instead of an answer, or None."""
    if isinstance(value, list) and len(value) == 1:  # Gemini: [{"error": …}]
        value = value[0]
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    found: object = value.get("error")
    if not found and isinstance(first, dict):
        found = first.get("error")
    if first is None and (not found or isinstance(found, bool | int)):
        found = _elsewhere(value) or found
    if isinstance(found, list):
        found = found[0] if found else None
    if not found:
        return None
    if not isinstance(found, dict):
        return ErrorIn("", str(found)[:_MOST_ERROR], None)
    names = [str(found.get(name) or "") for name in _CODES]
    message = _message(found)
    if first is not None and not message and set(names) <= {"", "0"}:
        return None  # the error is empty, and there is an answer
    statuses = [int(name[:3]) for name in names if re.fullmatch(r"[45][0-9][0-9](?:\.0)?", name)]
    statuses += [_STATUSES[name.lower()] for name in names if name.lower() in _STATUSES]
    return ErrorIn(" ".join(name for name in names if name)[:100], message or "no message", next(iter(statuses), None))


def _message(found: Mapping[str, object]) -> str:
    return next((str(found[name])[:_MOST_ERROR] for name in _MESSAGES if found.get(name)), "")


def _elsewhere(value: Mapping[str, object]) -> object:
    """The error of a reply without choices that has it under another key than `error`. None when there is none."""
    for name in ("errors", "fault", "base_resp", "detail"):  # Cloudflare; Apigee; MiniMax; FastAPI
        inner = value.get(name)
        if isinstance(inner, list) and inner and isinstance(inner[0], dict | str):
            return inner[0]
        if isinstance(inner, dict) and _message(inner):
            return inner
    for name in ("promptFeedback", "prompt_feedback"):  # Gemini
        inner = value.get(name)
        reason = inner.get("blockReason") or inner.get("block_reason") if isinstance(inner, dict) else None
        if reason:
            return {"code": "content_filter", "message": f"the prompt was blocked: {reason}"}
    if "error" in (value.get("object"), value.get("type")):
        return value
    return value if any(isinstance(value.get(name), str) and value[name] for name in _MESSAGES) else None
