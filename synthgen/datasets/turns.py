"""Reads the prompt and the completion from a row of a data set in the prompt-completion format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from synthgen.records import Message
from synthgen.values import is_blank

Row = Mapping[str, object]
_TEXT_PARTS = (None, "text", "input_text", "output_text")  # values of `type` in a part of a message's content


@dataclass(frozen=True)
class Turns:
    """The messages of one record. When a row becomes several records, `pair_role` is the role of this record among
    them, such as `chosen`.
    """

    prompt: list[Message]
    completion: list[Message]
    pair_role: str | None = None


def has_prompt_and_completion(row: Row) -> bool:
    """Whether a row has the columns `prompt` and `completion`."""
    return "prompt" in row and "completion" in row


def prompt_and_completion(row: Row) -> list[Turns]:
    """Read a row in the prompt-completion format of TRL and Hugging Face. Raises ValueError for any other row."""
    return [Turns(_messages(row, "prompt", "user"), _messages(row, "completion", "assistant"))]


def _messages(row: Row, column: str, role: str) -> list[Message]:
    value = row.get(column)
    messages: list[Message] = []
    if isinstance(value, str) and value.strip():
        messages = [{"role": role, "content": value}]
    elif isinstance(value, list) and all(isinstance(m, dict) and "role" in m for m in value):
        messages = [message(m) for m in value]
    if not messages:
        has = ", ".join(sorted(row)) or "nothing"
        raise ValueError(f"no {column} (text, or messages with roles); the row has {has}")
    last = messages[-1]
    content = last.get("content")  # the caller knows what a completion without content is good for
    if not last.get("tool_calls") and (column == "prompt" if content is None else not content.strip()):
        raise ValueError(f"the last message of the {column} is empty")
    return messages


def message(value: Row) -> Message:
    """Convert a message of a data set to a message of a record. If the content is a list of text parts, the parts are
    joined. Tool calls become JSON text. The reasoning is stored under the key `reasoning_content`, even if its key in
    the data set is `reasoning`. Keys that a record's message does not have are left out. Raises ValueError when the
    message has no role, or when a value that must be text is not.
    """
    calls = value.get("tool_calls")
    normal: dict[str, object] = {
        "role": value["role"],
        "content": _content(value.get("content")),
        "name": value.get("name"),
        "tool_call_id": value.get("tool_call_id"),
        "reasoning_content": value.get("reasoning_content") or value.get("reasoning"),
        "tool_calls": calls if isinstance(calls, str | None) else json.dumps(calls, ensure_ascii=False),
    }
    if is_blank(normal["role"]):
        raise ValueError("a message has no role")
    for key, text in normal.items():
        if not isinstance(text, str | None):
            raise ValueError(f"a message has a {key} that is not text")
    return cast(Message, {key: text for key, text in normal.items() if text is not None})


def _content(value: object) -> object:
    """The text of a message's content. A list of parts must hold nothing but text."""
    if not isinstance(value, list):
        return value
    texts: list[str] = []
    for part in value:
        if isinstance(part, dict) and part.get("type") in _TEXT_PARTS:
            part = part.get("text")
        if not isinstance(part, str):
            raise ValueError("a message has content that is not text")
        texts.append(part)
    return "".join(texts)
