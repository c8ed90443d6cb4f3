"""Makes the rows of an export from records, and checks that a reader gets the same conversations from each row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from synthgen.datasets import Turns
from synthgen.errors import CorpusError, one_line
from synthgen.files import parse_json
from synthgen.records import SCHEMA, Message, Record
from synthgen.tables.formats import DATASET_FORMATS, ROW_FORMATS, RowFormat
from synthgen.tables.reference import resolve
from synthgen.values import is_null

_KEPT = ("seed_id", "split", "group_id", "pair_role", "rationale", "answer", "reference")
"""Columns of a record that every format holds beside the format's own columns. A reader uses these columns if they
exist."""

_MADE = tuple(
    name for name in SCHEMA.names if name not in (*_KEPT, "id", "prompt", "completion", "tools", "teaches", "verdicts")
)
"""Columns of a record that say how a run made the row."""

_SIDES = ("chosen", "rejected")
Row = dict[str, object]


@dataclass(frozen=True)
class Columns:
    """The columns of an export. `entry` is the format. `own` maps the names of the user's own columns in the corpus to
    their names in the export. `kinds` are the types of these columns by their names in the export. `carried` are the
    columns of a record that are written beside the columns of the format. For a row of a run, these columns include its
    sources or, in a format that keeps everything, all columns that say how the row was made.
    """

    to: str
    entry: RowFormat
    own: Mapping[str, str]
    kinds: Mapping[str, pa.DataType]
    carried: tuple[str, ...]


def columns(to: str, first: Record, own: Mapping[str, str], types: pa.Schema, is_run: bool) -> Columns:
    """The columns of an export to the format `to`. `first` is the first record. `own` maps the names of the user's own
    columns in the corpus to their original names, and `types` has the types of the columns in the corpus.

    One of the user's own columns gets the prefix `source_` if its name has another meaning in the format or for a
    reader of the format.
    """
    entry = ROW_FORMATS[to]
    made = is_run and entry.like is not None
    if entry.like is not None:
        entry = ROW_FORMATS[resolve(entry.like)(first)]
    carried = (*_KEPT, *(_MADE if made else ("sources",) if is_run else ()))
    taken = {"id", *carried, *DATASET_FORMATS[entry.reads].columns}
    names: dict[str, str] = {}
    for column, name in own.items():
        while name in taken:
            name = f"source_{name}"
        taken.add(name)
        names[column] = name
    kinds = {name: types.field(column).type for column, name in names.items()}
    return Columns(to, entry, names, kinds, carried)


def groups(records: Iterable[tuple[str, Record]], entry: RowFormat) -> Iterator[tuple[str, list[Record]]]:
    """Yield a pair (place, records) for each row. If the format has pairs, the records of a row are the chosen and the
    rejected side. Raises CorpusError for a row that is not in a pair.
    """
    open_groups: dict[str, tuple[str, list[Record]]] = {}
    for where, record in records:
        record = replace(record, prompt=_plain(record.prompt), completion=_plain(record.completion))
        if not entry.paired:
            yield where, [record]
            continue
        if record.group_id is None or record.pair_role not in _SIDES:
            raise CorpusError(f"{where}: the row is not in a pair", "leave out such rows, or export to another format")
        _, sides = open_groups.setdefault(record.group_id, (where, []))
        sides.append(record)
        if len(sides) == len(_SIDES):
            sides.sort(key=lambda side: str(side.pair_role))
            if [side.pair_role for side in sides] != list(_SIDES):
                raise CorpusError(
                    f"{where}: the pair '{record.group_id}' has two sides that are {record.pair_role}",
                    "a pair has one chosen and one rejected row",
                )
            yield open_groups.pop(record.group_id)
    for where, sides in open_groups.values():
        raise CorpusError(
            f"{where}: the pair '{sides[0].group_id}' has no other side", "a pair has one chosen and one rejected row"
        )


def _plain(messages: list[Message]) -> list[Message]:
    """The messages without fields that are null, as in the files of a corpus."""
    return [{key: value for key, value in one.items() if value is not None} for one in messages]  # type: ignore[misc]


def row_of(where: str, records: Sequence[Record], names: Columns, checked: bool = False) -> Row:
    """The row of an export. Raises CorpusError, which names the row, when the format cannot hold the row without loss.
    If `checked` is true, an earlier call has checked this row, so the check is left out.
    """
    try:
        own = _write(records, names.entry)
    except ValueError as error:
        raise _cannot_hold(where, records, names, str(error)) from None
    row: Row = {"id": _id(records), **own}
    if len(records) > 1 and any(record.id != f"{row['id']}-{record.pair_role}" for record in records):
        row |= {f"id_{record.pair_role}": record.id for record in records}
    for name in names.carried:
        row |= _column(name, [getattr(record, name) for record in records], names.entry)
    for column, name in names.own.items():
        row |= _column(name, [record.own.get(column) for record in records], names.entry) or {name: None}
    if row.get("seed_id") == row["id"]:
        del row["seed_id"]
    if names.entry.paired and row.get("group_id") == row["id"]:
        del row["group_id"]
    if not checked:
        try:
            _check(row, records, names.entry)
        except ValueError as error:
            raise _cannot_hold(where, records, names, str(error)) from None
    return row


def _write(records: Sequence[Record], entry: RowFormat) -> Row:
    if not entry.rejected and records[0].pair_role == "rejected":
        raise ValueError("the row is the rejected side of a pair")
    if entry.write is None:
        raise ValueError("the format has no rows of its own")
    row: Row = resolve(entry.write)(records)
    return row


def _id(records: Sequence[Record]) -> str:
    """The id of a row. If a pair was one row of a data set, the result is the id of that row, and otherwise the id of
    the pair.
    """
    if len(records) == 1:
        return records[0].id
    names = {record.id.removesuffix(f"-{record.pair_role}") for record in records}
    return names.pop() if len(names) == 1 else str(records[0].group_id)


def _column(name: str, values: Sequence[object], entry: RowFormat) -> Row:
    """A column of a row. If the two sides of a pair have different values, there is a column for each side."""
    if name == "pair_role" and entry.rejected:
        return {}
    if len(values) == 2 and values[0] != values[1]:
        sides = {f"{name}_{side}": value for side, value in zip(_SIDES, values, strict=True)}
        return {key: value for key, value in sides.items() if not is_null(value)}
    return {} if is_null(values[0]) else {name: values[0]}


def _check(row: Row, records: Sequence[Record], entry: RowFormat) -> None:
    """Raise ValueError unless a reader of the format finds the conversations of `records` in the row."""
    found = next((name for name, one in DATASET_FORMATS.items() if resolve(one.recognize)(row)), "")
    if found != entry.reads:
        own = sorted(set(row) & set(DATASET_FORMATS[found].columns)) if found else sorted(row)
        raise ValueError(f"with its columns {', '.join(own)}, the row would be read as {found or 'no known format'}")
    turns: list[Turns] = resolve(DATASET_FORMATS[entry.reads].read)(row)
    for turn, record in zip(turns, records, strict=True):
        for name, before, after in (
            ("prompt", _parsed(record.prompt), _parsed(turn.prompt)),
            ("completion", _parsed(record.completion), _parsed(turn.completion)),
            ("column `teaches`", record.teaches, turn.teaches),
            ("column `tools`", *(parse_json(one.tools) if one.tools else None for one in (record, turn))),
        ):
            if before != after:
                raise ValueError(f"the {name} would change")


def _parsed(messages: Sequence[Message]) -> list[Row]:
    """The messages with tool calls as lists, because JSON texts of the same calls may differ in their spaces."""
    return [
        {key: parse_json(str(value)) if key == "tool_calls" else value for key, value in one.items()}
        for one in messages
    ]


def _cannot_hold(where: str, records: Sequence[Record], names: Columns, why: str) -> CorpusError:
    """The error for a row that the format cannot hold. The hint names formats that can hold the row."""
    others = []
    for name, entry in ROW_FORMATS.items():
        if entry.write is None or entry.paired != names.entry.paired or entry is names.entry:
            continue
        try:
            _check(_write(records, entry), records, entry)
        except ValueError:
            continue
        others.append(name)
    ids = " and ".join(f"'{record.id}'" for record in records)
    able = f"`--to {others[0]}` can hold it" if others else "leave out the row"
    return CorpusError(one_line(f"{where}: {names.to} cannot hold the row {ids} without loss: {why}"), able)
