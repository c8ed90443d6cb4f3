"""Token ids of an assistant's turn: the answer to a prompt, as a model's chat template writes it.

    turn_end(tokenizer)                             # the id that ends a turn, such as that of <|im_end|>
    answer_ids(tokenizer, prompt, answer, tools)    # the ids of the answer, with the end of the turn

For a plain text, the ids are the text's tokens and the token that ends a turn, unless the template begins every answer
with reasoning. In all other cases (reasoning, calls of tools, several messages), the conversation is rendered with and
without the answer, and the difference is the answer.

Some templates begin every answer with reasoning, and leave the reasoning out of a rendered answer (DeepSeek R1). There,
the answer is the reasoning, the closing tag and the text.
"""

from __future__ import annotations

import json
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
_QUESTION: list[Message] = [{"role": "user", "content": "question"}]
_TOOL = json.dumps([{"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}])

_WORD = f"end{secrets.token_hex(8)}end"  # a random word, which is in no template


@dataclass(frozen=True)
class _Turn:
    """How a chat template writes an assistant's turn. `end` is the special token that the template puts after the turn,
    or None when the template puts no special token there. `call_end` is the same for a turn that calls a tool. `opened`
    is the tag, with the space after it, with which a prompt ends if the template begins every answer with reasoning;
    otherwise it is empty.
    """

    end: int | None
    call_end: int | None = None
    opened: str = ""


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


def call_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the special token that the chat template puts after a call of a tool, such as that of <|call|>. None
    when the template puts no special token there, and when the template shows no calls.
    """
    return _turn_of(tokenizer).call_end


def _read_turn(tokenizer: PreTrainedTokenizerBase) -> _Turn:
    if not tokenizer.chat_template:
        return _Turn(None)
    try:
        prompt = rendered(tokenizer, _QUESTION)
    except TeacherError:  # the rows themselves are rendered later, and their error is reported
        return _Turn(None)
    ends = _specials_after(tokenizer, {"role": "assistant", "content": _WORD}, None)
    tag = next(filter(prompt.rstrip().endswith, _OPENED), "")
    opened = prompt[prompt.rindex(tag) :] if tag else ""
    return _Turn(ends[0] if ends else None, _read_call_end(tokenizer, ends), opened)


def _read_call_end(tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> int | None:
    """See `call_end`. `ends` are the special tokens after a plain answer. If there are none, the template ends turns by
    text, and a special token after a call belongs to the call.
    """
    function = {"name": "look", "arguments": {"key": _WORD}}
    calls = json.dumps([{"id": "abcdefghi", "type": "function", "function": function}])
    message: Message = {"role": "assistant", "content": "", "tool_calls": calls}
    found = _specials_after(tokenizer, message, _TOOL) or _specials_after(tokenizer, message, None) if ends else []
    usual = [token for token in found if token in (ends[0], tokenizer.eos_token_id)]
    return next(iter(usual or found[-1:]), None)


def _specials_after(tokenizer: PreTrainedTokenizerBase, message: Message, tools: str | None) -> list[int]:
    """The special tokens that the template puts after `message`, which has the random word in its content or in a call
    of a tool. Empty when other text follows the content, or when the template does not show the message.
    """
    try:
        whole = rendered(tokenizer, [*_QUESTION, message], is_open=True, tools=tools)
    except TeacherError:
        return []
    _, found, after = whole.rpartition(_WORD)
    ids = list(tokenizer(after.lstrip(), add_special_tokens=False)["input_ids"]) if found else []
    special = control_of(tokenizer).ids
    if message.get("content") and ids and ids[0] not in special:
        return []
    return [int(token) for token in ids if token in special]


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


def without_end(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """The text without the tokens that end a turn, if the text ends with the characters of such tokens. Texts in a data
    set for one model often end with the end tokens of that model. If these tokens were kept, the answer would have two
    ends.
    """
    ends = (turn_end(tokenizer), tokenizer.eos_token_id, call_end(tokenizer))
    written = {str(tokenizer.convert_ids_to_tokens(int(token))) for token in ends if token is not None}
    while True:
        cut = text.rstrip()
        end = next((end for end in written if end and cut.endswith(end)), None)
        if end is None:
            return text
        text = cut[: -len(end)]


def answer_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: Sequence[Message], tools: str | None = None
) -> list[int]:
    """The token ids of the messages `answer` after the messages `prompt`, up to and including the token that ends the
    turn. For `tools`, see `render`.

    When the last message of `prompt` is the assistant's, the answer continues this message. Raises TeacherError when
    the template cannot show the answer.
    """
    opened = "" if _continues(prompt) else _turn_of(tokenizer).opened
    answer = [_ended_once(tokenizer, message) for message in answer]
    text, tag = str(answer[0].get("content") or ""), opened.strip()
    if is_plain(answer) and text.lstrip().startswith(tag):
        return completion_ids(tokenizer, (), _without_tag(text, opened) if tag else text)
    if _continues(prompt):
        raise TeacherError(
            "an answer with reasoning or calls of tools cannot continue a message that the assistant began",
            "move the beginning of the answer from the prompt to the completion",
        )
    try:
        return _rendered_answer(tokenizer, prompt, answer, tools)
    except TeacherError:
        if not opened or len(answer) > 1 or answer[0].get("tool_calls"):
            raise
        thoughts = str(answer[0].get("reasoning_content") or "").strip("\n")
        return completion_ids(tokenizer, (), f"{thoughts}\n</{tag[1:]}\n\n{text}")


def _without_tag(text: str, opened: str) -> str:
    """The text without its opening tag, with which the prompt already ends."""
    return text.lstrip().removeprefix(opened).removeprefix(opened.strip())


def _ended_once(tokenizer: PreTrainedTokenizerBase, message: Message) -> Message:
    content = message.get("content")
    return {**message, "content": without_end(tokenizer, content)} if content else message


def _rendered_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], answer: Sequence[Message], tools: str | None
) -> list[int]:
    """The token ids by which the rendered conversation with the answer is longer than the conversation without it."""
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
    """The token ids of a rendered answer up to its end token. Text that the template puts after this token, such as a
    line break or a further end token, is left out. A missing end token is added.
    """
    end = turn_end(tokenizer)
    marked = control.word in text
    ids = control.rendered_ids(text) if marked else list(tokenizer(text, add_special_tokens=False)["input_ids"])
    ends = (end, tokenizer.eos_token_id, call_end(tokenizer))
    places = [place for place, token in enumerate(ids) if token in ends]
    if not places:
        return [*ids, *_known(end)]
    last = places.pop()
    while places and not str(tokenizer.decode(ids[places[-1] + 1 : last])).strip():
        last = places.pop()
    return ids[: last + 1]


def _known(token: int | None) -> tuple[int, ...]:
    return () if token is None else (token,)
