"""The formats of DATASET_FORMATS. Each format has two functions: one tells whether a row has the format, and the other
reads the row.

If a record cannot hold a row without loss, the `read` function raises a ValueError that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from synthgen.datasets.messages import (
    MEDIA,
    SETTINGS,
    Said,
    as_json,
    called,
    conversation,
    listed,
    read,
    tool_list,
    turns,
    with_system,
)
from synthgen.datasets.turns import Row, Turns
from synthgen.files import parse_json
from synthgen.values import is_blank, is_null

_SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
"""For each value of a message's key `from`: the role of the message."""


def has_pair(row: Row) -> bool:
    """Whether a row has the columns `chosen` and `rejected`."""
    return "chosen" in row and "rejected" in row


def pair(row: Row) -> list[Turns]:
    """Read a preference pair: two conversations with the same prompt. If the row has no column `prompt`, or if both
    sides begin with the prompt, all messages of a side except the last are its prompt.
    """
    _check_others(row)
    chosen, rejected = (_side(row, column) for column in ("chosen", "rejected"))
    if chosen.prompt != rejected.prompt:
        raise ValueError("the conversations of `chosen` and `rejected` differ before their last messages")
    return [replace(chosen, pair_role="chosen"), replace(rejected, pair_role="rejected")]


def _side(row: Row, column: str) -> Turns:
    value = row.get(column)
    prompt = [] if is_blank(row.get("prompt")) else _messages(row, "prompt", "user")
    if isinstance(value, str) and not prompt and not value.lstrip().startswith("["):
        raise ValueError(f"`{column}` is text, and there is no `prompt`; give the prompt in a column of its own")
    side = _messages(row, column, "assistant")
    if side[0].message["role"] != "assistant" or not prompt:
        whole = conversation(side, row)
        if prompt and [one.message for one in prompt] not in (whole.prompt, whole.prompt[-len(prompt) :]):
            raise ValueError(f"`prompt` is not the beginning of `{column}`")
    elif len(side) > 1:
        raise ValueError(f"`{column}` has several messages after the prompt")
    else:
        whole = turns(prompt, side, row)
    return whole if row.get("teaches") == "all" else replace(whole, teaches="last")  # a pair compares only last turns


def has_judged_completion(row: Row) -> bool:
    """Whether a row has the columns `prompt` and `completion`, and a column `label` of true or false."""
    return has_prompt_and_completion(row) and isinstance(row.get("label"), bool)


def judged_completion(row: Row) -> list[Turns]:
    """Read a row of TRL's unpaired preferences: a completion with the label true (chosen) or false (rejected)."""
    if not isinstance(row.get("label"), bool):
        raise ValueError("the column 'label' is not true or false")
    role = "chosen" if row["label"] else "rejected"
    return [replace(one, pair_role=role) for one in prompt_and_completion(row)]


def has_prompt_and_completion(row: Row) -> bool:
    """Whether a row has the columns `prompt` and `completion`."""
    return "prompt" in row and "completion" in row


def prompt_and_completion(row: Row) -> list[Turns]:
    """Read a row in the prompt-completion format of TRL and Hugging Face."""
    _check_others(row)
    return [turns(_messages(row, "prompt", "user"), _messages(row, "completion", "assistant"), row)]


def has_messages(row: Row) -> bool:
    """Whether a row has a column `messages` with messages that have roles."""
    return _is_list_of(row.get("messages"), "role")


def messages(row: Row) -> list[Turns]:
    """Read a row in the chat format of OpenAI and Hugging Face. OpenAI's older column `functions` holds tools too."""
    _check_others(row)
    said = [read(one) for one in listed(row.get("messages"), "the column 'messages'")]
    found = conversation(with_system(said, row), row)
    functions = tool_list(row.get("functions"), wrap=True)
    if functions and found.tools:
        raise ValueError("the row has both `tools` and `functions`")
    return [replace(found, tools=found.tools or functions)]


def has_conversations(row: Row) -> bool:
    """Whether a row has a column `conversations` with messages that have a `from` or a `role`."""
    return any(_is_list_of(row.get("conversations"), key) for key in ("from", "role"))


def sharegpt(row: Row) -> list[Turns]:
    """Read a row in the ShareGPT format; its tools have the form that LLaMA-Factory uses."""
    _check_others(row)
    said = [read(_of_speaker(one)) for one in listed(row.get("conversations"), "the column 'conversations'")]
    found = conversation(with_system(said, row), row)
    return [replace(found, tools=tool_list(row.get("tools"), wrap=True))]


def _of_speaker(value: object) -> object:
    """Convert a message with the keys `from` and `value` to a message with the keys `role` and `content`."""
    if not isinstance(value, Mapping) or "role" in value:
        return value
    speaker = value.get("from")
    if not isinstance(speaker, str) or speaker not in _SPEAKERS:
        raise ValueError(f"a message is from {speaker!r}; the names are {', '.join(_SPEAKERS)}")
    others = {key: other for key, other in value.items() if key not in ("from", "value")}
    if speaker != "function_call":
        return {"role": _SPEAKERS[speaker], "content": value.get("value"), **others}
    try:
        calls = parse_json(str(value.get("value")))
    except ValueError:
        raise ValueError("a function_call is not JSON text with `name` and `arguments`") from None
    each = [called(call) for call in (calls if isinstance(calls, list) else [calls])]
    return {"role": "assistant", "tool_calls": as_json(each), **others}


def has_instruction(row: Row) -> bool:
    """Whether a row has the columns `instruction` and `output`."""
    return "instruction" in row and "output" in row


def alpaca(row: Row) -> list[Turns]:
    """Read a row in the Alpaca format. The input follows the instruction after an empty line."""
    _check_others(row)
    said: list[Said] = []
    history = row.get("history")
    for turn in [] if is_blank(history) else listed(history, "the column 'history'"):
        if not isinstance(turn, list) or len(turn) != 2 or not all(isinstance(text, str) for text in turn):
            raise ValueError("the column 'history' is not a list of pairs: a question and an answer")
        roles = ("user", "assistant")
        said += [read({"role": role, "content": text}) for role, text in zip(roles, turn, strict=True)]
    asked = [_text(row, column) for column in ("instruction", "input") if not is_blank(row.get(column))]
    if not asked:
        raise ValueError("`instruction` is empty")
    said.append(read({"role": "user", "content": "\n\n".join(asked)}))
    said.append(read({"role": "assistant", "content": _text(row, "output")}))
    return [conversation(with_system(said, row), row)]


def has_text(row: Row) -> bool:
    """Whether a row has a column `text` that holds text."""
    return isinstance(row.get("text"), str)


def text(row: Row) -> list[Turns]:
    """Read a row of plain text. A row of plain text has no prompt, so the whole text is learned."""
    whole = _text(row, "text")
    if is_blank(whole):
        raise ValueError("the column 'text' is empty")
    return [Turns([], [{"role": "assistant", "content": whole}])]


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(f"the column '{column}' is not text" if not is_null(value) else f"no {column}")
    return value


def _messages(row: Row, column: str, role: str) -> list[Said]:
    """The messages of a column. Text becomes one message with the role `role`."""
    value = row.get(column)
    if isinstance(value, str) and value.strip():
        if value.lstrip().startswith("[") and _is_list_of(value, "role"):
            return [read(one) for one in listed(value, column)]
        return [Said({"role": role, "content": value})]
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "role" in one for one in value):
        return [read(one) for one in value]
    if column in row and (is_blank(value) or value == []):
        raise ValueError(f"no {column}: the column '{column}' is empty")
    has = ", ".join(sorted(row)) or "nothing"
    raise ValueError(f"no {column} (text, or messages with roles); the row has {has}")


def _is_list_of(value: object, key: str) -> bool:
    """Whether a value is a list of objects that have this key, or JSON text of such a list."""
    try:
        each = listed(value, "")
    except ValueError:
        return False
    return bool(each) and all(isinstance(one, Mapping) and key in one for one in each)


def _check_others(row: Row) -> None:
    """Raise ValueError when another column of the row changes what the row teaches, and cannot be used."""
    column = next((name for name in MEDIA if isinstance(row.get(name), list) and row[name]), None)
    if column:
        raise ValueError(f"the row has {column}, which cannot be learned (the column '{column}')")
    settings = row.get(SETTINGS)
    if isinstance(settings, Mapping) and any(not is_null(value) for value in settings.values()):
        raise ValueError(
            f"the column '{SETTINGS}' has settings of the chat template, with which the prompt would be another; "
            "templates get no such settings here (to learn the row without them, rename the column)"
        )
