"""A conversation that a format reads from a row of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from synthgen.records import Message

Row = Mapping[str, object]
"""The columns of one row, with JSON values."""


@dataclass(frozen=True)
class Turns:
    """The messages of one record. When a row becomes several records, `pair_role` is the role of this record, such as
    `chosen`.

    If the prompt is empty, the completion is plain text and not a part of a conversation. `teaches` says which turns of
    the assistant are learned: the `last` turn, which is the completion, or `all` turns. `tools` is the JSON text of the
    tools, or null. `left_out` are the names of the keys of messages that are not kept.
    """

    prompt: list[Message]
    completion: list[Message]
    pair_role: str | None = None
    teaches: Literal["last", "all"] = "last"
    tools: str | None = None
    left_out: tuple[str, ...] = ()
