"""Converts messages to the API's format, and reads the waiting time and the message of an error in a server's response.
`synthgen.teachers.completion` reads the answers.
"""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Mapping, Sequence

from pydantic_core import from_json

from synthgen.records import Message, Usage

_WORDS_A_TOKEN = 1.25


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
    """Convert a message to the API's format. Reasoning of earlier turns is not sent."""
    sent: dict[str, object] = {
        key: value for key, value in message.items() if value is not None and key != "reasoning_content"
    }
    calls = message.get("tool_calls")
    if isinstance(calls, str):
        sent["tool_calls"] = json.loads(calls)
    return sent


def prompt_was_cut(messages: Sequence[Message], usage: Usage | None) -> tuple[tuple[str, float], ...]:
    """The score `prompt_was_cut` when the server's count of prompt tokens is too small for the prompt. Empty otherwise.

    Almost every word needs at least one token, so a server that counts far fewer tokens than words has left out a part
    of the prompt. Text without spaces, such as Chinese, is not checked.
    """
    counted = (usage or {}).get("prompt_tokens")
    if not counted:
        return ()
    spaces = 0
    texts = [str(message.get("content") or "") for message in messages]
    for text in texts:
        spaces += text.count(" ") + text.count("\n")
    if spaces < counted * _WORDS_A_TOKEN:
        return ()
    words = sum(len(text.split()) for text in texts)
    return (("prompt_was_cut", counted / words),) if words > counted * _WORDS_A_TOKEN else ()


def why_empty(finish: str, usage: Usage | None) -> str:
    """Why an answer has no text."""
    if finish == "length" and usage and usage.get("reasoning_tokens"):
        return f"all {usage['completion_tokens']} tokens went into reasoning; raise generate.max_new_tokens"
    return f"the answer is empty (finish_reason: {finish})"


def error_of(body: bytes) -> tuple[str, str]:
    """Return (message, code) from the body of an error response in any known format."""
    try:
        value = from_json(body)
        found = value.get("error", value)
        if isinstance(found, str):
            return found, ""
        return str(found.get("message") or found), str(found.get("code") or found.get("type") or "")[:100]
    except (ValueError, AttributeError):
        return body.decode(errors="replace"), ""
