"""The writers of ROW_FORMATS: the columns of one row in each format, as JSON values.

Each writer gets the records of one row. The messages of these records have no null fields. If the format cannot hold a
record, the writer raises a ValueError that says why.
"""

from __future__ import annotations

from collections.abc import Sequence

from synthgen.datasets.messages import as_json
from synthgen.files import parse_json
from synthgen.records import Message, Record

_SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def messages(records: Sequence[Record]) -> dict[str, object]:
    """The conversation in the chat format of OpenAI and Hugging Face."""
    (record,) = records
    said = _conversation(record)
    return {"messages": [_message(one) for one in said], **_tools(record), **_teaches(record, _turns(said))}


def prompt_and_completion(records: Sequence[Record]) -> dict[str, object]:
    """The prompt and the completion as messages."""
    (record,) = records
    _check_prompt(record)
    asked, answered = ([_message(one) for one in part] for part in (record.prompt, record.completion))
    return {"prompt": asked, "completion": answered, **_tools(record), **_teaches(record, 1)}


def judged_completion(records: Sequence[Record]) -> dict[str, object]:
    """A completion that was chosen or rejected, in TRL's format of unpaired preferences."""
    (record,) = records
    if record.pair_role not in ("chosen", "rejected"):
        raise ValueError("the row is neither chosen nor rejected")
    return {**prompt_and_completion(records), "label": record.pair_role == "chosen"}


def pair(records: Sequence[Record]) -> dict[str, object]:
    """Two completions of one prompt, in TRL's format of preferences. The first record holds the chosen completion."""
    chosen, rejected = records
    if (chosen.prompt, chosen.tools, chosen.teaches) != (rejected.prompt, rejected.tools, rejected.teaches):
        raise ValueError("the two sides of the pair have different prompts or tools")
    sides = [prompt_and_completion([side]) for side in records]
    row = {"prompt": sides[0]["prompt"], "chosen": sides[0]["completion"], "rejected": sides[1]["completion"]}
    return {**row, **{name: value for name, value in sides[0].items() if name not in ("prompt", "completion")}}


def text(records: Sequence[Record]) -> dict[str, object]:
    """Plain text without a conversation."""
    (record,) = records
    if record.prompt:
        raise ValueError("the row is a conversation, not plain text")
    return {"text": record.text}


def alpaca(records: Sequence[Record]) -> dict[str, object]:
    """An instruction and its output. Earlier questions and answers are the `history`, as LLaMA-Factory reads it."""
    (record,) = records
    said = _conversation(record)
    if record.tools:
        raise ValueError("the row has tools")
    system = said.pop(0)["content"] if said[0]["role"] == "system" else None
    if [one["role"] for one in said] != ["user", "assistant"] * (len(said) // 2):
        raise ValueError("the turns do not alternate between a question of the user and an answer of the assistant")
    if any(one.keys() != {"role", "content"} for one in said):
        raise ValueError("a message has more than text")
    texts = [one["content"] for one in said]
    history = [texts[place : place + 2] for place in range(0, len(texts) - 2, 2)]
    row: dict[str, object] = {"instruction": texts[-2], "input": "", "output": texts[-1]}
    row |= ({"system": system} if system is not None else {}) | ({"history": history} if history else {})
    return {**row, **_teaches(record, len(history) + 1)}


def sharegpt(records: Sequence[Record]) -> dict[str, object]:
    """The conversation in the ShareGPT format; its tools have the form that LLaMA-Factory reads."""
    (record,) = records
    said = _conversation(record)
    row: dict[str, object] = {"conversations": [_spoken(one) for one in said]}
    if record.tools:
        tools = _list(record.tools)
        inner = [tool.get("function") for tool in tools if set(tool) == {"type", "function"}]
        is_plain = len(inner) == len(tools) and all(isinstance(one, dict) and "function" not in one for one in inner)
        row["tools"] = as_json(inner if is_plain else tools)
    return {**row, **_teaches(record, _turns(said))}


def _spoken(message: Message) -> dict[str, str]:
    """The message as an object with the keys `from` and `value`."""
    if message["role"] not in _SPEAKERS:
        raise ValueError(f"a message has the role '{message['role']}'")
    calls = message.get("tool_calls")
    if not calls:
        if message.keys() != {"role", "content"}:
            raise ValueError(f"a message of the {message['role']} has {', '.join(sorted(set(message) - _PLAIN))}")
        return {"from": _SPEAKERS[message["role"]], "value": message["content"] or ""}
    if message.keys() != {"role", "tool_calls"}:
        raise ValueError("a message has a tool call and something else")
    each = _list(calls)
    if any(set(call) != {"type", "function"} for call in each):
        raise ValueError("a tool call has an id")
    functions = [call["function"] for call in each]
    return {"from": "function_call", "value": as_json(functions if len(functions) > 1 else functions[0])}


def like(record: Record) -> str:
    """The format whose columns the files for the hub get. The first record of a corpus decides which format this is."""
    if not record.prompt:
        return "text"
    return "preference" if record.pair_role in ("chosen", "rejected") and record.group_id else "prompt-completion"


_PLAIN = {"role", "content"}


def _conversation(record: Record) -> list[Message]:
    """The messages of the prompt and the completion."""
    _check_prompt(record)
    if record.prompt[-1]["role"] == "assistant":
        raise ValueError("the completion continues the last message of the prompt")
    return [*record.prompt, *record.completion]


def _check_prompt(record: Record) -> None:
    if not record.completion:
        raise ValueError("the row has no completion")
    if not record.prompt:
        raise ValueError("the row is plain text without a prompt")


def _message(message: Message) -> dict[str, object]:
    """A message in the form that chat templates read: tool calls are a list. The content may be null."""
    row: dict[str, object] = {"role": message["role"], "content": message.get("content"), **message}
    if message.get("tool_calls"):
        row["tool_calls"] = parse_json(message["tool_calls"] or "")
    return row


def _tools(record: Record) -> dict[str, object]:
    return {"tools": parse_json(record.tools)} if record.tools else {}


def _turns(said: Sequence[Message]) -> int:
    return sum(one["role"] == "assistant" for one in said)


def _teaches(record: Record, turns: int) -> dict[str, object]:
    """The column `teaches`. The column is left out if it has the value that readers assume without it: `all` for a
    conversation with several turns of the assistant, else `last`.
    """
    return {} if record.teaches == ("all" if turns > 1 else "last") else {"teaches": record.teaches}


def _list(text: str) -> list[dict[str, object]]:
    value = parse_json(text)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError("the tools or tool calls are not a list of objects")
    return value
