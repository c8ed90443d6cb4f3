"""Tokenizes the rows of a curated corpus once with the student's tokenizer, and stores the token ids in segments.

A stored row is an `Example` without its distribution. It has the token ids of the prompt, of the completion, and of the
prompt that the teacher read. For students that learn probabilities or vectors, the stored row also has float32 values.
A segment (see `distill.streaming.segment`) holds the learnable rows of one shard, in training order (see
`distill.streaming.columns`). A segment is made again when the shard's bytes or the reader's identity change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import transformers

from distill.data import Example, Shape
from distill.streaming import segment
from distill.streaming.columns import (
    ANSWER,
    ID,
    LABEL_PROBS,
    PROMPT,
    PROMPT_TOKENS,
    TEACHER_PROMPT,
    TOKENS,
    Teaching,
    teaching,
)
from distill.streaming.segment import Entries
from synthgen import durable, logits
from synthgen.lm.render import render_all
from synthgen.lm.sampling import cut
from synthgen.lm.tokens import Tokens
from synthgen.records import Message

FORMAT = "rows-v2"
_FIELDS_OF_ENTRY = (
    ("place", "<u8"),  # hash of the seed, for `share`
    ("prompt", "<u4"),  # number of prompt tokens before `shape` is applied; compared with `max_length`
    ("completion", "<u4"),  # number of completion tokens before `shape` is applied
    ("asked", "<u4"),  # number of tokens of the teacher's prompt
    ("learned", "<u4"),  # number of completion tokens after `shape` is applied, summed over the row and its `also`
    ("longest", "<u4"),  # after `shape`: length of the longest prompt or completion of the row and its `also`
    ("kept", "u1"),
    ("state", "u1"),
)
ENTRY = segment.entry_type(*_FIELDS_OF_ENTRY)
TEACHES, NO_TOKENS, NOTHING_TO_LEARN = range(3)

_BATCH = 512  # number of rows that are rendered together

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """The columns of one record. A column that the reader did not request is empty."""

    id: str
    kept: bool
    prompt: Sequence[Message] = ()
    teacher_prompt: Sequence[Message] | None = None
    answer: str | None = None
    token_ids: Sequence[int] = ()
    prompt_token_ids: Sequence[int] = ()
    label_probs: Sequence[float] = ()


@dataclass(frozen=True)
class Reader:
    """How one kind of student tokenizes rows.

    `identity` is a hash of everything that decides the result: tokenizer, template, shape. `columns` are the fields of
    `Row` that the functions read. `prompts` returns the ids of each row's prompt in the student's tokens. `asked`
    returns the ids of the prompts that the teacher read, by default those in the column `prompt_token_ids`. `values`
    returns the float32 values to store with each row.

    `shape` changes a row, or returns None to leave it out. The function may keep the distribution, keep only its first
    positions, or drop it. The function must not read the probabilities in the distribution, because they are not loaded
    yet.
    """

    identity: str
    columns: tuple[str, ...]
    prompts: Callable[[Sequence[Row]], Sequence[Sequence[int]]]
    asked: Callable[[Sequence[Row]], Sequence[Sequence[int]]] | None = None
    values: Callable[[Sequence[Row]], Sequence[Floats]] | None = None
    shape: Shape | None = None

    @property
    def key(self) -> list[object]:
        """A JSON value that differs between readers with different results."""
        given = [function is not None for function in (self.asked, self.values, self.shape)]
        return [FORMAT, self.identity, list(self.columns), given]

    @property
    def completes(self) -> bool:
        """Whether the reader needs rows that have a completion."""
        return TOKENS in self.columns


def from_messages(
    render: Callable[[Sequence[Sequence[Message]]], Sequence[list[int]]],
    identity: str,
    shape: Shape | None = None,
) -> Reader:
    """Return the reader for a student that reads and writes text. `render` returns the ids of each prompt.

    `identity` must identify both `render` and `shape`.
    """

    def prompts(rows: Sequence[Row]) -> list[list[int]]:
        keys = [repr(row.prompt) for row in rows]  # the rows of one seed have the same prompt, which is rendered once
        apart = {key: row.prompt for key, row in zip(keys, rows, strict=True)}
        ids = dict(zip(apart, render(list(apart.values())), strict=True))
        return [ids[key] for key in keys]

    return Reader(identity, (PROMPT, TOKENS, PROMPT_TOKENS, ANSWER), prompts, shape=shape)


def reader_of(tokens: Tokens, shape: Shape | None = None, identity: object = None) -> Reader:
    """Return the reader for a student whose tokenizer is `tokens`.

    `identity` is a JSON value with everything that `shape` was made from. Different shapes need different identities.
    """
    everything = [tokens.hash, sorted(tokens.eos), transformers.__version__, identity]
    return from_messages(partial(render_all, tokens.tokenizer), durable.digest(everything), shape)


@dataclass(frozen=True)
class Stored:
    """A row that was read from a segment, with the values that `Reader.values` returned for it."""

    example: Example
    values: Floats


def key_of(reader: Reader, hashes: Sequence[str]) -> str:
    """The key of a segment: a hash of the format, the reader, and the hashes of the shard's files."""
    return durable.digest([*reader.key, list(hashes)])


def make(folder: Path, shard: str, reader: Reader, path: Path, key: str) -> None:
    """Write the segment of one shard of a curated corpus."""
    rows = teaching(folder, shard, reader.columns)
    entries = np.zeros(len(rows), ENTRY)
    entries["kept"], entries["place"] = rows.kept, rows.places
    segment.write(path, {"key": key, "degenerate": rows.degenerate}, entries, _blobs(rows, reader, entries))


def _blobs(teaching_rows: Teaching, reader: Reader, entries: Entries) -> Iterator[tuple[list[int], bytes]]:
    number = 0
    for batch in teaching_rows.table.to_batches(_BATCH):
        kept = teaching_rows.kept[number : number + batch.num_rows].tolist()
        rows = [_row(values, keep) for values, keep in zip(batch.to_pylist(), kept, strict=True)]
        prompts = reader.prompts(rows)
        asked = reader.asked(rows) if reader.asked else [row.prompt_token_ids for row in rows]
        values = reader.values(rows) if reader.values else [_NONE] * len(rows)
        for row, prompt, teacher_prompt, floats in zip(rows, prompts, asked, values, strict=True):
            example = Example(row.id, list(prompt), list(row.token_ids), None, row.kept, tuple(teacher_prompt))
            yield [number], pack(_shaped(entries[number], row, example, reader), floats)
            number += 1


_NONE = np.zeros(0, np.float32)
_FIELDS = (PROMPT, TEACHER_PROMPT, ANSWER, TOKENS, PROMPT_TOKENS, LABEL_PROBS)


def _row(values: dict[str, object], kept: bool) -> Row:
    given = {name: values[name] for name in _FIELDS if values.get(name) is not None}
    return Row(id=str(values[ID]), kept=kept, **given)  # type: ignore[arg-type]


def _shaped(entry: np.void, row: Row, example: Example, reader: Reader) -> tuple[Example, ...]:
    """Apply the reader's shape to a row. Returns the changed example, followed by the examples in the `also` of that
    example. Fills the fields of `entry`.
    """
    completion = len(example.completion)
    entry["prompt"], entry["completion"], entry["asked"] = len(example.prompt), completion, len(example.teacher_prompt)
    shaped: Example | None = example
    if completion:
        example = replace(example, target=_positions(completion))
        shaped = reader.shape(row, example) if reader.shape else example
    elif reader.completes:
        entry["state"] = NO_TOKENS
    if shaped is None:
        entry["state"], shaped = NOTHING_TO_LEARN, replace(example, prompt=[], completion=[], target=None)
    pieces = (shaped, *shaped.also)
    entry["learned"] = sum(len(piece.completion) for piece in pieces)
    entry["longest"] = max(max(len(piece.prompt), len(piece.completion)) for piece in pieces)
    return pieces


def _positions(count: int) -> logits.Sampled:
    """A placeholder for a row's distribution while `shape` runs. It has the row's length, but no probabilities."""
    empty = np.zeros(0, np.int64)
    return logits.Sampled(empty, empty, np.zeros(count, np.int64))


def pack(pieces: Sequence[Example], values: Floats) -> bytes:
    """Encode a row as bytes: int32 counts, then the ids of the pieces, then `values`, then text.

    The first of `pieces` is the row itself, and the others are the examples in its `also`. Raises ValueError when
    pieces differ in id or `teacher_prompt`, when a piece has `parts`, or when a piece after the first has an `also`.
    """
    first = pieces[0]
    if any((piece.id, tuple(piece.teacher_prompt)) != (first.id, tuple(first.teacher_prompt)) for piece in pieces):
        raise ValueError("a shape may not change a row's id or its teacher's prompt")
    if any(piece.parts for piece in pieces) or any(piece.also for piece in pieces[1:]):
        raise ValueError("a shape may fill `also` of the row only, and may not set `parts`")
    name, tasks = first.id.encode(), [piece.task.encode() for piece in pieces]
    head = [len(pieces), len(first.teacher_prompt), len(values), len(name)]
    for piece, task in zip(pieces, tasks, strict=True):
        target = -1 if piece.target is None else len(piece.target)
        head += [len(piece.prompt), len(piece.completion), target, int(piece.kept), len(task)]
    ids = [head, first.teacher_prompt, *(part for piece in pieces for part in (piece.prompt, piece.completion))]
    numbers = np.concatenate([np.asarray(part, "<i4") for part in ids])
    return b"".join([numbers.tobytes(), np.asarray(values, "<f4").tobytes(), name, *tasks])


def unpack(blob: bytes, target: logits.Target | None = None) -> Stored:
    """Decode a row; the inverse of `pack`. `target` is the row's distribution. Each example in the row gets the first n
    positions of `target`, where n is the length that `pack` stored for the example.
    """
    numbers = np.frombuffer(blob, "<i4", len(blob) // 4)
    count, asked, width, name = numbers[:4].tolist()
    begin = 4 + 5 * count
    heads = numbers[4:begin].reshape(count, 5).tolist()
    place = begin + asked + sum(prompt + completion for prompt, completion, *_ in heads)
    ids = numbers[begin:place].tolist()
    text = blob[4 * (place + width) :]
    identifier, text, teacher_prompt = text[:name].decode(), text[name:], tuple(ids[:asked])
    pieces: list[Example] = []
    at = asked
    for prompt, completion, positions, kept, size in heads:
        middle, end = at + prompt, at + prompt + completion
        own = None if target is None or positions < 0 else target
        if own is not None and positions < len(own):
            own = cut(own, positions)
        task = text[:size].decode()
        pieces.append(
            Example(
                identifier, ids[at:middle], ids[middle:end], own, bool(kept), teacher_prompt=teacher_prompt, task=task
            )
        )
        at, text = end, text[size:]
    first = replace(pieces[0], also=tuple(pieces[1:])) if count > 1 else pieces[0]
    return Stored(first, np.frombuffer(blob, "<f4", width, 4 * place))
