"""Writes the files of an export: one JSONL or Parquet file for each split."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import durable
from synthgen.errors import CorpusError, one_line
from synthgen.exporting.rows import Columns, Row
from synthgen.records import SCHEMA, SPLITS
from synthgen.values import is_null

_GROUP = 1024  # number of rows in a row group
MESSAGES = ("prompt", "completion", "chosen", "rejected")
"""Columns of an export that hold messages in the form of records."""

_SUFFIXES = ("_chosen", "_rejected")  # endings of the names of columns that hold one side of a pair


class Files(ABC):
    """The files of an export in `folder`. `add` must be called for every row, and `close` at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @abstractmethod
    def add(self, split: str, row: Row) -> None:
        """Write one row."""

    @abstractmethod
    def close(self) -> None:
        """Finish all files."""


class JsonLines(Files):
    """One JSONL file for each split, or one file for all splits if `whole` is its path."""

    def __init__(self, folder: Path, whole: Path | None = None) -> None:
        super().__init__(folder)
        self._whole = whole
        self._open: dict[str, BinaryIO] = {}

    def add(self, split: str, row: Row) -> None:
        name = "" if self._whole else split
        if name not in self._open:
            self._open[name] = durable.new_file(self._whole or self._folder / f"{split}.jsonl")
        self._open[name].write(_line(row) + b"\n")

    def close(self) -> None:
        for file in self._open.values():
            file.close()


def _line(row: Row) -> bytes:
    """The row as JSON. JSON has no NaN, so a NaN inside a list or an object becomes null, which means missing too.
    Raises CorpusError for an infinite number, which JSON cannot hold either.
    """
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    except ValueError:
        try:
            text = json.dumps(_with_nulls(row), ensure_ascii=False, allow_nan=False)
        except ValueError:
            raise CorpusError(
                one_line(f"the row '{row.get('id')}' has an infinite number in column '{_infinite(row)}'"),
                "JSON cannot hold it; `--to hub` writes Parquet, which can; or replace the number",
            ) from None
    return text.encode()


def _infinite(row: Row) -> str:
    """The first column that JSON cannot hold, for the message of an error."""
    for name, value in row.items():
        try:
            json.dumps(_with_nulls(value), allow_nan=False)
        except ValueError:
            return name
    return ""


def _with_nulls(value: object) -> object:
    """A copy of a JSON value with null in place of each NaN."""
    if isinstance(value, dict):
        return {key: _with_nulls(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_nulls(part) for part in value]
    return None if is_null(value) else value


class Tables(Files):
    """One Parquet file for each split. `names` are the columns that at least one row has. `has_tools` says whether any
    row has tools or tool calls.
    """

    def __init__(self, folder: Path, columns: Columns, names: Iterable[str], has_tools: bool) -> None:
        super().__init__(folder)
        self._plain = pa.schema([(name, _kind(name, columns)) for name in names])
        self._schema = _with_json(self._plain) if has_tools else self._plain
        self._rows: dict[str, list[Row]] = {split: [] for split in SPLITS}
        self._open: dict[str, pq.ParquetWriter] = {}

    def add(self, split: str, row: Row) -> None:
        self._rows[split].append({name: _stored(name, value) for name, value in row.items()})
        if len(self._rows[split]) == _GROUP:
            self._flush(split)

    def _flush(self, split: str) -> None:
        if split not in self._open:
            path = self._folder / "data" / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(exist_ok=True)
            self._open[split] = pq.ParquetWriter(path, self._schema, compression="zstd", write_page_checksum=True)
        table = pa.Table.from_pylist(self._rows[split], schema=self._plain)
        self._open[split].write_table(table.cast(self._schema))
        self._rows[split].clear()

    def close(self) -> None:
        for split, rows in self._rows.items():
            if rows:
                self._flush(split)
        for file in self._open.values():
            file.close()


def _kind(name: str, columns: Columns) -> pa.DataType:
    """The Arrow type of a column. A column that exists only in exports holds text, messages, or true and false."""
    for column in (name, *(name.removesuffix(suffix) for suffix in _SUFFIXES)):
        if column in columns.kinds:
            return columns.kinds[column]
        if column in SCHEMA.names:
            return SCHEMA.field(column).type
    if name in ("chosen", "rejected"):
        return SCHEMA.field("completion").type
    return pa.bool_() if name == "label" else pa.string()


def _with_json(schema: pa.Schema) -> pa.Schema:
    """The schema in which tools and tool calls have the type JSON, so that `load_dataset` returns them as lists. For a
    reader that does not know the type JSON, tools and tool calls are JSON text. Versions of `datasets` without the type
    JSON cannot read files with this schema.
    """
    import datasets

    if not hasattr(datasets, "Json"):
        return schema
    features = datasets.Features.from_arrow_schema(schema)
    if "tools" in features:
        features["tools"] = datasets.Json()
    for name in MESSAGES:
        if name in features:
            features[name] = datasets.List({**features[name].feature, "tool_calls": datasets.Json()})
    return features.arrow_schema


def _stored(name: str, value: object) -> object:
    """The value of a column in a Parquet file. Tools and tool calls are JSON text, as they have no fixed type."""
    if name == "tools":
        return json.dumps(value, ensure_ascii=False)
    if name not in MESSAGES or not isinstance(value, list):
        return value
    return [
        {key: json.dumps(part, ensure_ascii=False) if key == "tool_calls" else part for key, part in message.items()}
        for message in value
    ]
