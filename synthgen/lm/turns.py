"""Token ids of an assistant's turn: the answer to a prompt, as a model's chat template writes it.

    turn_end(tokenizer)                             # the id that ends a turn, such as that of <|im_end|>
    answer_ids(tokenizer, prompt, answer, tools)    # the ids of the answer, with the end of the turn

For a plain text, the ids are the text's tokens and the token that ends a turn, unless the template begins every answer
with reasoning. In all other cases (reasoning, calls of tools, several messages), the conversation is rendered with and
without the answer, and the difference is the answer.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.lm.control import Control, control_of
from synthgen.lm.render import plain_ids
from synthgen.lm.template import rendered
from synthgen.records import Message

_OPENED = ("<think>", "<thinking>", "<thought>", "<reasoning>")
"""Tags that a template may write at the end of a prompt, so that the answer begins with reasoning."""

_WORD = f"end{secrets.token_hex(8)}end"  # a random word, which is in no template


@dataclass(frozen=True)
class _Turn:
    """How a chat template writes an assistant's turn. `end` is the special token that the template puts after the turn,
    or None when the template puts no special token there. `thinks` says whether the prompt ends with the beginning of
    reasoning.
    """

    end: int | None
    thinks: bool = False


_TURNS: WeakKeyDictionary[PreTrainedTokenizerBase, dict[str, _Turn]] = WeakKeyDictionary()


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the token that ends an assistant's turn in the chat template. If the template puts no special token
    after a turn, or if there is no template, the result is the id of the tokenizer's end token. None when the tokenizer
    has no end token.
    """
    end = template_end(tokenizer)
    if end is None and tokenizer.eos_token_id is not None:
        return int(tokenizer.eos_token_id)
    return end


def template_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the special token that the chat template puts after an assistant's turn. None when the template puts no
    special token there, and when there is no template.
    """
    return _turn_of(tokenizer).end


def _turn_of(tokenizer: PreTrainedTokenizerBase) -> _Turn:
    known = _TURNS.setdefault(tokenizer, {})
    template = str(tokenizer.chat_template)
    if template not in known:
        known[template] = _read_turn(tokenizer)
    return known[template]


def _read_turn(tokenizer: PreTrainedTokenizerBase) -> _Turn:
    if not tokenizer.chat_template:
        return _Turn(None)
    question: list[Message] = [{"role": "user", "content": "question"}]
    try:
        prompt = rendered(tokenizer, question)
        whole = rendered(tokenizer, [*question, {"role": "assistant", "content": _WORD}], is_open=True)
    except TeacherError:  # the rows themselves are rendered later, and their error is reported
        return _Turn(None)
    _, found, after = whole.rpartition(_WORD)
    ids = list(tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]) if found else []
    end = int(ids[0]) if ids and ids[0] in control_of(tokenizer).ids else None
    return _Turn(end, prompt.rstrip().endswith(_OPENED))


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, eos: Collection[int], text: str, given: Sequence[int] = ()
) -> list[int]:
    """The token ids of a completion with the token that ends a turn.

    `given` are token ids that are stored with the text, perhaps from another tokenizer. The ids `given` are returned if
    this tokenizer decodes them to exactly `text`; `eos` are ids that end a completion, which are left out of the
    comparison. Otherwise the text is tokenized.
    """
    if given and max(given) < len(tokenizer):
        shown = [token for token in given if token not in eos]
        if tokenizer.decode(shown, skip_special_tokens=True) == text:
            return list(given)
    return [*plain_ids(tokenizer, text), *_known(turn_end(tokenizer))]


def _without_end(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text without the characters of a token that ends a turn, if the text ends with them. Texts in a data set for
    one model often end with the end token of that model. If this token were kept, the answer would have two end tokens.
    """
    cut = text.rstrip()
    for token in (turn_end(tokenizer), tokenizer.eos_token_id):
        written = "" if token is None else str(tokenizer.convert_ids_to_tokens(int(token)))
        if written and cut.endswith(written):
            return cut[: -len(written)]
    return text


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: Sequence[Message], tools: str | None = None
) -> list[int]:
    """The token ids of the messages `answer` after the messages `prompt`, up to and including the token that ends the
    turn. For `tools`, see `render`.

    When the last message of `prompt` is the assistant's, the answer continues this message. Raises TeacherError when
    the template cannot show the answer.
    """
    plain = is_plain(answer)
    if plain and (_continues(prompt) or not _turn_of(tokenizer).thinks):
        return completion_ids(tokenizer, (), _without_end(tokenizer, str(answer[0].get("content") or "")))
    if _continues(prompt):
        raise TeacherError(
            "an answer with reasoning or calls of tools cannot continue a message that the assistant began",
            "move the beginning of the answer from the prompt to the completion",
        )
    control, whole = control_of(tokenizer), [*prompt, *answer]
    if control.in_conversation(whole, tools):
        whole, tools = control.hidden(whole), control.hidden_text(tools)
    before = rendered(tokenizer, whole[: len(prompt)], tools=tools)
    text = rendered(tokenizer, whole, is_open=True, tools=tools)
    if not text.startswith(before):
        raise TeacherError(
            f"the chat template of '{tokenizer.name_or_path}' begins an answer with reasoning or calls of tools in "
            "another way than it asks for an answer",
            "leave out the reasoning (train.rationale: {mode: dropped}), or use another model",
        )
    return _ended(tokenizer, control, text[len(before) :])


def _continues(prompt: Sequence[Message]) -> bool:
    return bool(prompt) and prompt[-1]["role"] == "assistant"


def is_plain(answer: Sequence[Message]) -> bool:
    """Whether an answer is one message that holds only text."""
    return len(answer) == 1 and not answer[0].get("reasoning_content") and not answer[0].get("tool_calls")


def _ended(tokenizer: PreTrainedTokenizerBase, control: Control, text: str) -> list[int]:
    """The token ids of a rendered answer up to its last end token. Text that the template puts after this token, such
    as a line break, is left out. A missing end token is added.
    """
    end = turn_end(tokenizer)
    marked = control.word in text
    ids = control.rendered_ids(text) if marked else list(tokenizer(text, add_special_tokens=False)["input_ids"])
    last = max((place for place, token in enumerate(ids) if token in (end, tokenizer.eos_token_id)), default=-1)
    return ids[: last + 1] if last >= 0 else [*ids, *_known(end)]


def _known(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
