"""Parses parts of a server's response to a chat completion request: the finish reason, usage, reasoning, and the
waiting time and message of an error.
"""

from __future__ import annotations

import email.utils
import gc
import json
import math
import time
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from synthgen.records import Message, Usage

# Finish reasons of servers, in lower case, mapped to `records.FINISH_REASONS`.
_ENDS = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length", "token_limit"), "length"),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(("content_filter", "content_filtered", "safety", "recitation", "blocklist"), "content_filter"),
    "prohibited_content": "content_filter",
    "refusal": "refusal",
}


def finish_reason(value: object) -> str:
    """Convert a server's finish reason to one of `records.FINISH_REASONS`. Other values become "unknown"."""
    return _ENDS.get(value.strip().lower(), "unknown") if isinstance(value, str) else "unknown"


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The number of seconds that the server asks to wait, from the header `retry-after-ms` or `Retry-After` (seconds or
    a date). None when the response has neither header.
    """
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


def outgoing(message: Message) -> dict[str, object]:
    """Convert a message to the API's format."""
    sent: dict[str, object] = {key: value for key, value in message.items() if value is not None}
    calls = message.get("tool_calls")
    if isinstance(calls, str):
        sent["tool_calls"] = json.loads(calls)
    return sent


def reasoning_of(message: dict[str, Any]) -> str | None:
    """The model's reasoning in a message. Servers store it under different keys, which are tried in turn."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        value = message.get(name)
        if isinstance(value, str) and value.strip():
            return value
    return None


def usage_of(reply: object) -> Usage | None:
    """The server's token counts, or None when it does not report them."""
    value = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(value, dict) or not isinstance(value.get("prompt_tokens"), int):
        return None
    if not isinstance(value.get("completion_tokens"), int):
        return None
    spent, held = value.get("completion_tokens_details") or {}, value.get("prompt_tokens_details") or {}
    return {
        "prompt_tokens": value["prompt_tokens"],
        "completion_tokens": value["completion_tokens"],
        "reasoning_tokens": spent.get("reasoning_tokens"),
        "cached_tokens": held.get("cached_tokens"),
    }


def why_empty(finish: str, usage: Usage | None) -> str:
    """Why an answer has no text."""
    if finish == "length" and usage and usage.get("reasoning_tokens"):
        return f"all {usage['completion_tokens']} tokens went into reasoning; raise generate.max_new_tokens"
    return f"the answer is empty (finish_reason: {finish})"


def error_of(body: bytes) -> tuple[str, str]:
    """Return (message, code) from the body of an error response in any known format."""
    try:
        value = json.loads(body)
        found = value.get("error", value)
        if isinstance(found, str):
            return found, ""
        return str(found.get("message") or found)[:500], str(found.get("code") or found.get("type") or "")
    except (ValueError, AttributeError):
        return body[:200].decode(errors="replace"), ""


def parsed(body: bytes) -> Any:
    """Parse the JSON of a reply. Raises ValueError.

    Python's garbage collector is paused during parsing. A reply with distributions has thousands of objects, and
    repeated scans for cycles would take longer than creating the objects. The parser caches only the strings that are
    keys of JSON objects, because keys repeat and other strings rarely do.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        return from_json(body, cache_strings="keys")
    finally:
        if searching:
            gc.enable()
