"""Converts prompts to token ids. Prompts are written with the model's chat template. The last message of a prompt may
be unfinished, so that the model continues it. Control tokens come from the template alone: in messages and texts, their
characters are ordinary text (see `synthgen.lm.control`). `synthgen.lm.turns` converts answers.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.lm.control import control_of
from synthgen.lm.template import rendered, rendered_all
from synthgen.records import Message

_MARK = f"end{secrets.token_hex(8)}end"  # a random word, which is in no template and in no message


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None) -> list[int]:
    """Token ids of a prompt in the tokenizer's chat template, up to the place where the answer begins. `tools` is JSON
    text: the list of the tools that the conversation may use.
    """
    control = control_of(tokenizer)
    if control.in_conversation(messages, tools):
        hidden, tools = control.hidden(messages), control.hidden_text(tools)
        return control.rendered_ids(rendered(tokenizer, hidden, tools=tools))
    return _ids(tokenizer, rendered(tokenizer, messages, tools=tools))


def render_open(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: str | None = None) -> list[int]:
    """Token ids of a conversation whose last message is unfinished. The ids end with the last message's text, without
    the tokens that the template puts after a message. For `tools`, see `render`.
    """
    *before, last = messages
    control = control_of(tokenizer)
    marked: list[Message] = [*before, {**last, "content": f"{last['content']}{_MARK}"}]
    is_plain = not control.in_conversation(marked, tools)
    if not is_plain:
        marked, tools = control.hidden(marked), control.hidden_text(tools)
    text = rendered(tokenizer, marked, is_open=True, tools=tools)
    before_mark, mark, _ = text.partition(_MARK)
    if not mark:
        raise TeacherError("the model's chat template does not show the last message", "use another model")
    return _ids(tokenizer, before_mark) if is_plain else control.rendered_ids(before_mark)


def render_all(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Token ids of each prompt, as `render` returns them. This function takes half the time of separate calls of
    `render`.
    """
    control = control_of(tokenizer)
    plain = [n for n, messages in enumerate(prompts) if not control.in_messages(messages)]
    texts = rendered_all(tokenizer, [prompts[n] for n in plain])
    ids = dict(zip(plain, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True)) if texts else {}
    return [list(ids[n]) if n in ids else render(tokenizer, messages) for n, messages in enumerate(prompts)]


def render_each(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[Sequence[Message], bool]]
) -> list[list[int]]:
    """Token ids of each prompt. A prompt is a pair: its messages, and whether the last message is unfinished. If
    several prompts contain the same list object of messages, this list is rendered only once.
    """
    known: dict[tuple[int, bool], list[int]] = {}
    for messages, is_open in prompts:
        key = (id(messages), is_open)
        if key not in known:
            known[key] = (render_open if is_open else render)(tokenizer, messages)
    return [known[id(messages), is_open] for messages, is_open in prompts]


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, without the special tokens that the tokenizer can add around a text. Characters in the text
    that spell a control token are tokenized as ordinary characters.
    """
    control = control_of(tokenizer)
    if control.has(text):
        return control.text_ids(text)
    ids = _ids(tokenizer, text)
    # A normalizer can turn other characters into the characters of a control token.
    return ids if control.ids.isdisjoint(ids) else control.text_ids(text)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
