"""Converts messages to the API's format, and reads parts of a server's response: the waiting time and the message of an
error, and the probabilities of labels. `synthgen.teachers.completion` reads the answer itself.
"""

from __future__ import annotations

import email.utils
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

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


def label_probs(top: Sequence[Mapping[str, Any]], labels: tuple[str, ...]) -> tuple[list[float], float] | None:
    """Return (probabilities of the labels, their total before normalization). `top` holds the most probable first
    tokens of the answer with their log-probabilities.

    The probability of a token is added to the label that begins with the token. Returns None when a token of more than
    1% probability begins several labels, or when no token begins a label.
    """
    mass = [0.0] * len(labels)
    for entry in top:
        start = entry["token"].strip().casefold()
        owners = [i for i, label in enumerate(labels) if start and label.casefold().startswith(start)]
        p = math.exp(entry["logprob"]) if entry["logprob"] > -9998 else 0.0
        if len(owners) > 1 and p > 0.01:
            return None
        if len(owners) == 1:
            mass[owners[0]] += p
    total = sum(mass)
    return ([p / total for p in mass], total) if total > 0 else None


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
    texts = [str(message.get("content") or "") for message in messages]
    if sum(text.count(" ") + text.count("\n") for text in texts) < counted * _WORDS_A_TOKEN:
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
