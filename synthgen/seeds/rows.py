"""Reads the rows of seed files and data sets one at a time, together with each row's file and line."""

from __future__ import annotations

import csv
import datetime
import decimal
import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from synthgen.errors import RecipeError
from synthgen.recipe import SeedSource

SUFFIXES = (".jsonl", ".csv", ".parquet")
_SLICE = 1024  # number of rows of a Parquet file that are converted to Python objects together
_BOM = b"\xef\xbb\xbf"
_JSON_SPACE = " \t\n\r"

Row = dict[str, object]
"""The columns of one row, with JSON values."""


class Where(NamedTuple):
    """The place of a row: its file, and the number of its line or row there. `str` returns text such as "q.csv, line
    3".
    """

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


def read_rows(source: SeedSource) -> Iterator[tuple[Where, Row]]:
    """Yield every row of a source with its place, one at a time. A row that cannot be read raises RecipeError, which
    names the file and the line.
    """
    if source.dataset:
        yield from _dataset(source)
        return
    for file in _files(Path(source.path or "")):
        yield from _READERS[file.suffix](file, source.on_bad_lines == "skip")


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise RecipeError(f"seed file '{path}' does not exist", "correct seeds.path in the recipe")
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
        if not files:
            raise RecipeError(f"no seeds in folder '{path}'", f"it must hold files of {', '.join(SUFFIXES)}")
        return files
    if path.suffix not in SUFFIXES:
        raise RecipeError(f"seed file '{path}' has an unknown format", f"use one of {', '.join(SUFFIXES)}")
    return [path]


def bad_line(where: Where, problem: str) -> RecipeError:
    """The error for a line that cannot be read."""
    return RecipeError(
        f"{where}: {problem}", "correct the line, or leave out such lines with `on_bad_lines: skip` under seeds"
    )


def _jsonl(path: Path, skip: bool) -> Iterator[tuple[Where, Row]]:
    file, decode = str(path), json.JSONDecoder().raw_decode
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = line.removeprefix(_BOM).decode().strip(_JSON_SPACE)
                row, end = decode(text)
                if end != len(text):
                    raise json.JSONDecodeError("Extra data", text, end)
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
                if b"\\u" in line and not _is_text(row):
                    raise ValueError("half of a surrogate pair is not text")
            except (ValueError, RecursionError) as error:
                if skip:
                    continue
                raise bad_line(Where(file, "line", number), str(error)) from None
            yield Where(file, "line", number), row


def _is_text(value: object) -> bool:
    """Whether every string in a JSON value can be encoded as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv(path: Path, skip: bool) -> Iterator[tuple[Where, Row]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        try:
            names = next(reader, [])
            for cells in reader:
                if not cells:
                    continue
                where = Where(str(path), "line", reader.line_num)
                if len(cells) != len(names):
                    if skip:
                        continue
                    raise bad_line(where, "more or fewer cells than the header has")
                yield where, dict(zip(names, cells, strict=True))
        except (csv.Error, UnicodeDecodeError) as error:  # after such an error, the rest of the file cannot be read
            raise RecipeError(f"{path}, after line {reader.line_num}: {error}", "correct the file") from None


def _parquet(path: Path, skip: bool) -> Iterator[tuple[Where, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_SLICE):
                for row in batch.to_pylist():
                    number += 1
                    yield Where(str(path), "row", number), _as_json(row)
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(f"{path}: not a readable Parquet file ({error})", "check the file") from None


_READERS: dict[str, Callable[[Path, bool], Iterator[tuple[Where, Row]]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _dataset(source: SeedSource) -> Iterator[tuple[Where, Row]]:
    import datasets

    datasets.disable_progress_bars()
    name = source.dataset or ""
    try:
        with _quiet():
            stream = datasets.load_dataset(
                name, source.config, split=source.dataset_split, revision=source.revision, streaming=True
            )
            for number, row in enumerate(stream, 1):
                yield Where(name, "row", number), _as_json(row)
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


def _as_json(row: Mapping[str, object]) -> Row:
    """Convert the row to JSON values. Times, decimals and UUIDs become text. Columns with other values, such as bytes
    or images, are left out.
    """
    kept: Row = {}
    for name, value in row.items():
        if value is None or type(value) in (str, int, float, bool):
            kept[name] = value
            continue
        try:
            kept[name] = json.loads(json.dumps(value, default=_as_text))
        except TypeError:
            continue
    return kept


def _as_text(value: object) -> str:
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal | uuid.UUID):
        return str(value)
    raise TypeError(f"no text: {type(value)}")
