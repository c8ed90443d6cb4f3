"""Converts rows of Arrow tables to rows with JSON values."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pyarrow as pa

from synthgen.sources import LICENSE_COLUMNS

Row = dict[str, object]
Convert = Callable[[object], object]
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)
_PLAIN = (str, int, float, bool)


def check_names(schema: pa.Schema) -> None:
    """Raise ValueError when two columns have the same name."""
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the column '{twice}' occurs twice")


def converter(schema: pa.Schema) -> dict[str, Convert]:
    """For each column with 16-bit or 32-bit floats, at any depth: a function that converts its values.

    Python has only 64-bit floats. The 32-bit number 0.1 becomes 0.1, which is the shortest decimal that reads as the
    same 32-bit number. A plain conversion would give 0.10000000149011612.
    """
    converts = ((field.name, _convert(field.type)) for field in schema)
    return {name: convert for name, convert in converts if convert}


def _convert(kind: pa.DataType) -> Convert | None:
    if pa.types.is_float32(kind) or pa.types.is_float16(kind):
        width = np.float32 if pa.types.is_float32(kind) else np.float16
        return lambda value: float(str(width(value))) if isinstance(value, float) else value
    if pa.types.is_struct(kind):
        parts = converter(pa.schema(list(kind)))
        return partial(_parts_converted, parts) if parts else None
    if any(is_list(kind) for is_list in _LISTS):
        inner = _convert(kind.value_type)
        return (lambda value: list(map(inner, value)) if isinstance(value, list) else value) if inner else None
    return _convert(kind.value_type) if pa.types.is_dictionary(kind) else None


def _parts_converted(converts: Mapping[str, Convert], value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {name: converts[name](part) if name in converts else part for name, part in value.items()}


def json_rows(batch: pa.RecordBatch, convert: Mapping[str, Convert]) -> Iterator[Row | ValueError]:
    """Yield the rows of a batch with JSON values, in their order. A row with a value that Python cannot hold, such as
    text that is not UTF-8 or a date after the year 9999, becomes a ValueError that names the column.
    """
    try:
        rows = batch.to_pylist()
    except Exception:  # Arrow raises errors of many kinds here; the loop below finds the row
        rows = [None] * batch.num_rows
    for number, row in enumerate(rows):
        try:
            yield as_json(row or _row(batch, number), convert)
        except ValueError as error:
            yield error


def _row(batch: pa.RecordBatch, number: int) -> Row:
    row: Row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[number].as_py()
        except Exception as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ValueError(f"the value of column '{name}' cannot be read ({first})") from None
    return row


def as_json(row: Mapping[str, object], convert: Mapping[str, Convert]) -> Row:
    """Convert the row to JSON values. Times, decimals and UUIDs become text. Columns with other values, such as bytes
    or images, are left out. Raises ValueError when such a column states the row's license, because a row whose license
    was lost would count as allowed.
    """
    kept: Row = {}
    for name, value in row.items():
        if convert and name in convert:
            value = convert[name](value)
        if value is None or type(value) in _PLAIN:
            kept[name] = value
            continue
        try:
            kept[name] = json.loads(json.dumps(value, default=_as_text))
        except TypeError:
            if name in LICENSE_COLUMNS:
                raise ValueError(f"the license in column '{name}' is not text but {type(value).__name__}") from None
            continue
        except RecursionError:
            raise ValueError(f"the value of column '{name}' has too many lists inside each other") from None
    return kept


def _as_text(value: object) -> str:
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | uuid.UUID):
        return str(value)
    raise TypeError(f"no text: {type(value)}")
