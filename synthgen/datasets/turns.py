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
    """The messages of one record. When a row becomes several records, `pair_role` is the role of this record among
    them, such as `chosen`.

    An empty prompt means plain text without a conversation: the text of the completion. `teaches` says which turns of
    the assistant are learnt: the `last` one, which is the completion, or `all`. `tools` is the JSON text of the tools,
    or null. `left_out` are the names of the keys of messages that are not kept.
    """

    prompt: list[Message]
    completion: list[Message]
    pair_role: str | None = None
    teaches: Literal["last", "all"] = "last"
    tools: str | None = None
    left_out: tuple[str, ...] = ()
