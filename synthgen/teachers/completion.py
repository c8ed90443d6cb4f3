"""Reads the body of a chat completion. Every value that is used is checked here, so that no invalid value from a server
reaches the ledger, a shard or the cache.

`completion` either returns a `Completion`, or raises BadReply with the kind and the reason of the failure.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from pydantic_core import from_json

from synthgen.teachers.finish import ERROR, finish_reason
from synthgen.teachers.usage import BadReply, Bill, credible

_MOST_LOGPROB = 1e-4  # rounding may make the log-probability of a certain token slightly larger than 0
# upper bound of the total probability of one position's most probable tokens; more than 1 because of rounding
_MOST_MASS = 1.02
_MOST_NAME = 300  # maximum number of characters of a model's name
_REASONING_KEYS = (
    "reasoning_content", "reasoning", "thinking", "thoughts", "reasoning_details", "reasoning_text", "thinking_blocks",
)  # fmt: skip
_TEXT_PARTS = ("text", "output_text")
_THOUGHT_PARTS = ("thinking", "reasoning", "reasoning.text", "reasoning.summary", "summary_text", "reasoning_text")
_HIDDEN_PARTS = ("redacted_thinking", "reasoning.encrypted")
# Matches a JSON escape without "u", a valid surrogate pair, or one half of a pair. Group 1 is set only for a half.
_ESCAPE = re.compile(
    rb"\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")

Entry = Mapping[str, Any]
"""An entry of `logprobs.content`: `token`, `logprob`, `bytes`, and the most probable tokens in `top_logprobs`. The
values of `logprob` are valid log-probabilities.
"""


class Completion(NamedTuple):
    """A valid reply. `finish` is "stop", "length" or "tool_calls". `tool_calls` is JSON text. `logprobs` is empty when
    the server gave none. `model` is the name of the model that answered, or None.
    """

    text: str
    reasoning: str | None
    finish: str
    tool_calls: str | None
    logprobs: Sequence[Entry]
    model: str | None
    bill: Bill


def parsed(body: bytes) -> object:
    """Parse the JSON of a reply. Half of a surrogate pair becomes U+FFFD. Raises ValueError.

    Python's garbage collector is paused during parsing. A reply with distributions has thousands of objects, and
    repeated scans for cycles would take longer than creating the objects. The parser caches only the strings that are
    keys of JSON objects, because keys repeat and other strings rarely do.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        return from_json(body, cache_strings="keys", allow_inf_nan=False)
    except ValueError:
        body = body.removeprefix(b"\xef\xbb\xbf")
        return from_json(_without_halves(body), allow_inf_nan=False)
    finally:
        if searching:
            gc.enable()


def _without_halves(body: bytes) -> bytes:
    """JSON text in which each escape of half a surrogate pair is replaced by the escape of U+FFFD."""
    if not _HALF.search(body):
        return body
    return _ESCAPE.sub(lambda escape: rb"\ufffd" if escape.group(1) else escape.group(), body)


def reply_object(body: bytes) -> Mapping[str, object]:
    """Parse a body that must be a JSON object. Raises BadReply."""
    try:
        value = parsed(body)
    except ValueError as error:
        start = body[:200].lstrip().lower()
        if start.startswith(b"<"):
            raise BadReply("schema", "the server's answer is an HTML or XML page, not JSON") from None
        if start.startswith((b"data:", b"event:")):
            raise BadReply("schema", "the server's answer is a stream of events, not JSON") from None
        raise BadReply("schema", f"the server's answer is not JSON: {str(error)[:120]}") from None
    if not isinstance(value, dict):
        raise BadReply("schema", f"the server's answer is a JSON {type(value).__name__}, not an object")
    return value


def completion(value: Mapping[str, object], bill: Bill) -> Completion:
    """Check the object of a chat completion, whose bill is `bill`. Raises BadReply."""
    choice = _choice(value)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise BadReply("schema", "the server's answer is not a chat completion: the choice has no message")
    finish = finish_reason(choice.get("finish_reason"), choice.get("native_finish_reason"))
    text, thoughts = _content(message.get("content"))
    refusal = message.get("refusal")
    if finish == ERROR:
        raise BadReply("server", f"the server broke off its answer (finish_reason: {_named(choice)})")
    if finish == "content_filter":
        raise BadReply("content_filter", f"the provider withheld the answer (finish_reason: {_named(choice)})")
    if filtered := _filtered(choice):
        raise BadReply("content_filter", f"the provider withheld a part of the answer (filtered: {filtered})")
    if finish == "refusal" or (refusal.strip() if isinstance(refusal, str) else refusal):
        raise BadReply("refusal", f"refused: {refusal if isinstance(refusal, str) else text}"[:300])
    if finish == "unknown":
        raise BadReply("finish", f"finish_reason is {_named(choice)}, so the answer may not be complete")
    calls = _tool_calls(_called(message), cut=finish == "length")
    if finish == "tool_calls" and calls is None:
        raise BadReply("tool_call", "finish_reason says that tools are called, but the answer calls none")
    reasoning = _reasoning(message) or "\n\n".join(thoughts) or None
    paid = credible(bill) if text.strip() or calls else bill
    return Completion(
        text, reasoning, finish, tool_calls=calls, logprobs=_logprobs(choice), model=_model(value), bill=paid
    )


def _choice(value: Mapping[str, object]) -> Mapping[str, object]:
    choices = value.get("choices")
    if not isinstance(choices, list):
        raise BadReply("schema", "the server's answer is not a chat completion: it has no choices")
    if not choices:
        raise BadReply("empty", "no choices in the reply")
    for choice in choices:
        if isinstance(choice, dict) and choice.get("index") in (0, None):
            return choice
    raise BadReply("schema", "the server's answer is not a chat completion: it has no choice with index 0")


def _content(value: object) -> tuple[str, list[str]]:
    """Return (text, texts of reasoning) of a message's content, which is text or a list of parts."""
    if value is None:
        return "", []
    if isinstance(value, str):
        return value, []
    if not isinstance(value, list):
        raise BadReply("schema", f"the answer's content is a JSON {type(value).__name__}, not text")
    texts: list[str] = []
    thoughts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind is not None and part.get("thought") is True:  # Gemini: the part's text is reasoning
            thoughts.append(_thought(part))
        elif kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in _THOUGHT_PARTS:
            thoughts.append(_thought(part))
        elif kind == "refusal":
            raise BadReply("refusal", f"refused: {part.get('refusal')}"[:300])
        elif kind not in _HIDDEN_PARTS:
            raise BadReply("schema", f"the answer's content has a part of type {str(kind)[:40]!r}, which is not text")
    return "".join(texts), [thought for thought in thoughts if thought]


def _thought(part: Mapping[str, object]) -> str:
    """The text of a part that holds reasoning. One of the part's keys holds this text, or a list of further parts."""
    for name in ("thinking", "text", "reasoning", "summary", "content"):
        value = part.get(name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, list):
            inner = [item.get("text") if isinstance(item, dict) else item for item in value]
            return "\n\n".join(text for text in inner if isinstance(text, str))
    return ""


def _reasoning(message: Mapping[str, object]) -> str | None:
    """The model's reasoning in a message. Servers store the reasoning under different keys, which are tried in turn."""
    for name in _REASONING_KEYS:
        value = message.get(name)
        if value is None:
            continue
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, dict | list):
            texts = [
                _thought(part) for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)
            ]
            if joined := "\n\n".join(text for text in texts if text):
                return joined
    return None


def _called(message: Mapping[str, object]) -> object:
    """The tool calls in a message. Older servers have one call, under the key `function_call`."""
    calls, old = message.get("tool_calls"), message.get("function_call")
    return calls if calls or not old else [{"type": "function", "function": old}]


def _tool_calls(value: object, *, cut: bool) -> str | None:
    """The tool calls as JSON text, or None when there are none. With `cut`, the reply was cut off, so the last call may
    be incomplete.
    """
    if not value:
        return None
    if not isinstance(value, list):
        raise BadReply("schema", "tool_calls is not a list")
    calls = []
    for call in value:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise BadReply("tool_call", "a tool call has no function name")
        arguments, name = function.get("arguments"), function["name"][:80]
        if isinstance(arguments, str) and arguments.strip():
            try:
                function = {**function, "arguments": _json_text(arguments)}
            except ValueError:
                why = "were cut off" if cut else "are not JSON"
                raise BadReply("tool_call", f"the arguments of tool '{name}' {why}") from None
        elif arguments is not None and not isinstance(arguments, str | dict):
            raise BadReply("tool_call", f"the arguments of tool '{name}' are not JSON")
        calls.append({**call, "function": function})
    return json.dumps(calls, ensure_ascii=False)


def _json_text(text: str) -> str:
    """The JSON text, in which half of a surrogate pair becomes U+FFFD. Raises ValueError when it is not JSON."""
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError:
        whole = _without_halves(text.encode())
        from_json(whole, allow_inf_nan=False)
        return whole.decode()
    return text


def _filtered(choice: Mapping[str, object]) -> str:
    """The categories of Azure's filter that removed text from the answer."""
    results = choice.get("content_filter_results")
    if not isinstance(results, dict):
        return ""
    return ", ".join(str(name) for name, one in results.items() if isinstance(one, dict) and one.get("filtered"))[:200]


def _model(value: Mapping[str, object]) -> str | None:
    name = value.get("model")
    return name[:_MOST_NAME] if isinstance(name, str) and name.strip() else None


def _logprobs(choice: Mapping[str, object]) -> Sequence[Entry]:
    """The entries of `logprobs.content`. Their log-probabilities are checked."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not content:
        return []
    if not isinstance(content, list):
        raise BadReply("logprobs", "logprobs.content is not a list")
    try:
        tops = [entry.get("top_logprobs") or [] for entry in content]
        entries = [*content, *(entry for top in tops for entry in top)]
        values = [entry["logprob"] for entry in entries]
        tokens = [entry["token"] for entry in entries]
    except (KeyError, TypeError, AttributeError):
        raise BadReply("logprobs", "an entry of logprobs has no token or no logprob") from None
    if not {type(token) for token in tokens} <= {str} or not {type(value) for value in values} <= {float, int}:
        raise BadReply("logprobs", "a token or a log-probability in logprobs has the wrong type")
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:
        raise BadReply("logprobs", "a log-probability is too large a number") from None
    if not np.isfinite(numbers).all() or numbers.max(initial=0.0) > _MOST_LOGPROB:
        raise BadReply("logprobs", f"a log-probability is {numbers.max():g}, but log-probabilities are at most 0")
    lengths = np.array([len(top) for top in tops])
    top = np.exp(np.minimum(numbers, 0.0))[len(content) :]
    mass = np.bincount(np.repeat(np.arange(len(content)), lengths), top, len(content))
    if mass.max(initial=0.0) > _MOST_MASS:
        raise BadReply("logprobs", f"the most probable tokens have a total probability of {mass.max():.2f}")
    return content


def _named(choice: Mapping[str, object]) -> str:
    """The finish reason of a choice, as text for an error message."""
    both = [choice.get(name) for name in ("finish_reason", "native_finish_reason") if choice.get(name) is not None]
    return ", ".join(repr(one)[:60] for one in both) or "missing"
