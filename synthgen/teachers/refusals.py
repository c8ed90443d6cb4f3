"""Converts the errors of a server to `Refused` exceptions, which say whether to try again, to slow down or to stop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from synthgen.teachers.base import Refused
from synthgen.teachers.chat import error_of, retry_after
from synthgen.teachers.completion import parsed
from synthgen.teachers.server_errors import error_in

_QUOTA = ("insufficient_quota", "billing", "credit", "payment")
_CONTEXT = ("context length", "context_length", "context window", "maximum context", "too many tokens", "too long")
_FILTER = ("content_filter", "content_policy", "content management policy")
_MOST = 500  # maximum number of characters of a reason
# The HTTP status that fits an error without a status, by phrases in its message. The message may quote the prompt, so
# no phrase is mapped to a status that stops the run.
_STATUS = (
    (429, ("rate limit", "too many requests", "request limit", "throttl")),
    (400, (*_FILTER, *_CONTEXT)),
)

_CHOICE = re.compile(rb'"choices"\s*:\s*\[\s*\{')

Clean = Callable[[str], str]
"""A function that removes the API key from a text."""


def refusal(status: int, headers: Mapping[str, str], body: bytes, clean: Clean) -> Refused:
    """Convert a response with a status other than 200 to a `Refused` exception."""
    # The key is removed before the text is cut, because a cut could leave a part of the key.
    message, code = error_of(clean(body.decode(errors="replace")).encode())
    reason = clean(f"{status}: {message}")[:_MOST]
    words = f"{code} {message}".lower()
    if 300 <= status < 400:  # redirects are not followed, because the request holds the API key
        where = clean(headers.get("Location", "another address"))
        return Refused("bad_request", f"{status}: the address leads to {where}"[:_MOST], fatal=True)
    if status in (401, 402, 404, 405) or (status == 429 and any(word in code.lower() for word in _QUOTA)):
        return Refused("bad_request", reason, fatal=True)
    if status == 429:
        return Refused("server", reason, retry=True, pace=True, after=retry_after(headers))
    if status in (408, 409, 425) or status >= 500:
        unknown = status in (408, 504, 524)  # a gateway timed out, but the model may have finished the answer
        return Refused("server", reason, retry=True, after=retry_after(headers), billed=unknown)
    if status == 413:
        return Refused("too_large", reason)
    if any(phrase in words for phrase in _FILTER):
        return Refused("content_filter", reason)
    if any(phrase in words for phrase in _CONTEXT):
        return Refused("context", reason)
    return Refused("bad_request", reason)


def error_with_200(body: bytes, headers: Mapping[str, str], clean: Clean) -> Refused | None:
    """The `Refused` exception for a response with status 200 that contains an error instead of an answer, or None."""
    if b'"error"' not in body and _CHOICE.search(body):  # the usual case
        return None
    try:
        error = error_in(parsed(body))
    except ValueError:
        return None  # `ApiModel.read` reports the error
    if error is None:
        return None
    known = f"{error.code} {error.message}".lower()
    likely = next((code for code, phrases in _STATUS if any(phrase in known for phrase in phrases)), 502)
    whole = json.dumps({"error": {"message": error.message, "code": error.code}}).encode()
    problem = refusal(error.status or likely, headers, whole, clean)
    problem.reason = f"status 200 with an error: {problem.reason}"[:_MOST]
    problem.billed = not problem.pace  # the server may have worked before the error
    return problem
