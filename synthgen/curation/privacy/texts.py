"""The texts of a row in which values are searched, in the order in which a reader meets them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, lengths
from synthgen.curation.privacy.find import hits_in
from synthgen.curation.privacy.likely import hint_bits, hint_names
from synthgen.tables.curation import EDITS
from synthgen.tables.curation_settings import Entity

MESSAGES = ("prompt", "completion", "teacher_prompt")
COLUMNS = EDITS["redact"].changes
"""The columns with texts. `tools` and the tool calls of messages are JSON."""
_FIELDS = {
    "reasoning_content": "the reasoning in ",
    "content": "",
    "tool_calls": "the tool calls in ",
    "name": "the name in ",
}

Row = dict[str, object]
"""The columns of one row as Python objects, by the names in `COLUMNS`."""
Hints = frozenset[str]


@dataclass(frozen=True)
class Place:
    """Where a text of a row is: its column, and for messages the index of the message and the name of its field."""

    column: str
    message: int = 0
    field: str = ""

    def title(self, row: Row) -> str:
        """The place in words, such as "message 2 of the prompt"."""
        column, messages = f"the {self.column.replace('_', ' ')}", row[self.column]
        whole = self.column == "completion" or (isinstance(messages, list) and len(messages) == 1)
        if not self.field or (self.field == "content" and whole):
            return column
        return f"{_FIELDS[self.field]}message {self.message + 1} of {column}"


def rows_with(batch: pa.RecordBatch, entities: Collection[Entity]) -> Iterator[tuple[int, Row, Hints]]:
    """Yield (the row's number in the batch, its columns, the hints of its texts) for each row that holds a value of one
    of the entities.

    All texts are searched in one call, because the preparation of each search takes a millisecond. Python objects are
    made only for likely texts and for the yielded rows.
    """
    texts, owners = all_texts(batch)
    bits = hint_bits(texts)
    likely = np.flatnonzero(bits)
    chosen: dict[int, int] = {}
    for text, row, hints in zip(texts.take(pa.array(likely)).to_pylist(), owners[likely], bits[likely], strict=True):
        if int(row) not in chosen and any(hit.entity in entities for hit in hits_in(text, hint_names(int(hints)))):
            chosen[int(row)] = 0
    for row, hints in zip(owners[likely], bits[likely], strict=True):
        if int(row) in chosen:
            chosen[int(row)] |= int(hints)
    numbers = sorted(chosen)
    rows = batch.select(COLUMNS).take(pa.array(numbers, pa.int64())).to_pylist() if numbers else []
    for number, values in zip(numbers, rows, strict=True):
        yield number, values, hint_names(chosen[number])


def all_texts(batch: pa.RecordBatch, columns: Sequence[str] = COLUMNS) -> tuple[pa.Array, Rows]:
    """All texts in these columns of a batch, and for each text the number of its row."""
    texts: list[pa.Array] = []
    owners: list[Rows] = []
    for name in columns:
        column, numbers = batch[name], np.arange(batch.num_rows)
        if pa.types.is_list(column.type):
            numbers, column = np.repeat(numbers, lengths(column)), column.flatten()
        for field in _FIELDS if name in MESSAGES else [None]:
            texts.append(column if field is None else pc.struct_field(column, field))
            owners.append(numbers)
    return pa.concat_arrays(texts), np.concatenate(owners)


def texts_of(row: Row) -> Iterator[tuple[Place, str, Callable[[str], None]]]:
    """Yield (place, text, function that replaces the text) for each text of a row."""
    for column in COLUMNS:
        value = row[column]
        if isinstance(value, str):
            yield Place(column), value, partial(row.__setitem__, column)
        items = value if isinstance(value, list) else []
        for number, item in enumerate(items):
            if isinstance(item, str):
                yield Place(column, number), item, partial(items.__setitem__, number)
            elif isinstance(item, dict):
                for field in _FIELDS:
                    if item[field] is not None:
                        yield Place(column, number, field), item[field], partial(item.__setitem__, field)


def completion_starts(row: Row) -> dict[Place, int]:
    """For each text that is a part of `completion.text`: the number of characters before it."""
    starts: dict[Place, int] = {}
    start, messages = 0, row["completion"]
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        starts[Place("completion", number, "content")] = start
        start += len(message["content"] or "") + 1
    return starts
