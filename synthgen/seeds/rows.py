"""Reads the rows of seed files and data sets one at a time, together with each row's file and line."""

from __future__ import annotations

import csv
import logging
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from synthgen.errors import RecipeError
from synthgen.jsonl import not_utf8, read_object
from synthgen.recipe import SeedSource
from synthgen.seeds.files import opened, row_files, split_name

_SLICE = 1024  # number of rows of a Parquet file that are converted to Python objects together
_LONGEST = 1 << 26  # maximum number of bytes in a line, and of characters in a cell of a CSV file
_BOM = b"\xef\xbb\xbf"
_SEPARATORS = ",;\t|"

csv.field_size_limit(max(_LONGEST, csv.field_size_limit()))

Row = dict[str, object]
"""The columns of one row, with JSON values."""


class Where(NamedTuple):
    """The place of a row: its file, and the number of its line or row there. A row of several lines has the number of
    its first line. `str` returns text such as "q.csv, line 3".
    """

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


Rows = Iterator[tuple[Where, Row]]


def read_rows(source: SeedSource) -> Rows:
    """Yield every row of a source with its place, one at a time. A row that cannot be read raises RecipeError, which
    names the file and the line.
    """
    if source.dataset:
        yield from _dataset(source)
        return
    for file in row_files(Path(source.path or "")):
        yield from rows_of_file(file, source.on_bad_lines == "skip")


def rows_of_file(path: Path, skip: bool, kind: str = "") -> Rows:
    """Yield every row of one file with its place. With `skip`, lines that cannot be read are left out. `kind` is one of
    SUFFIXES; without it, the file's name says how the file is read.
    """
    yield from _READERS[kind or split_name(path.name)[0]](path, skip)


def bad_line(where: Where, problem: str) -> RecipeError:
    """The error for a line that cannot be read."""
    return RecipeError(
        f"{where}: {problem}", "correct the line, or leave out such lines with `on_bad_lines: skip` under seeds"
    )


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file. A line that is too long, and a compressed file that is damaged, raise RecipeError."""
    number = 0
    with whole(path, lambda: f"line {number}"), opened(path) as file:
        for line in iter(partial(file.readline, _LONGEST), b""):
            number += 1
            if len(line) == _LONGEST:
                raise RecipeError(f"{path}, line {number}: longer than {_LONGEST:,} bytes", "divide the line")
            yield line


@contextmanager
def whole(path: Path, last: Callable[[], str]) -> Iterator[None]:
    """A context in which the file at `path` is read. A compressed file that is damaged raises RecipeError. `last` names
    the last place that was read.
    """
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise RecipeError(
            f"{path}, after {last()}: the compressed file is damaged ({error})", "make the file again"
        ) from None


def _jsonl(path: Path, skip: bool) -> Rows:
    file = str(path)
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = Where(file, "line", number)
        try:
            row = read_object(line)
        except ValueError as error:
            if skip:
                continue
            problem = str(error)
            if (number == 1 and line.strip().removeprefix(_BOM)[:1] == b"[") or line.strip() == b"{":
                problem = "this is JSON over several lines or in a list; JSONL has one object in each line"
            raise bad_line(where, problem) from None
        yield where, row


def _texts(path: Path) -> Iterator[str]:
    """Yield the lines of a CSV file as text. A carriage return without a line feed ends a line too. A line that is not
    UTF-8 raises RecipeError.
    """
    number = 0
    for chunk in _lines(path):
        alone = 0 <= chunk.find(b"\r") < len(chunk) - 2
        for line in chunk.splitlines(keepends=True) if alone else (chunk,):
            number += 1
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise RecipeError(f"{path}, line {number}: {not_utf8(line, error)}", "correct the file") from None
            yield text if number > 1 else text.removeprefix("\ufeff")


def _csv(path: Path, skip: bool, separator: str = ",") -> Rows:
    file, names = str(path), list[str]()
    reader = csv.reader(_texts(path), delimiter=separator, strict=True)
    start = 1
    try:
        for cells in reader:
            number, start = start, reader.line_num + 1
            if not cells:
                continue
            where = Where(file, "line", number)
            if not names:
                names = cells
                _check_header(where, names, separator)
            elif len(cells) == len(names):
                yield where, dict(zip(names, cells, strict=True))
            elif not skip:
                count = f"{len(cells)} instead of {len(names)}"
                raise bad_line(where, f"more or fewer cells than the header has ({count})")
    except csv.Error as error:  # after such an error, the rest of the file cannot be read
        problem = str(error)
        if "unexpected end of data" in problem or "field larger" in problem:
            problem = "a quotation mark opens a cell here or in a later line, and is never closed"
        elif "expected after" in problem:
            problem = "text after the quotation mark that closes a cell; write a quotation mark in a cell twice"
        raise RecipeError(f"{file}, line {start}: {problem}", "correct the file") from None


def _check_header(where: Where, names: list[str], separator: str) -> None:
    """Raise RecipeError when a name occurs twice in the header, or when a character other than `separator` divides the
    columns.
    """
    if any("\0" in name for name in names):
        raise RecipeError(f"{where}: the header has zero bytes, as in UTF-16 text", "save the file as UTF-8")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"{where}: the column '{twice}' occurs twice", "give each column a name of its own")
    other = next((s for s in _SEPARATORS if s != separator and len(names) == 1 and s in names[0]), None)
    if other:
        named = {"\t": "tabs", ";": "';'"}.get(separator, "commas")
        raise RecipeError(
            f"{where}: its columns are separated by {other!r}",
            f"save the file with {named} between the columns, or as JSONL",
        )


def _parquet(path: Path, skip: bool) -> Rows:
    import pyarrow.parquet as pq

    from synthgen.seeds.arrow import check_names, converter, json_rows

    file, number = str(path), 0
    try:
        opened_file = pq.ParquetFile(path, pre_buffer=False)  # with pre_buffer, the memory would hold the whole file
        check_names(opened_file.schema_arrow)
        convert = converter(opened_file.schema_arrow)
    except Exception as error:  # pyarrow raises errors of many kinds for damaged files
        raise unreadable(path, error) from None
    with opened_file:
        batches = opened_file.iter_batches(batch_size=_SLICE)
        while True:
            try:
                batch = next(batches, None)
            except Exception as error:
                raise unreadable(path, error) from None
            if batch is None:
                return
            for row in json_rows(batch, convert):
                number += 1
                where = Where(file, "row", number)
                if isinstance(row, dict):
                    yield where, row
                elif not skip:
                    raise bad_line(where, str(row))


def unreadable(path: Path, error: Exception, kind: str = "Parquet") -> Exception:
    """The error for a file that Arrow cannot read. `kind` is the name of the file's format."""
    if isinstance(error, OSError) and error.filename:
        return error
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return RecipeError(f"{path}: not a readable {kind} file ({first})", "check the file")


_READERS: dict[str, Callable[[Path, bool], Rows]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".tsv": partial(_csv, separator="\t"),
    ".parquet": _parquet,
}


def _dataset(source: SeedSource) -> Rows:
    import datasets

    from synthgen.seeds.arrow import as_json, converter

    datasets.disable_progress_bars()
    name = source.dataset or ""
    try:
        with _quiet():
            stream = datasets.load_dataset(
                name, source.config, split=source.dataset_split, revision=source.revision, streaming=True
            )
            convert = converter(stream.features.arrow_schema) if stream.features else {}
            for number, row in enumerate(stream, 1):
                yield Where(name, "row", number), as_json(row, convert)
    except Exception as error:  # the hub client, its HTTP library and every file format raise their own exceptions
        lines = str(error).splitlines() or [type(error).__name__]
        raise RecipeError(
            f"dataset '{name}' cannot be read: {lines[0]}",
            "check the id, the config, the split and the network; a local file works with seeds.path",
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """A context in which the hub client and its HTTP library log only errors, not warnings and retries. The caller
    reports a failure in one line.
    """
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub", "httpx", "urllib3", "fsspec")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
