"""Reads the prompt and the completion from a row of a data set in the prompt-completion format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from synthgen.records import Message

Row = Mapping[str, object]


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
    if isinstance(value, str) and value:
        return [{"role": role, "content": value}]
    if isinstance(value, list) and value and all(isinstance(m, dict) and "role" in m for m in value):
        return [message(m) for m in value]
    has = ", ".join(sorted(row)) or "nothing"
    raise ValueError(f"no {column} (text, or messages with roles); the row has {has}")


def message(value: Row) -> Message:
    """Convert a message of a data set to a message of a record. If the content is a list of text parts, the parts are
    joined. Tool calls become JSON text. The reasoning is stored under the key `reasoning_content`, even if its key in
    the data set is `reasoning`. Keys that a record's message does not have are left out. Raises ValueError when the
    content is not text.
    """
    content = value.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise ValueError("a message has content that is not text")
        content = "".join(part["text"] for part in content)
    elif not isinstance(content, str | None):
        raise ValueError("a message has content that is not text")
    calls = value.get("tool_calls")
    normal: dict[str, object] = {
        "role": str(value["role"]),
        "content": content,
        "name": value.get("name"),
        "tool_call_id": value.get("tool_call_id"),
        "reasoning_content": value.get("reasoning_content") or value.get("reasoning"),
        "tool_calls": calls if isinstance(calls, str | None) else json.dumps(calls, ensure_ascii=False),
    }
    return cast(Message, {key: text for key, text in normal.items() if text is not None})
