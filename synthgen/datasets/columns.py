"""Determines which columns of a data set fill columns of a record, and the Arrow types of the user's own columns.

All rows are read once before any row is written, because every shard of a corpus must have the same columns. A column
whose name is in TAKEN fills the record's column of the same name if all its values fit. The data set's format reads
some columns, such as prompt and completion. All other columns are the user's own columns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from synthgen.datasets.messages import tool_list
from synthgen.records import SPLITS
from synthgen.values import is_blank, is_null

_CHUNK = 1024  # number of rows whose column types are inferred together
_DEEPEST, _WIDEST = 8, 256  # limits of a type: the depth of nested lists and objects, and the number of all fields
_EXACT = 1 << 53  # a 64-bit float holds every smaller whole number exactly


def _scalar(value: object) -> bool:
    if isinstance(value, float):
        return not math.isinf(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _references(value: object) -> bool:
    return _scalar(value) or (isinstance(value, list) and all(one is None or _scalar(one) for one in value))


def _tools(value: object) -> bool:
    try:
        tool_list(value)
    except ValueError:
        return False
    return True


TAKEN: dict[str, Callable[[object], bool]] = {
    "id": lambda value: _scalar(value) and not is_blank(value),
    "seed_id": _scalar,
    "split": lambda value: value in SPLITS,
    "group_id": _scalar,
    "pair_role": lambda value: isinstance(value, str),
    "tools": _tools,
    "rationale": _scalar,
    "answer": _scalar,
    "reference": _references,
}
"""For each column that a record can take from a data set of any format: a test of whether a value fits. Null and NaN
fit in every column except `id`.
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
        """Note the columns and types of one row."""
        self.rows += 1
        self._chunk.append(row)
        if len(self._chunk) == _CHUNK:
            self._look()

    def taken(self) -> frozenset[str]:
        """The names of the data set's columns that fill the record's columns of the same names."""
        self._look()
        fits = {name for name in self._seen if self._fits.get(name)} - self._read
        return frozenset(fits - ({"id"} if self._ids < self.rows else set()))

    def names(self) -> list[str]:
        """The names of the columns that the data set's format reads, in order of first appearance."""
        self._look()
        return [name for name in self._seen if name in self._read]

    def own(self) -> pa.Schema:
        """The user's own columns with their names in the data set, in order of first appearance."""
        self._look()
        names = [name for name in self._seen if name not in self._read and name not in self.taken()]
        return pa.schema([(name, _stored(self._seen[name])) for name in names])

    def _look(self) -> None:
        chunk, self._chunk = self._chunk, []
        for name in dict.fromkeys(name for row in chunk for name in row):
            values = [row.get(name) for row in chunk]
            self._seen[name] = _together(self._seen.get(name, pa.null()), _type_of(values))
            if self._fits.get(name):
                self._fits[name] = all(is_null(value) or TAKEN[name](value) for value in values)
            if name == "id":
                self._ids += sum(not is_blank(value) for value in values)


def _stored(kind: pa.DataType) -> pa.DataType:
    if kind == _LARGE:
        return pa.int64()
    return pa.string() if pa.types.is_null(kind) else kind


def _type_of(values: list[object]) -> pa.DataType:
    """The Arrow type of JSON values. The type is text when the values have no common type, or a type that Parquet
    cannot store.
    """
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, OverflowError, RecursionError, ValueError, TypeError):
        return pa.string()
    if pa.types.is_int64(kind) and any(isinstance(value, int) and abs(value) > _EXACT for value in values):
        return _LARGE
    return kind if 0 < _size(kind) <= _WIDEST else pa.string()


_LARGE = pa.dictionary(pa.int32(), pa.int64())
"""During the first reading, this type marks a column of whole numbers if a float cannot hold some of these numbers. No
JSON value has this type."""


def _size(kind: pa.DataType, depth: int = 0) -> int:
    """The number of fields in a type. The number is 0 when an object has no fields, and large when the type is too
    deep.
    """
    if depth > _DEEPEST:
        return _WIDEST + 1
    if pa.types.is_list(kind):
        return _size(kind.value_type, depth + 1)
    if not pa.types.is_struct(kind):
        return 1
    sizes = [_size(field.type, depth + 1) for field in kind]
    return sum(sizes) if all(sizes) else 0


def _together(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    """An Arrow type that can hold the values of both types. The type is text when pyarrow finds no common type, or when
    the common type has too many fields.
    """
    if _LARGE in (first, second):
        other = second if first == _LARGE else first
        return _LARGE if other == _LARGE or pa.types.is_int64(other) or pa.types.is_null(other) else pa.string()
    try:
        schemas = [pa.schema([("x", first)]), pa.schema([("x", second)])]
        kind = pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return pa.string()
    return kind if _size(kind) <= _WIDEST else pa.string()


def fitted(value: object, kind: pa.DataType) -> object:
    """Convert a value of one of the user's own columns to the column's type `kind`. In a text column, a value that is
    not text becomes JSON text.
    """
    if value is None or not pa.types.is_string(kind) or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
