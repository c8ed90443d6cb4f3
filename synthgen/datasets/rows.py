"""Reads the rows of a data set one at a time, with the place and the split of each row."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.datasets.files import data_files, kind_of
from synthgen.jsonl import read_object
from synthgen.recipe import SeedSource
from synthgen.seeds import Row, Rows, Where, read_rows
from synthgen.seeds.arrow import check_names, converter, json_rows
from synthgen.seeds.files import opened
from synthgen.seeds.rows import bad_line, rows_of_file, unreadable, whole

_SLICE = 1024  # number of rows of an Arrow file that are converted to Python objects together
_CHUNK = 1 << 20  # number of bytes of a JSON file that are read together
_AHEAD = 2  # a number may go on after these characters, as in 12e-3, although 12 is a number, too
_SPACE = " \t\n\r"


def rows(source: SeedSource) -> Iterator[tuple[Where, Row, str | None]]:
    """Yield each row of a data set with its place and the split that the name of its file means, or null.

    Raises RecipeError for a row, a file or a folder that cannot be read.
    """
    yield from islice(_rows(source), source.limit)


def _rows(source: SeedSource) -> Iterator[tuple[Where, Row, str | None]]:
    if source.dataset:
        for where, row in read_rows(source):
            yield where, row, None
        return
    skip = source.on_bad_lines == "skip"
    for file in data_files(Path(source.path or ""), source.config):
        for where, row in _READERS.get(kind_of(file.path), rows_of_file)(file.path, skip):
            yield where, row, file.split


def column_names(source: SeedSource) -> list[str]:
    """The names of all columns of the Parquet and Arrow files of a data set. Columns whose values are not JSON values,
    such as bytes and images, are among these names, but not in the rows.
    """
    names: dict[str, None] = {}
    for file in data_files(Path(source.path), source.config) if source.path else ():
        kind = kind_of(file.path)
        if kind in _SCHEMAS:
            try:
                names |= dict.fromkeys(_SCHEMAS[kind](file.path).names)
            except (pa.ArrowException, OSError) as error:
                raise unreadable(file.path, error) from None
    return list(names)


def is_typed(where: Where) -> bool:
    """Whether the row is from a file whose columns have types, such as Parquet. In a file whose columns have types, all
    objects of a column have the same keys. A key that an object did not have is null.
    """
    return where.unit == "row"


def _arrow(path: Path, skip: bool) -> Rows:
    """The rows of an Arrow file, in the stream format (which `datasets` writes) or the file format."""
    file, number = str(path), 0
    try:
        with pa.memory_map(str(path)) as data:
            reader = _reader(data)
            is_file = isinstance(reader, pa.ipc.RecordBatchFileReader)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            check_names(reader.schema)
            convert = converter(reader.schema)
            for batch in batches:
                batch.validate(full=True)
                for start in range(0, batch.num_rows, _SLICE):
                    for row in json_rows(batch.slice(start, _SLICE), convert):
                        number += 1
                        where = Where(file, "row", number)
                        if isinstance(row, dict):
                            yield where, row
                        elif not skip:
                            raise bad_line(where, str(row))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise unreadable(path, error, "Arrow") from None


def _reader(data: pa.NativeFile) -> pa.ipc.RecordBatchStreamReader | pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_stream(data)
    except pa.ArrowInvalid:
        return pa.ipc.open_file(data)


def _arrow_schema(path: Path) -> pa.Schema:
    with pa.memory_map(str(path)) as data:
        return _reader(data).schema


def _json(path: Path, skip: bool) -> Rows:
    """The rows of a JSON file that holds one list of objects. A file that begins with an object is read as JSONL."""
    text = _Text(path)
    with whole(path, lambda: f"item {text.items}"):
        if text.after_space() != "[":
            yield from rows_of_file(path, skip, ".jsonl")
            return
        text.place += 1
        mark = text.after_space()
        while mark != "]":
            where = Where(str(path), "item", text.items + 1)
            try:
                row = read_object(text.value().encode())
            except ValueError as error:
                if not (skip and text.is_value):
                    raise bad_line(where, str(error)) from None
            else:
                yield where, row
            mark = text.after_space()
            if mark not in (",", "]"):
                raise bad_line(where, "no comma or ']' after the item")
            text.place += mark == ","
        text.place += 1
        if text.after_space():
            raise bad_line(Where(str(path), "item", text.items), "more text after the end of the list")


class _Text:
    """The text of a JSON file. Only the part at `place` is in memory. `items` is the number of values that were read.
    `is_value` says whether the end of the last item was found.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = opened(path)
        self._text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._ended = False
        self.place = self.items = 0
        self.is_value = False

    def after_space(self) -> str:
        """Skip white space. Returns the next character, or '' at the end of the file."""
        while True:
            while self.place < len(self._text) and self._text[self.place] in _SPACE:
                self.place += 1
            if self.place < len(self._text) or self._ended:
                return self._text[self.place : self.place + 1]
            self._more(_CHUNK)

    def value(self) -> str:
        """The text of the JSON value that begins here. Raises ValueError when no value begins here."""
        self.after_space()
        self.is_value = False
        self.items += 1
        while True:
            try:
                _, end = _decode(self._text, self.place)
            except json.JSONDecodeError as error:
                if self._ended:
                    place = error.pos - self.place + 1
                    raise ValueError(f"{error.msg.removesuffix(' at')} at character {place:,} of the item") from None
            except RecursionError:
                raise ValueError("too many lists and objects inside each other") from None
            else:
                if end + _AHEAD < len(self._text) or self._ended:
                    value, self.place, self.is_value = self._text[self.place : end], end, True
                    return value
            self._more(max(_CHUNK, len(self._text) - self.place))

    def _more(self, count: int) -> None:
        data = self._file.read(count)
        self._ended = not data
        try:
            text = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise bad_line(Where(str(self._path), "item", self.items), f"no UTF-8 text ({error.reason})") from None
        self._text, self.place = self._text[self.place :] + text, 0
        if self._ended:
            self._file.close()


_decode = json.JSONDecoder().raw_decode
_READERS: dict[str, Callable[[Path, bool], Rows]] = {".json": _json, ".arrow": _arrow}
_SCHEMAS: dict[str, Callable[[Path], pa.Schema]] = {".parquet": pq.read_schema, ".arrow": _arrow_schema}
