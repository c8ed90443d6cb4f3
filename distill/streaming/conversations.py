"""Token ids of the rows of a corpus for students that read and write text.

    reader = reader_of(job.tokens, job.own_teachers)
    stream = open_stream(source, reader, cache, choice)

The ids are made with the student's own tokenizer, chat template and end tokens. Rows whose teacher has the very same
tokenizer keep the ids of the corpus, because the teacher drew these ids, and the teacher's distributions belong to
these ids.

A row teaches its completion. With `teaches: all`, a row also teaches the assistant's turns in its prompt. Each of the
assistant's turns is a separate example in `Example.also`, and the prompt of this example is everything before the turn.
A row without a prompt is plain text, and the student learns all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import transformers

from distill.data import Shape
from distill.streaming.columns import (
    ANSWER,
    COMPLETION,
    FINISH_REASON,
    PROMPT,
    PROMPT_TOKENS,
    RATIONALE,
    TEACHER,
    TEACHES,
    TOKENS,
    TOOLS,
)
from distill.streaming.tokencache import Reader, Row, Turn
from synthgen import durable
from synthgen.errors import CorpusError, TeacherError
from synthgen.lm.render import render_all
from synthgen.lm.tokens import Tokens
from synthgen.records import COMPLETE, Message

_COLUMNS = (PROMPT, COMPLETION, TOOLS, TEACHES, TEACHER, FINISH_REASON, TOKENS, PROMPT_TOKENS, ANSWER, RATIONALE)
_QUOTED = 60  # number of characters of a prompt that a message quotes


def reader_of(
    tokens: Tokens,
    own: Collection[str],
    shape: Shape | None = None,
    identity: object = None,
    *,
    reasoning: bool = True,
) -> Reader:
    """Return the reader for a student whose tokenizer is `tokens`.

    `own` are the names of the teachers whose rows keep the token ids of the corpus; see
    `distill.tokenizer.written_with`. `identity` is a JSON value with everything that `shape` was made from. Different
    values of `shape` need different values of `identity`. When `reasoning` is false, the reasoning of answers
    (`reasoning_content`) is left out.
    """
    everything = [tokens.hash, sorted(tokens.eos), sorted(own), reasoning, transformers.__version__, identity]

    def turns(rows: Sequence[Row]) -> list[list[Turn]]:
        rows = [_ended_once(tokens, row) for row in rows]
        prompts = _prompts(tokens, rows)
        return [_turns(tokens, row, prompt, reasoning) for row, prompt in zip(rows, prompts, strict=True)]

    return Reader(durable.digest(everything), _COLUMNS, turns=turns, own=frozenset(own), shape=shape)


def _ended_once(tokens: Tokens, row: Row) -> Row:
    """The row without the characters of end tokens after the texts of the assistant's earlier turns. The turns of a
    conversation then look alike, whether they are read or learned. Prompts with stored answers of the teacher are not
    changed.
    """
    if row.token_ids or all(message["role"] != "assistant" for message in row.prompt[:-1]):
        return row
    *earlier, last = row.prompt
    return replace(row, prompt=[*(_message_ended_once(tokens, message) for message in earlier), last])


def _message_ended_once(tokens: Tokens, message: Message) -> Message:
    content = message.get("content")
    if message["role"] != "assistant" or not content:
        return message
    return {**message, "content": tokens.without_end(content)}


def _prompts(tokens: Tokens, rows: Sequence[Row]) -> list[list[int] | None]:
    """The ids of each row's prompt. None for a row that has tools, or whose prompt is empty or ends with a message of
    the assistant.
    """
    usual = [row for row in rows if not row.tools and row.prompt and row.prompt[-1]["role"] != "assistant"]
    apart = {repr(row.prompt): row.prompt for row in usual}  # rows of one seed share a prompt, which is rendered once
    try:
        ids = dict(zip(apart, render_all(tokens.tokenizer, list(apart.values())), strict=True))
    except TeacherError:
        for row in usual:
            _render(tokens, row, row.prompt)  # this call raises the error, which names the row
        raise
    places = {id(row) for row in usual}
    return [ids[repr(row.prompt)] if id(row) in places else None for row in rows]


def _turns(tokens: Tokens, row: Row, prompt: Sequence[int] | None, reasoning: bool) -> list[Turn]:
    """The last turn that the row teaches, followed by the earlier turns. Messages of users and tools are not taught."""
    if not row.prompt and row.completion:
        return [_plain_text(tokens, row)]
    whole = [*row.prompt, *row.completion]
    ids = list(prompt) if prompt is not None and len(row.completion) <= 1 else _render(tokens, row, whole[:-1])
    if row.token_ids:
        taught = Turn(ids, _ended(tokens, row))
    elif row.completion:
        taught = Turn(ids, _answer(tokens, row, whole[:-1], whole[-1:], reasoning))
    else:
        return [Turn(ids, [])]
    first = 0 if row.teaches == "all" else len(row.prompt)
    earlier = [n for n in range(first, len(whole) - 1) if whole[n]["role"] == "assistant"]
    if row.prompt[-1]["role"] == "assistant" and len(row.prompt) - 1 in earlier:
        earlier.remove(len(row.prompt) - 1)  # the completion continues this turn
    return [
        taught,
        *(
            Turn(_render(tokens, row, whole[:n]), _answer(tokens, row, whole[:n], [whole[n]], reasoning))
            for n in earlier
        ),
    ]


def _ended(tokens: Tokens, row: Row) -> list[int]:
    """The row's ids in the corpus, with an end token. Servers do not list the end token of a finished reply."""
    is_open = row.finish_reason in COMPLETE and row.token_ids[-1] not in tokens.eos and tokens.end is not None
    return [*row.token_ids, tokens.end] if is_open else list(row.token_ids)  # type: ignore[list-item]


def _render(tokens: Tokens, row: Row, prompt: Sequence[Message]) -> list[int]:
    is_open = bool(prompt) and prompt[-1]["role"] == "assistant"
    try:
        return tokens.render_open(prompt, row.tools) if is_open else tokens.render(prompt, row.tools)
    except TeacherError as error:
        raise _of_row(row, error) from None


def _answer(
    tokens: Tokens, row: Row, prompt: Sequence[Message], answer: Sequence[Message], reasoning: bool
) -> list[int]:
    if not reasoning:
        answer = [_without_reasoning(message) for message in answer]
    try:
        return tokens.answer(prompt, answer, row.tools)
    except TeacherError as error:
        raise _of_row(row, error) from None


def _without_reasoning(message: Message) -> Message:
    return {**message, "reasoning_content": None} if message.get("reasoning_content") else message


def _of_row(row: Row, error: TeacherError) -> CorpusError:
    """The error of a template for one row. The message names the row and quotes its text."""
    texts = [str(message.get("content") or "") for message in (*row.prompt, *row.completion)]
    quote = " ".join(next(filter(None, reversed(texts[: len(row.prompt)] or texts)), "").split())
    quote = quote if len(quote) <= _QUOTED else f"{quote[:_QUOTED]}…"
    return CorpusError(f"row {row.id} ('{quote}'): {error.message}", error.hint)


def _plain_text(tokens: Tokens, row: Row) -> Turn:
    """The ids of a plain text. The first token is the prompt, because no earlier token could predict it. If the
    tokenizer puts a beginning token before a text, the first token is this beginning token.
    """
    text = str(row.completion[0].get("content") or "")
    ids = [*tokens.beginning, *tokens.ids(text)]
    end = tokens.tokenizer.eos_token_id
    return Turn(ids[:1], [*ids[1:], *(() if end is None else (int(end),))])
