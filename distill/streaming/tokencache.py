"""Tokenizes the rows of a curated corpus once with the student's tokenizer, and stores the token ids in segments.

A stored row is an `Example` without its distribution. A stored row has the token ids of the prompt, of the completion,
and of the prompt that the teacher read. For students that learn probabilities or vectors, the stored row also has
float32 values. A segment (see `distill.streaming.segment`) holds the learnable rows of one shard, in training order
(see `distill.streaming.columns`). A segment is made again when the shard's bytes or the reader's identity change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data import Example, Shape
from distill.streaming import segment
from distill.streaming.columns import (
    ANSWER,
    COMPLETION,
    FINISH_REASON,
    ID,
    LABEL_PROBS,
    PROMPT,
    PROMPT_TOKENS,
    RATIONALE,
    TEACHER,
    TEACHER_PROMPT,
    TEACHES,
    TOKENS,
    TOOLS,
    Teaching,
    shards,
    teaching,
)
from distill.streaming.segment import Entries
from synthgen import durable, logits
from synthgen.lm.sampling import with_end
from synthgen.records import Message

FORMAT = "rows-v4"
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
LEARNED, NO_TOKENS, NOTHING_TO_LEARN = range(3)

_BATCH = 512  # number of rows that are rendered together

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Row:
    """The columns of one record. A column that the reader did not request is empty."""

    id: str
    kept: bool
    prompt: Sequence[Message] = ()
    completion: Sequence[Message] = ()
    teacher_prompt: Sequence[Message] | None = None
    tools: str | None = None
    teaches: str = "last"
    teacher: str | None = None
    rationale: str | None = None
    answer: str | None = None
    finish_reason: str | None = None
    token_ids: Sequence[int] = ()
    prompt_token_ids: Sequence[int] = ()
    label_probs: Sequence[float] = ()


@dataclass(frozen=True)
class Turn:
    """One answer to learn, in the student's tokens: the ids of everything before it, and the ids of the answer."""

    prompt: list[int]
    completion: list[int]


@dataclass(frozen=True)
class Reader:
    """How one kind of student tokenizes rows.

    `identity` is a hash of everything that decides the result: tokenizer, template, shape. `columns` are the fields of
    `Row` that the functions read. Either `turns` or `prompts` must be given. `turns` returns the answers that each row
    teaches: first the answer in its completion, then the answers of earlier turns. `prompts` returns the ids of each
    row's prompt, for students that write nothing. `asked` returns the ids of the prompts that the teacher read, by
    default those in the column `prompt_token_ids`. `values` returns the float32 values to store with each row.

    `own` names the teachers whose tokens the student shares. Rows of other teachers are read without token ids, because
    their ids in the corpus belong to other tokenizers.

    `shape` changes a row, or returns None to leave it out. The function may keep the distribution, keep only its first
    positions, or drop it. The function must not read the probabilities in the distribution, because they are not loaded
    yet.
    """

    identity: str
    columns: tuple[str, ...]
    prompts: Callable[[Sequence[Row]], Sequence[Sequence[int]]] | None = None
    turns: Callable[[Sequence[Row]], Sequence[Sequence[Turn]]] | None = None
    asked: Callable[[Sequence[Row]], Sequence[Sequence[int]]] | None = None
    values: Callable[[Sequence[Row]], Sequence[Floats]] | None = None
    own: frozenset[str] = frozenset()
    shape: Shape | None = None

    @property
    def key(self) -> list[object]:
        """A JSON value that differs between readers with different results."""
        given = [function is not None for function in (self.asked, self.values, self.shape)]
        return [FORMAT, self.identity, list(self.columns), given]

    @property
    def completes(self) -> bool:
        """Whether the reader needs rows that have a completion."""
        return self.turns is not None

    def read(self, rows: Sequence[Row]) -> Sequence[Sequence[Turn]]:
        """The answers that each row teaches. For students that do not generate text, such as classifiers, the answers
        are empty.
        """
        if self.turns is not None:
            return self.turns(rows)
        assert self.prompts is not None
        return [[Turn(list(prompt), [])] for prompt in self.prompts(rows)]


@dataclass(frozen=True)
class Stored:
    """A row that was read from a segment, with the values that `Reader.values` returned for it."""

    example: Example
    values: Floats


def key_of(reader: Reader, hashes: Sequence[str]) -> str:
    """The key of a segment: a hash of the format, the reader, and the hashes of the shard's files."""
    return durable.digest([*reader.key, list(hashes)])


def first_turns(folder: Path, split: str, reader: Reader, most: int) -> Iterator[Turn]:
    """Yield one `Turn` for each of the first `most` learnable rows of a split: the turn of the row's completion.
    Nothing is stored.
    """
    for shard in shards(folder, split):
        for batch in teaching(folder, shard, reader.columns).table.to_batches(_BATCH):
            rows = [_row(values, True, reader) for values in batch.slice(0, most).to_pylist()]
            for first, *_ in reader.read(rows):
                yield first
            most -= len(rows)
            if most <= 0:
                return


def make(folder: Path, shard: str, reader: Reader, path: Path, key: str) -> None:
    """Write the segment of one shard of a curated corpus."""
    rows = teaching(folder, shard, reader.columns)
    entries = np.zeros(len(rows), ENTRY)
    entries["kept"], entries["place"] = rows.kept, rows.places
    header = {"key": key, "degenerate": rows.degenerate, "rejected_side": rows.rejected_side}
    segment.write(path, header, entries, _blobs(rows, reader, entries))


def _blobs(teaching_rows: Teaching, reader: Reader, entries: Entries) -> Iterator[tuple[list[int], bytes]]:
    number = 0
    for batch in teaching_rows.table.to_batches(_BATCH):
        kept = teaching_rows.kept[number : number + batch.num_rows].tolist()
        rows = [_row(values, keep, reader) for values, keep in zip(batch.to_pylist(), kept, strict=True)]
        turns = reader.read(rows)
        asked = reader.asked(rows) if reader.asked else [row.prompt_token_ids for row in rows]
        values = reader.values(rows) if reader.values else [_NONE] * len(rows)
        for row, (first, *earlier), teacher_prompt, floats in zip(rows, turns, asked, values, strict=True):
            example = Example(row.id, first.prompt, first.completion, None, row.kept, tuple(teacher_prompt))
            pieces = _shaped(entries[number], row, example, earlier, reader)
            yield [number], pack(pieces, floats)
            number += 1


_NONE = np.zeros(0, np.float32)
_FIELDS = (
    *(PROMPT, COMPLETION, TEACHER_PROMPT, TOOLS, TEACHES, TEACHER, RATIONALE, ANSWER, FINISH_REASON),
    *(TOKENS, PROMPT_TOKENS, LABEL_PROBS),
)


def _row(values: dict[str, object], kept: bool, reader: Reader) -> Row:
    given = {name: values[name] for name in _FIELDS if values.get(name) is not None}
    if reader.completes and values.get(TEACHER) not in reader.own:
        given = {name: value for name, value in given.items() if name not in (TOKENS, PROMPT_TOKENS)}
    return Row(id=str(values[ID]), kept=kept, **given)  # type: ignore[arg-type]


def _shaped(entry: np.void, row: Row, example: Example, earlier: Sequence[Turn], reader: Reader) -> tuple[Example, ...]:
    """Apply `reader.shape` to the example of a row, and fill the fields of `entry`.

    Returns the changed example, then the examples of the row's other tasks (`Example.also`), then the examples of the
    row's earlier turns.
    """
    completion = len(example.completion)
    entry["completion"], entry["asked"] = completion, len(example.teacher_prompt)
    entry["prompt"] = len(example.prompt)
    shaped: Example | None = example
    if completion:
        example = replace(example, target=_positions(len(row.token_ids)) if row.token_ids else None)
        shaped = reader.shape(row, example) if reader.shape else example
    elif reader.completes:
        entry["state"] = NO_TOKENS
    if shaped is None:
        entry["state"], shaped = NOTHING_TO_LEARN, replace(example, prompt=[], completion=[], target=None)
        earlier = ()
    turns = [replace(example, prompt=turn.prompt, completion=turn.completion, target=None) for turn in earlier]
    pieces = (shaped, *shaped.also, *turns)
    entry["learned"] = sum(len(piece.completion) for piece in pieces)
    entry["longest"] = max(max(len(piece.prompt), len(piece.completion)) for piece in pieces)
    return pieces


def _positions(count: int) -> logits.Sampled:
    """A placeholder for a row's distribution while `shape` runs. The placeholder has the row's length, but no
    probabilities.
    """
    empty = np.zeros(0, np.int64)
    return logits.Sampled(empty, empty, np.zeros(count, np.int64))


def pack(pieces: Sequence[Example], values: Floats) -> bytes:
    """Encode a row as bytes: int32 counts, then token ids, then `values`, then text.

    The first of `pieces` is the row itself, and the others are the examples in its `also`. Raises ValueError when
    pieces differ in id or `teacher_prompt`, when a piece has `parts`, or when a piece after the first has an `also`.
    """
    first = pieces[0]
    if any((piece.id, tuple(piece.teacher_prompt)) != (first.id, tuple(first.teacher_prompt)) for piece in pieces):
        raise ValueError("a shape may not change a row's id or its teacher's prompt")
    if any(piece.parts for piece in pieces) or any(piece.also for piece in pieces[1:]):
        raise ValueError("a shape may fill `also` only on the row itself, and may not set `parts`")
    name, tasks = first.id.encode(), [piece.task.encode() for piece in pieces]
    head = [len(pieces), len(first.teacher_prompt), len(values), len(name)]
    for piece, task in zip(pieces, tasks, strict=True):
        target = -1 if piece.target is None else len(piece.target)
        head += [len(piece.prompt), len(piece.completion), target, int(piece.kept), len(task)]
    ids = [head, first.teacher_prompt, *(part for piece in pieces for part in (piece.prompt, piece.completion))]
    numbers = np.concatenate([np.asarray(part, "<i4") for part in ids])
    return b"".join([numbers.tobytes(), np.asarray(values, "<f4").tobytes(), name, *tasks])


def unpack(blob: bytes, target: logits.Target | None = None) -> Stored:
    """Decode a row; the inverse of `pack`. `target` is the row's distribution. Each example that was packed with a
    distribution gets the first n positions of `target`, where n is the length of the distribution that was packed.
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
            own = logits.cut(own, positions)
        if own is not None and len(own) == completion - 1:
            own = with_end(own, int(ids[end - 1]))
        task = text[:size].decode()
        pieces.append(
            Example(
                identifier, ids[at:middle], ids[middle:end], own, bool(kept), teacher_prompt=teacher_prompt, task=task
            )
        )
        at, text = end, text[size:]
    first = replace(pieces[0], also=tuple(pieces[1:])) if count > 1 else pieces[0]
    return Stored(first, np.frombuffer(blob, "<f4", width, 4 * place))
