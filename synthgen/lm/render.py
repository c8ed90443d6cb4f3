"""Converts prompts and completions to token ids. Prompts are written with the model's chat template. The last message
of a prompt may be unfinished, so that the model continues it. Control tokens come from the template alone: in messages
and completions, their characters are ordinary text (see `synthgen.lm.control`).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.lm.control import control_of
from synthgen.lm.template import rendered, rendered_all
from synthgen.records import Message

_MARK = f"end{secrets.token_hex(8)}end"  # a random word, which is in no template and in no message


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a prompt in the tokenizer's chat template, up to the place where the answer begins."""
    control = control_of(tokenizer)
    if control.in_messages(messages):
        return control.rendered_ids(rendered(tokenizer, control.hidden(messages)))
    return _ids(tokenizer, rendered(tokenizer, messages))


def render_open(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation whose last message is unfinished. They end with the last message's text, without the
    tokens that the template puts after a message.
    """
    *before, last = messages
    control = control_of(tokenizer)
    marked: list[Message] = [*before, {**last, "content": f"{last['content']}{_MARK}"}]
    is_plain = not control.in_messages(marked)
    text = rendered(tokenizer, marked if is_plain else control.hidden(marked), is_open=True)
    before_mark, mark, _ = text.partition(_MARK)
    if not mark:
        raise TeacherError("the model's chat template does not show the last message", "use another model")
    return _ids(tokenizer, before_mark) if is_plain else control.rendered_ids(before_mark)


def render_all(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[Message]]) -> list[list[int]]:
    """Token ids of each prompt, as `render` returns them. It takes half the time of separate calls of `render`."""
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


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, eos: Collection[int], text: str, given: Sequence[int] = ()
) -> list[int]:
    """The token ids of a completion with its end token.

    `given` are token ids that are stored with the text, perhaps from another tokenizer. They are returned if this
    tokenizer decodes them to exactly `text`. Otherwise the text is tokenized, and the end token is appended.
    """
    if given and max(given) < len(tokenizer):
        shown = [token for token in given if token not in eos]
        if tokenizer.decode(shown, skip_special_tokens=True) == text:
            return list(given)
    end = tokenizer.eos_token_id
    ids = plain_ids(tokenizer, text)
    return ids if end is None else [*ids, int(end)]


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, without the special tokens that the tokenizer can add around a text. The characters of a
    control token in the text are ordinary characters.
    """
    control = control_of(tokenizer)
    if control.has(text):
        return control.text_ids(text)
    ids = _ids(tokenizer, text)
    # A normalizer can turn other characters into those of a control token.
    return ids if control.ids.isdisjoint(ids) else control.text_ids(text)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
