"""Converts the messages of a data set to messages of a record, and checks the conversation that they form.

Raises ValueError for content that a record cannot hold; the error names this content, and the caller adds the place of
the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from synthgen.datasets.turns import Row, Turns
from synthgen.files import parse_json
from synthgen.records import Message
from synthgen.values import is_blank, is_null

MEDIA = ("images", "videos", "audios")
"""Columns in which LLaMA-Factory and TRL expect the images, videos and sounds of a row's messages."""

SETTINGS = "chat_template_kwargs"
"""The column in which TRL expects settings of the chat template, such as `enable_thinking`."""

ROLES = ("system", "developer", "user", "assistant", "tool")

_TEXT_PARTS = (None, "text", "input_text", "output_text")  # values of `type` in a part of a message's content
_REASONING = ("reasoning_content", "reasoning", "thinking")  # the names that servers use for reasoning
_LEARNT = ("weight", "loss_weight", "train", "training", "trainable", "loss")
"""Keys that say whether a message is learned: 1 or true, 0 or false."""

_REFUSED = {
    "refusal": "a refusal in place of content",
    "prefix": "the mark `prefix`",
    "mask": "the mark `mask`",
    "train_detail": "the mark `train_detail`",
    "training_detail": "the mark `training_detail`",
    "audio": "audio",
    "image": "an image",
    "images": "images",
    "video": "a video",
    "videos": "videos",
}
"""Keys whose values change what a message means. A record has no place for these keys, so a message with such a value
is refused.
"""
_PLAIN = {"role", "content"}
_KEPT = ("role", "content", "name", "tool_call_id", "tool_calls", "function_call", *_REASONING, *_LEARNT, *_REFUSED)


@dataclass(frozen=True)
class Said:
    """One message as it was read. `learned` is null when the message does not say whether it is learned. `left_out` are
    the names of the message's keys that are not kept.
    """

    message: Message
    learned: bool | None = None
    left_out: tuple[str, ...] = ()


def listed(value: object, what: str) -> list[object]:
    """Return `value` if it is a list, or the list that it holds as JSON text. Otherwise raises a ValueError whose
    message calls the value `what`.
    """
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            value = None
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list, nor JSON text of a list")
    return value


def read(value: object) -> Said:
    """Convert one message of a data set.

    The text parts of a content are joined. Tool calls become JSON text in which the arguments are as they were: an
    object or a text. `reasoning` and `thinking` become `reasoning_content`. OpenAI's older `function_call` and the role
    `function` become a tool call and the role `tool`.
    """
    if not isinstance(value, Mapping):
        raise ValueError("a message is not an object with a role")
    role = value.get("role")
    if value.keys() == _PLAIN and role in ROLES and isinstance(value["content"], str):  # this case is the most frequent
        return Said({"role": role, "content": value["content"]})
    if is_blank(role):
        raise ValueError("a message has no role")
    if not isinstance(role, str):
        raise ValueError("a message has a role that is not text")
    refused = next((key for key in _REFUSED if value.get(key)), None)
    if refused:
        raise ValueError(f"a message has {_REFUSED[refused]}, which cannot be learned")
    role = "tool" if role == "function" else role
    if role not in ROLES:
        raise ValueError(f"a message has the role '{role}'; the roles are {', '.join(ROLES)}")
    normal: dict[str, object] = {
        "role": role,
        "content": _content(value.get("content")),
        "name": value.get("name"),
        "tool_call_id": value.get("tool_call_id"),
        "reasoning_content": _reasoning(value),
        "tool_calls": _calls(value),
    }
    for key, text in normal.items():
        if not isinstance(text, str | None):
            raise ValueError(f"a message has a {key} that is not text")
    if normal["tool_calls"] and role != "assistant":
        raise ValueError(f"a message of the {role} has tool calls, which only the assistant makes")
    if not any(normal[key] is not None for key in ("content", "tool_calls", "reasoning_content")):
        raise ValueError(f"a message of the {role} has no content")
    left = tuple(str(key) for key, other in value.items() if key not in _KEPT and not is_null(other))
    return Said(cast(Message, {key: text for key, text in normal.items() if text is not None}), _learned(value), left)


def _content(value: object) -> object:
    """The text of a message's content. Content that is a list of parts may have only parts of text."""
    if not isinstance(value, list):
        return value
    texts: list[str] = []
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if isinstance(part, Mapping) and kind in _TEXT_PARTS:
            part = part.get("text")
        if not isinstance(part, str):
            of = f" (a part of type '{kind}')" if isinstance(kind, str) else ""
            raise ValueError(f"a message has content that is not text{of}")
        texts.append(part)
    return "".join(texts)


def _reasoning(value: Row) -> object:
    given = [value[key] for key in _REASONING if not is_null(value.get(key)) and value[key] != ""]
    if any(one != given[0] for one in given):
        raise ValueError(
            f"a message has different reasoning under {' and '.join(k for k in _REASONING if value.get(k))}"
        )
    return given[0] if given else None


def _calls(value: Row) -> str | None:
    calls, old = value.get("tool_calls"), value.get("function_call")
    if old:
        if calls:
            raise ValueError("a message has both tool_calls and function_call")
        calls = [called(old)]
    if not calls:
        return None
    each = [_object(call) for call in listed(calls, "tool_calls of a message")]
    for call in each:
        function = call.get("function", call)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError("a tool call has no name of a function")
    return as_json(each) if each else None


def called(value: object) -> dict[str, object]:
    """The tool call for an object, or JSON text of an object, with a function's `name` and `arguments`."""
    function = _object(value)
    if not isinstance(function.get("name"), str):
        raise ValueError("a function call has no name of a function")
    return {"type": "function", "function": function}


def _object(value: object) -> dict[str, object]:
    """An object, or the object in a JSON text."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise ValueError("a tool or a call is not an object, nor JSON text of an object")
    return value


def as_json(value: object) -> str:
    """The value as JSON text. Raises ValueError for numbers that are not finite."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _learned(value: Row) -> bool | None:
    marks = [value[key] for key in _LEARNT if not is_null(value.get(key))]
    if any(mark not in (0, 1) for mark in marks) or len({bool(mark) for mark in marks}) > 1:
        raise ValueError(f"the mark that says whether a message is learned is neither 0 nor 1: {marks}")
    return bool(marks[0]) if marks else None


def tool_list(value: object, wrap: bool = False) -> str | None:
    """JSON text of a list of tools, or null for none. With `wrap`, a function without a `type` becomes a tool of type
    `function`.
    """
    if is_blank(value) or value == []:
        return None
    try:
        tools = [_object(tool) for tool in listed(value, "the column")]
    except ValueError:
        raise ValueError(
            "the column 'tools' is not a list of tools, nor JSON text of one (if it holds something else, rename it)"
        ) from None
    if wrap:
        tools = [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
    return as_json(tools) if tools else None


def conversation(said: Sequence[Said], row: Row) -> Turns:
    """The conversation that these messages form. The last message is the completion and must be from the assistant. All
    messages before the last one are the prompt. All turns of the assistant are learned, unless the row says otherwise.
    """
    if not said:
        raise ValueError("there are no messages")
    last = said[-1].message["role"]
    if last != "assistant":
        raise ValueError(f"the conversation ends with a message of the {last}, and not of the assistant")
    if len(said) == 1:
        raise ValueError("there is no message before the assistant's; give text without a prompt in the column `text`")
    if said[-2].message["role"] == "assistant":
        raise ValueError("the conversation ends with two messages of the assistant; join them")
    return turns(said[:-1], said[-1:], row, several="all")


def turns(
    prompt: Sequence[Said], completion: Sequence[Said], row: Row, several: Literal["last", "all"] = "last"
) -> Turns:
    """The conversation of a prompt and a completion. If the prompt also has turns of the assistant and the row does not
    say which turns are learned, `several` decides: only the "last" turn, or "all" of them.

    A completion may have several messages, such as a tool call, its result and the answer. All messages but the last
    one are then added to the prompt, and all turns of the assistant are learned.
    """
    for one in (*prompt, *completion):
        if one.learned and one.message["role"] != "assistant":
            raise ValueError(
                f"a message of the {one.message['role']} is marked as learned; "
                "only messages of the assistant are learned"
            )
    if not completion or completion[-1].message["role"] != "assistant":
        role = completion[-1].message["role"] if completion else "nobody"
        raise ValueError(f"the completion is a message of the {role}, and not of the assistant")
    if len(completion) > 1:
        if any(one.message["role"] == "assistant" for one in prompt):
            raise ValueError("a completion of several messages follows a turn of the assistant; give all as `messages`")
        if completion[0].message["role"] != "assistant" or completion[-2].message["role"] == "assistant":
            raise ValueError(
                "the first message of a completion must be from the assistant, and the message before the last one "
                "must not"
            )
        prompt, completion, several = [*prompt, *completion[:-1]], completion[-1:], "all"
    final = completion[-1].message
    if is_blank(final.get("content")) and not final.get("tool_calls"):
        raise ValueError("the last message of the completion is empty")
    before = prompt[-1].message if prompt else {}
    if is_blank(before.get("content")) and not before.get("tool_calls") and before.get("role") != "tool":
        raise ValueError("the last message of the prompt is empty")
    said = [*prompt, *completion]
    return Turns(
        [one.message for one in prompt],
        [final],
        teaches=_teaches(said, row, several),
        tools=tool_list(row.get("tools")),
        left_out=tuple(dict.fromkeys(key for one in said for key in one.left_out)),
    )


def _teaches(said: Sequence[Said], row: Row, several: Literal["last", "all"]) -> Literal["last", "all"]:
    """Which turns are learned. The row's column `teaches` decides which turns are learned. If the row has no column
    `teaches`, the marks of its messages decide; if no message has a mark, `several` decides. If only the completion is
    a turn of the assistant, the result is `last`.
    """
    marks = [one.learned for one in said if one.message["role"] == "assistant"]
    stated = row.get("teaches")
    if stated == "last" or stated == "all":
        return stated
    if not is_blank(stated):
        raise ValueError("the column 'teaches' is neither `last` nor `all`")
    if any(mark is not None for mark in marks):
        learned = [mark is not False for mark in marks]
        if not learned[-1] or (any(learned[:-1]) and not all(learned)):
            raise ValueError("the marks of the messages must choose the last turn of the assistant or all its turns")
        return "all" if all(learned) and len(learned) > 1 else "last"
    return several if len(marks) > 1 else "last"


def with_system(said: list[Said], row: Row) -> list[Said]:
    """The messages, with the text of the row's column `system` as the first message, unless this message is there
    already.
    """
    system = row.get("system")
    if is_blank(system):
        return said
    if not isinstance(system, str):
        raise ValueError("the column 'system' is not text")
    first = said[0].message if said else {}
    if first.get("role") != "system":
        return [Said({"role": "system", "content": system}), *said]
    if first.get("content") != system:
        raise ValueError("the column 'system' and the first message are different system messages")
    return said
