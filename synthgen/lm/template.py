"""Renders chat templates. A template that hides a message, raises an error or does not end is refused.

A chat template is a program that comes with a model. Some templates silently leave out the system message, the earlier
turns, the tools or the calls of tools, and some raise an error for them. Before a conversation of a new form is
rendered, a conversation of the same form with known texts is rendered, and each of these texts must appear.
"""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.records import Message

_LIMIT = 10.0  # seconds for the rendering of a short conversation; usual templates need a millisecond

Turns = list[dict[str, object]]
"""The messages of a conversation, without fields that are null."""
Tools = list[dict[str, object]]
"""The tools that a conversation may use, as JSON schemas of functions."""
Form = tuple[object, ...]
"""The roles and fields of a conversation's messages, whether the last message is unfinished, and whether there are
tools.
"""


def rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, is_open: bool = False, tools: str | None = None
) -> str:
    """The text of a conversation in the tokenizer's chat template. With `is_open`, the text of the last message is
    followed only by what the template puts after a message. Otherwise, the beginning of an answer follows. `tools` is
    JSON text: the list of the tools that the conversation may use.

    Raises TeacherError when the template hides a message, the tools or a call of a tool, raises an error or takes
    longer than a few seconds.
    """
    given, known = _given(messages), _tools(tools)
    _check_once(tokenizer, given, is_open, known)
    try:
        return _apply(tokenizer, given, is_open, known)
    except Exception as error:  # a template is a program and can raise anything
        raise _refusal(tokenizer, given, f"refuses these messages: {_line(error)}") from None


def rendered_all(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]) -> list[str]:
    """The text of each conversation, as `rendered` returns it. One call for all conversations takes less time than one
    call for each.
    """
    given = [_given(messages) for messages in prompts]
    for messages in given:
        _check_once(tokenizer, messages, False, None)
    try:
        return list(tokenizer.apply_chat_template(given, add_generation_prompt=True, tokenize=False)) if given else []
    except Exception:  # one of the conversations is refused; the error names it
        return [rendered(tokenizer, messages) for messages in prompts]


def _apply(tokenizer: PreTrainedTokenizerBase, messages: Turns, is_open: bool, tools: Tools | None) -> str:
    more = {"tools": tools} if tools else {}
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=not is_open, tokenize=False, **more))


def _given(messages: Sequence[Message]) -> Turns:
    """The messages as templates read them: without fields that are null, and with calls of tools as a list."""
    given: Turns = []
    for message in messages:
        turn: dict[str, object] = {key: value for key, value in message.items() if value is not None}
        if "tool_calls" in turn:
            turn["tool_calls"] = _calls(turn["tool_calls"])
        given.append(turn)
    return given


def _calls(text: object) -> list[object]:
    """The tool calls in the JSON text of a message. Arguments that are the JSON text of an object are parsed to
    this object, because templates convert arguments to JSON. Raises TeacherError when the text holds no list of calls.
    """
    calls = _parsed(text)
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise TeacherError("the tool calls of a message are not a list of calls", "correct the row's tool_calls")
    for call in calls:
        called = call.get("function", call)
        arguments = _parsed(called["arguments"]) if isinstance(called, dict) and "arguments" in called else None
        if isinstance(arguments, dict):
            called["arguments"] = arguments
    return calls


def _tools(text: str | None) -> Tools | None:
    """The tools that a row's JSON text holds. Raises TeacherError when the text holds no list of tools."""
    if not text:
        return None
    tools = _parsed(text)
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise TeacherError("the tools of a row are not a list of functions", "correct the row's column `tools`")
    return tools


def _parsed(text: object) -> object:
    try:
        return json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        return None


def _check_once(tokenizer: PreTrainedTokenizerBase, messages: Turns, is_open: bool, tools: Tools | None) -> None:
    """Call `_check` for the first conversation of each form."""
    form = (is_open, bool(tools), *((m["role"], bool(m.get("content")), *sorted(m)) for m in messages))
    known = _CHECKED.setdefault(tokenizer, set())
    if (str(tokenizer.chat_template), form) not in known:
        _check(tokenizer, messages, is_open, tools)
        known.add((str(tokenizer.chat_template), form))


_CHECKED: WeakKeyDictionary[PreTrainedTokenizerBase, set[tuple[str, Form]]] = WeakKeyDictionary()


def _check(tokenizer: PreTrainedTokenizerBase, messages: Turns, is_open: bool, tools: Tools | None) -> None:
    """Raise TeacherError when the template hides a part of a conversation of this form, or does not end."""
    probes = [_probe(message, n) for n, message in enumerate(messages)]
    own_tool: Tools = [{"type": "function", "function": {"name": _TOOL, "description": "", "parameters": {}}}]
    try:
        text = _in_time(tokenizer, probes, is_open, own_tool if tools else None)
    except TimeoutError:
        raise _refusal(tokenizer, messages, f"does not end within {_LIMIT:.0f} seconds") from None
    except Exception:  # the messages themselves are rendered next, and their error is reported
        return
    if tools and _TOOL not in text:
        raise _refusal(tokenizer, messages, "hides the tools")
    after = 0
    for message, probe in zip(messages, probes, strict=True):
        last = probe is probes[-1]
        if "tool_calls" in probe and str(probe["tool_calls"][0]["function"]["name"]) not in text:  # type: ignore[index]
            raise _refusal(tokenizer, messages, "hides the calls of tools")
        if last and is_open and "reasoning_content" in probe and str(probe["reasoning_content"]) not in text:
            raise _refusal(tokenizer, messages, HIDES_REASONING)
        if not message.get("content"):
            continue
        # Some templates put the system message before the last turn, so only the messages of other roles must be in
        # order.
        place = text.find(str(probe["content"]), 0 if message["role"] == "system" else after)
        if place < 0:
            which = "the system message" if message["role"] == "system" else f"a message of role '{message['role']}'"
            raise _refusal(tokenizer, messages, f"hides {which}")
        after = after if message["role"] == "system" else place


HIDES_REASONING = "hides the reasoning of an answer"
_TOOL = "probe_tool_of_a_chat_template"


def _probe(message: dict[str, object], number: int) -> dict[str, object]:
    """A copy of the message with known texts in place of its own. A template may leave out the reasoning of earlier
    turns, as many templates do on purpose.
    """
    filler = "of a chat template " * 8
    probe = dict(message)
    if message.get("content"):
        probe["content"] = f"probe{number}a {filler}probe{number}z"
    if "reasoning_content" in message:
        probe["reasoning_content"] = f"thought{number}a {filler}thought{number}z"
    if "tool_calls" in message:
        called = {"name": f"probe_call_{number}", "arguments": {"key": "value"}}
        probe["tool_calls"] = [{"type": "function", "id": "abcdefghi", "function": called}]
    return probe


def _in_time(tokenizer: PreTrainedTokenizerBase, messages: Turns, is_open: bool, tools: Tools | None) -> str:
    """Render in another thread. Raises TimeoutError when this takes too long, and ends the thread."""
    texts: list[str] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            texts.append(_apply(tokenizer, messages, is_open, tools))
        except Exception as error:
            errors.append(error)
        except SystemExit:  # the time limit has passed
            return

    thread = threading.Thread(target=work, name="synthgen-template", daemon=True)
    thread.start()
    thread.join(_LIMIT)
    if thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit))
        raise TimeoutError
    if errors:
        raise errors[0]
    return texts[0]


def _refusal(tokenizer: PreTrainedTokenizerBase, messages: Turns, what: str) -> TeacherError:
    roles = ", ".join(str(message["role"]) for message in messages[:8]) + (", …" if len(messages) > 8 else "")
    has_system = any(message["role"] == "system" for message in messages)
    way = "move the text of system.j2 and teacher_system.j2 into user.j2" if has_system else "change the templates"
    way = "leave the reasoning out with train.rationale: {mode: dropped}" if what == HIDES_REASONING else way
    return TeacherError(
        f"the chat template of '{tokenizer.name_or_path}' {what} (roles: {roles})",
        f"name a model whose chat template shows every message, or {way}",
    )


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
