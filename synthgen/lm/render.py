"""Converts prompts and completions to token ids. Prompts are written with the model's chat template. The last message
of a prompt may be unfinished, so that the model continues it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.records import Message

_MARK = "\ue000"  # a private-use character, which is in no template or vocabulary


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a prompt in the tokenizer's chat template, up to the place where the answer begins."""
    text = tokenizer.apply_chat_template(
        [{key: value for key, value in message.items() if value is not None} for message in messages],
        add_generation_prompt=True,
        tokenize=False,
    )
    return plain_ids(tokenizer, text)


def render_open(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation whose last message is unfinished. They end with the last message's text, without the
    tokens that the template puts after a message.
    """
    *before, last = messages
    marked = [*before, {**last, "content": f"{last['content']}{_MARK}"}]
    text = tokenizer.apply_chat_template(marked, add_generation_prompt=False, tokenize=False)
    before_mark, mark, _ = text.partition(_MARK)
    if not mark:
        raise TeacherError("the model's chat template does not show the last message", "use another model")
    return plain_ids(tokenizer, before_mark)


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
    """Token ids of a text, without the special tokens that the tokenizer can add around a text."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
