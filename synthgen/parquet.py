"""Reads the Parquet files of a corpus. If a path is not a file, or if its file is damaged, a CorpusError names the
path.

for batch in scan(path, ["id", "prompt"]):
    batch.num_rows
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.errors import CorpusError
from synthgen.files import check_regular
from synthgen.records import SCHEMA

REPAIR = "repeat the command that made the corpus and add --repair; only damaged shards are made again"


@contextmanager
def open_parquet(path: Path, again: str = REPAIR) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file. Raises CorpusError, with the hint `again`, when the file cannot be opened, or when reading
    it inside the `with` block fails.
    """
    check_regular(path, again)
    try:
        # With pre_buffer, the memory would hold all row groups that were read.
        with pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CorpusError(f"{path} is damaged: {reason}", again) from None


def scan(path: Path, columns: Sequence[str] | None = None, size: int = 1024) -> Iterator[pa.RecordBatch]:
    """Yield batches of at most `size` rows of one file, with these columns. Raises CorpusError for a damaged file.

    `columns` may also name a field inside a column, in Parquet's notation: `verdicts.list.element.check`.
    """
    with open_parquet(path) as file:
        _check_names(path, file, columns or ())
        yield from file.iter_batches(size, columns=None if columns is None else list(columns))


def read_batches(path: Path, columns: Sequence[str], rows: int = 2048) -> Iterator[pa.RecordBatch]:
    """Yield batches of at most `rows` rows of one shard, with the named columns in the given order. A shard without
    rows yields one empty batch. Raises CorpusError when the file is damaged or lacks a column.
    """
    with open_parquet(path) as file:
        _check_names(path, file, columns)
        count = 0
        for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
            count += batch.num_rows
            yield batch.select(list(columns))
        if not count:
            schema = pa.schema([file.schema_arrow.field(name) for name in columns])
            yield pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read the named columns of one shard as a table; each column is one chunk. Raises the errors of `read_batches`."""
    return pa.Table.from_batches(read_batches(path, columns, 1 << 20)).combine_chunks()


def read_shard(path: Path) -> pa.Table:
    """Read all columns of one shard. Raises CorpusError when the file is damaged or was written by another version of
    synthgen.
    """
    table = read(path)
    check_columns(table.schema, path)
    return table


def read(path: Path) -> pa.Table:
    """Read all columns of one file. Raises CorpusError when the file is damaged."""
    with open_parquet(path) as file:
        return file.read(use_threads=False)  # shards are small


def metadata(path: Path) -> tuple[pa.Schema, int]:
    """The columns of a file with their metadata, and the number of its rows. Reads only the end of the file."""
    with open_parquet(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def check_columns(schema: pa.Schema, path: Path) -> None:
    """Raise CorpusError unless the columns of a shard begin with the columns of `SCHEMA`. The user's own columns may
    follow.
    """
    ours = [schema.field(name) for name in schema.names[: len(SCHEMA)]]
    if pa.schema(ours).equals(SCHEMA):
        return
    if {"id", "seed_id", "prompt"} <= set(schema.names) and "edits" not in schema.names:
        raise CorpusError(
            f"{path} has the columns of an older version of synthgen",
            "make the corpus again with this version, or read it with the version that made it",
        )
    raise CorpusError(f"{path} is damaged: its columns are not the columns of a corpus", REPAIR)


def _check_names(path: Path, file: pq.ParquetFile, columns: Sequence[str]) -> None:
    """Raise CorpusError unless the file has these columns and fields inside columns."""
    inside = {file.schema.column(place).path for place in range(len(file.schema)) if any("." in c for c in columns)}
    missing = [name for name in columns if name not in file.schema_arrow.names and name not in inside]
    if missing:
        raise CorpusError(f"{path} has no column '{missing[0]}'", "make the corpus again, or name another corpus")
