"""What a row of a data set says: prompt and completion; and the formats that the project reads itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from synthgen.records import Message

Row = Mapping[str, object]


@dataclass(frozen=True)
class Turns:
    """One record's messages. `pair_role` is its part where a row makes several records, such as `chosen`."""

    prompt: list[Message]
    completion: list[Message]
    pair_role: str | None = None


def has_prompt_and_completion(row: Row) -> bool:
    """Whether a row has both columns."""
    return "prompt" in row and "completion" in row


def prompt_and_completion(row: Row) -> list[Turns]:
    """TRL's and Hugging Face's prompt-completion format. Raises ValueError for anything else."""
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
    """A message as the record has it: content that came as parts of text is joined, tool calls become JSON text, and
    reasoning has one name. Other keys are left out. Raises ValueError for content that is not text."""
    content = value.get("content")
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise ValueError("a message has content that is not text")
        content = "".join(part["text"] for part in content)
    elif not isinstance(content, str | None):
        raise ValueError("a message has content that is not text")
    calls = value.get("tool_calls")
    said: dict[str, object] = {
        "role": str(value["role"]),
        "content": content,
        "name": value.get("name"),
        "tool_call_id": value.get("tool_call_id"),
        "reasoning_content": value.get("reasoning_content") or value.get("reasoning"),
        "tool_calls": calls if isinstance(calls, str | None) else json.dumps(calls, ensure_ascii=False),
    }
    return cast(Message, {key: text for key, text in said.items() if text is not None})
