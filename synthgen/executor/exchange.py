"""Reads and writes tables as Arrow files, and divides the rows of many tables into partitions by the values of a
column.

A table is written as one Arrow IPC file, completely or not at all. To divide tables into partitions, a copy of each
table is written in the same folder. Record batch p of the copy holds the table's rows that belong to partition p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen import durable
from synthgen.errors import CorpusError


@dataclass(frozen=True)
class Partition:
    """One partition of the rows of several tables. If there are several partitions, `tables` are the paths of the
    partitioned copies of the tables, and `number` is the index of this partition. If there is only one partition,
    `tables` are the paths of the tables themselves, and `number` is None.
    """

    tables: tuple[Path, ...]
    number: int | None

    def read(self) -> pa.Table:
        """Read the rows of the partition, in the order of the tables."""
        if self.number is None:
            return pa.concat_tables([read_table(path) for path in self.tables])
        return pa.Table.from_batches([read_batch(path, self.number) for path in self.tables])


def write_table(path: Path, batches: pa.Table | Sequence[pa.RecordBatch]) -> None:
    """Write a table, or a list of record batches, durably as one Arrow file. Each record batch of the list becomes one
    record batch of the file.
    """
    several = batches.to_batches() if isinstance(batches, pa.Table) else batches
    schema = batches.schema if isinstance(batches, pa.Table) else batches[0].schema
    with durable.new_version(path) as sink, pa.ipc.new_file(sink, schema) as file:
        for batch in several:
            file.write_batch(batch)


def read_table(path: Path) -> pa.Table:
    """Read a table that `write_table` wrote. The table's columns are memory-mapped, not copied. Raises CorpusError when
    the file cannot be read.
    """
    return _file(path).read_all()


def read_batch(path: Path, number: int) -> pa.RecordBatch:
    """Read one record batch of a table that `write_table` wrote. The batch's columns are memory-mapped. Raises
    CorpusError when the file cannot be read.
    """
    return _file(path).get_batch(number)


def _damaged(path: Path, error: Exception) -> CorpusError:
    return CorpusError(f"{path} is damaged: {error}", "repeat the command that made it and add --fresh")


def _file(path: Path) -> pa.ipc.RecordBatchFileReader:
    if not path.exists():
        raise CorpusError(
            f"{path} is missing",
            "repeat the command; on a cluster, every node must see this folder under the same path",
        )
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def scattered(path: Path, parts: int) -> Path:
    """The path of the partitioned copy of the table at `path`."""
    return path.with_name(f"{path.stem}-by-{parts}{path.suffix}")


def scatter(path: Path, key: str, parts: int) -> Path:
    """Write the partitioned copy of a table, which has one record batch for each of `parts` partitions. `key` is the
    column that determines a row's partition. Returns the path of the copy.
    """
    table = read_table(path).combine_chunks()
    place = (_numbers(table.column(key).combine_chunks()) % np.uint64(parts)).astype(np.int64)
    write_table(scattered(path, parts), divided(table, place, parts))
    return scattered(path, parts)


def divided(table: pa.Table, place: npt.NDArray[np.int64], parts: int) -> list[pa.RecordBatch]:
    """Divide the rows of a table into `parts` record batches. `place` holds the number of the batch of each row, or -1
    for a row that is left out. Rows keep their order.
    """
    order = np.argsort(place, kind="stable")[np.count_nonzero(place < 0) :]
    ends = np.cumsum(np.bincount(place[order], minlength=parts))
    rows = table.take(pa.array(order)).combine_chunks()
    start, batches = 0, []
    for end in ends.tolist():
        batches.append(_one_batch(rows.slice(start, end - start)))
        start = end
    return batches


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([c.combine_chunks() for c in table.columns], schema=table.schema)


def _numbers(keys: pa.Array) -> npt.NDArray[np.uint64]:
    """A number for each key; equal keys have equal numbers. The number of a uint64 key is the key itself. The number of
    a binary key consists of its first eight bytes.
    """
    if pa.types.is_uint64(keys.type):
        return np.frombuffer(keys.buffers()[1], np.uint64)[keys.offset : keys.offset + len(keys)]
    if not pa.types.is_fixed_size_binary(keys.type) or keys.type.byte_width < 8:
        raise TypeError(f"a key must be a uint64 number or a binary value of fixed size, not {keys.type}")
    width = keys.type.byte_width
    data = np.frombuffer(keys.buffers()[1], np.uint8)[keys.offset * width : (keys.offset + len(keys)) * width]
    return data.reshape(-1, width)[:, :8].copy().view(np.uint64)[:, 0]
