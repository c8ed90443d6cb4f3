"""Determines which columns of a data set fill columns of a record, and the Arrow types of the user's own columns.

All rows are read once before any row is written, because every shard of a corpus must have the same columns. A column
whose name is in TAKEN fills the record's column of the same name if all its values fit. The data set's format reads
some columns, such as prompt and completion. All other columns are the user's own columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from synthgen.records import SPLITS

_CHUNK = 1024  # number of rows whose column types are inferred together


def _scalar(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _references(value: object) -> bool:
    return _scalar(value) or (isinstance(value, list) and all(_scalar(one) for one in value))


TAKEN: dict[str, Callable[[object], bool]] = {
    "id": lambda value: _scalar(value) and value != "",
    "seed_id": _scalar,
    "split": lambda value: value in SPLITS,
    "group_id": _scalar,
    "pair_role": lambda value: isinstance(value, str),
    "tools": lambda value: isinstance(value, str | list),
    "rationale": _scalar,
    "answer": _scalar,
    "reference": _references,
}
"""For each column that a record can take from a data set of any format: a test of whether a value fits. Null fits in
every column except `id`.
"""


class Survey:
    """The names and types of a data set's columns. `see` must be called with every row before the other methods are
    called. `read` holds the names of the columns that the data set's format reads.
    """

    def __init__(self, read: Iterable[str]) -> None:
        self._read = set(read)
        self._seen: dict[str, pa.DataType] = {}
        self._fits = dict.fromkeys(TAKEN, True)
        self._chunk: list[Mapping[str, object]] = []
        self.rows = self._ids = 0

    def see(self, row: Mapping[str, object]) -> None:
        """Take the columns and types of one row into account."""
        self.rows += 1
        self._ids += row.get("id") is not None
        for name, fits in TAKEN.items():
            value = row.get(name)
            if value is not None and self._fits[name] and not fits(value):
                self._fits[name] = False
        self._chunk.append(row)
        if len(self._chunk) == _CHUNK:
            self._look()

    def taken(self) -> frozenset[str]:
        """The names of the data set's columns that fill the record's columns of the same names."""
        fits = {name for name in self._seen if self._fits.get(name)} - self._read
        return frozenset(fits - ({"id"} if self._ids < self.rows else set()))

    def own(self) -> pa.Schema:
        """The user's own columns with their names in the data set, in order of first appearance."""
        self._look()
        names = [name for name in self._seen if name not in self._read and name not in self.taken()]
        return pa.schema([(name, pa.string() if pa.types.is_null(t := self._seen[name]) else t) for name in names])

    def _look(self) -> None:
        chunk, self._chunk = self._chunk, []
        for name in dict.fromkeys(name for row in chunk for name in row):
            kind = _type_of([row.get(name) for row in chunk])
            self._seen[name] = _together(self._seen.get(name, pa.null()), kind)


def _type_of(values: list[object]) -> pa.DataType:
    """The Arrow type of JSON values. It is text when the values have no common type."""
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return pa.string()


def _together(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """An Arrow type that can hold the values of both types. It is text when pyarrow finds no such type."""
    try:
        schemas = [pa.schema([("x", first)]), pa.schema([("x", second)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return pa.string()


def fitted(value: object, kind: pa.DataType) -> object:
    """Convert a value of a user's own column to the column's type `kind`. In a text column, a value that is not text
    becomes JSON text.
    """
    if value is None or not pa.types.is_string(kind) or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
