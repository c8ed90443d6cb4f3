"""From messages to token ids in a model's own chat template: prompts, turns left open, and given completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from synthgen.errors import TeacherError
from synthgen.records import Message
from synthgen.requests import Request


def render(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a prompt, ready for the answer."""
    rendered = tokenizer.apply_chat_template(
        [{k: v for k, v in m.items() if v is not None} for m in messages],
        add_generation_prompt=True,
        tokenize=False,
    )
    return list(tokenizer(rendered, add_special_tokens=False)["input_ids"])


def render_open(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation whose last message is not finished: the template up to where its text ends."""
    mark = "\ue000"  # private use: no template and no vocabulary has it
    *before, last = messages
    said = [*before, {**last, "content": f"{last['content']}{mark}"}]
    rendered = tokenizer.apply_chat_template(said, add_generation_prompt=False, tokenize=False)
    before_mark, found, _ = rendered.partition(mark)
    if not found:
        raise TeacherError("the model's chat template does not show the last message", "use another model")
    return list(tokenizer(before_mark, add_special_tokens=False)["input_ids"])


def render_each(tokenizer: Any, requests: Sequence[Request]) -> list[list[int]]:
    """Token ids of each request's prompt."""
    cache: dict[tuple[int, bool], list[int]] = {}  # samples of one seed share their messages object
    for r in requests:
        key = (id(r.messages), r.open_turn)
        if key not in cache:
            cache[key] = (render_open if r.open_turn else render)(tokenizer, r.messages)
    return [cache[id(r.messages), r.open_turn] for r in requests]


def completion_ids(tokenizer: Any, eos: set[int], request: Request) -> list[int]:
    """The tokens of a request's completion in this tokenizer.

    Tokens that the request brings are used when this tokenizer turns them into exactly the completion's text (a
    corpus made with the same one); otherwise the text is tokenized, and closed with the end token.
    """
    text = request.completion[0]["content"] or ""
    given = list(request.completion_ids)
    if given and max(given) < len(tokenizer):
        spoken = [token for token in given if token not in eos]
        if tokenizer.decode(spoken, skip_special_tokens=True) == text:
            return given
    end = tokenizer.eos_token_id
    tokens = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return tokens if end is None else [*tokens, int(end)]
