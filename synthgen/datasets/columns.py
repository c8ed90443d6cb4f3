"""The columns of a data set: which of them the record takes, and the Arrow types of the user's own columns.

One pass over the rows determines both, because every shard of a corpus must have the same columns. A column becomes the
record's column of the same name if all its values fit. Otherwise it is one of the user's own columns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from synthgen.records import SPLITS

_CHUNK = 1024  # number of rows whose types are inferred together


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
"""Maps each column that the record takes from any format to a test of whether a value fits. Null always fits, except
for `id`.
"""


class Survey:
    """Reads every row of a data set once and then knows its columns."""

    def __init__(self, read: Iterable[str]) -> None:
        self._read = set(read)
        self._seen: dict[str, pa.DataType] = {}
        self._fits = dict.fromkeys(TAKEN, True)
        self._chunk: list[Mapping[str, object]] = []
        self.rows = self._ids = 0

    def see(self, row: Mapping[str, object]) -> None:
        """Record the columns and types of one row."""
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
        """The columns that the record takes."""
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
    """The Arrow type of JSON values, or text when they have no common type."""
    try:
        return pa.array(values).type
    except (pa.ArrowException, OverflowError):
        return pa.string()


def _together(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """The type that holds the values of both types, or text."""
    try:
        schemas = [pa.schema([("x", first)]), pa.schema([("x", second)])]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return pa.string()


def fitted(value: object, kind: pa.DataType) -> object:
    """Convert a value of a user's own column to the column's type; values of a text column become JSON."""
    if value is None or not pa.types.is_string(kind) or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
