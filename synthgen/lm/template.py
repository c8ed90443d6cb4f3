"""Renders chat templates. A template that hides a message, raises an error or does not end is refused.

A chat template is a program that comes with a model. Some leave out the system message or the earlier turns without a
word, and some raise an error for them. Before a conversation of a new form is rendered, a conversation of the same form
with known texts is rendered, and each of these texts must appear.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.records import Message

_LIMIT = 10.0  # seconds for the rendering of a short conversation; usual templates need a millisecond

Turns = list[dict[str, object]]
"""The messages of a conversation, without fields that are null."""
Form = tuple[object, ...]
"""The roles and fields of a conversation's messages, and whether the last message is unfinished."""


def rendered(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, is_open: bool = False) -> str:
    """The text of a conversation in the tokenizer's chat template. With `is_open`, the text of the last message is
    followed only by what the template puts after a message. Otherwise, the beginning of an answer follows.

    Raises TeacherError when the template hides a message, raises an error or takes longer than a few seconds.
    """
    given = _given(messages)
    _check_once(tokenizer, given, is_open)
    try:
        return str(tokenizer.apply_chat_template(given, add_generation_prompt=not is_open, tokenize=False))
    except Exception as error:  # a template is a program and can raise anything
        raise _refusal(tokenizer, given, f"refuses these messages: {_line(error)}") from None


def rendered_all(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]) -> list[str]:
    """The text of each conversation, as `rendered` returns it. One call takes less time than many."""
    given = [_given(messages) for messages in prompts]
    for messages in given:
        _check_once(tokenizer, messages, False)
    try:
        return list(tokenizer.apply_chat_template(given, add_generation_prompt=True, tokenize=False)) if given else []
    except Exception:  # one of the conversations is refused; the error names it
        return [rendered(tokenizer, messages) for messages in prompts]


def _given(messages: Sequence[Message]) -> Turns:
    return [{key: value for key, value in message.items() if value is not None} for message in messages]


def _check_once(tokenizer: PreTrainedTokenizerBase, messages: Turns, is_open: bool) -> None:
    """Call `_check` for the first conversation of each form."""
    form = (is_open, *((message["role"], bool(message.get("content")), *sorted(message)) for message in messages))
    known = _CHECKED.setdefault(tokenizer, set())
    if (str(tokenizer.chat_template), form) not in known:
        _check(tokenizer, messages, is_open)
        known.add((str(tokenizer.chat_template), form))


_CHECKED: WeakKeyDictionary[PreTrainedTokenizerBase, set[tuple[str, Form]]] = WeakKeyDictionary()


def _check(tokenizer: PreTrainedTokenizerBase, messages: Turns, is_open: bool) -> None:
    """Raise TeacherError when the template hides a message of this form, or does not end."""
    probes = [
        {**message, "content": f"probe{n}a {'of a chat template ' * 8}probe{n}z"} if message.get("content") else message
        for n, message in enumerate(messages)
    ]
    try:
        text = _in_time(tokenizer, probes, is_open)
    except TimeoutError:
        raise _refusal(tokenizer, messages, f"does not end within {_LIMIT:.0f} seconds") from None
    except Exception:  # the messages themselves are rendered next, and their error is reported
        return
    after = 0
    for message, probe in zip(messages, probes, strict=True):
        if probe is message:
            continue
        # Some templates put the system message before the last turn, so only the other messages must be in order.
        place = text.find(str(probe["content"]), 0 if message["role"] == "system" else after)
        if place < 0:
            which = "the system message" if message["role"] == "system" else f"a message of role '{message['role']}'"
            raise _refusal(tokenizer, messages, f"hides {which}")
        after = after if message["role"] == "system" else place


def _in_time(tokenizer: PreTrainedTokenizerBase, messages: Turns, is_open: bool) -> str:
    """Render in another thread. Raises TimeoutError when this takes too long, and ends the thread."""
    texts: list[str] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            texts.append(
                str(tokenizer.apply_chat_template(messages, add_generation_prompt=not is_open, tokenize=False))
            )
        except Exception as error:
            errors.append(error)
        except SystemExit:  # the time is over
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
    return TeacherError(
        f"the chat template of '{tokenizer.name_or_path}' {what} (roles: {roles})",
        f"name a model whose chat template shows every message, or {way}",
    )


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
