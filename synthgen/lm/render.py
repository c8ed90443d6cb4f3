"""From messages to token ids in a model's own chat template: prompts, open turns, and given completions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.records import Message

_MARK = "\ue000"  # private use: no template and no vocabulary has it


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a prompt, ready for the answer."""
    text = tokenizer.apply_chat_template(
        [{key: value for key, value in message.items() if value is not None} for message in messages],
        add_generation_prompt=True,
        tokenize=False,
    )
    return plain_ids(tokenizer, text)


def render_open(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation whose last message is not finished: the template up to where its text ends."""
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
    """Token ids of each of (messages, whether the last one is open). Samples of one seed share their messages object,
    and it is rendered once."""
    known: dict[tuple[int, bool], list[int]] = {}
    for messages, is_open in prompts:
        key = (id(messages), is_open)
        if key not in known:
            known[key] = (render_open if is_open else render)(tokenizer, messages)
    return [known[id(messages), is_open] for messages, is_open in prompts]


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, eos: Collection[int], text: str, given: Sequence[int] = ()
) -> list[int]:
    """The tokens of a completion in this tokenizer.

    The tokens `given` are taken if this tokenizer turns them into exactly `text` (they are then of a corpus made with
    the same one). Otherwise the text is tokenized, and closed with the end token.
    """
    if given and max(given) < len(tokenizer):
        shown = [token for token in given if token not in eos]
        if tokenizer.decode(shown, skip_special_tokens=True) == text:
            return list(given)
    end = tokenizer.eos_token_id
    ids = plain_ids(tokenizer, text)
    return ids if end is None else [*ids, int(end)]


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text, without tokens that the tokenizer puts around texts."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
