"""Finds the near duplicates among the rows of many files of signatures, with little memory.

Rows that resemble no other row are left out. The other rows form components. Two rows are in the same component if they
have a band in common and agree in enough slots, or if they are in the same unit (see `Order`). A row and its twin are
always in the same component. Components are therefore searched one after the other, and the memory holds the shingles
of some components only:

1. `_components` reads the keys of some bands at a time: of all bands if there are few rows, and of one if there are
   very many. This step needs about 140 bytes of memory for each row, and at least 64 MB.
2. `_spread` copies the signatures of a task's rows to a second file, divided by the chunk of their component.
3. `_search` reads one chunk from all of these files.

A component is never divided: if it has more than `_CHUNK` shingles, its chunk takes as much memory as it needs. There
are at most about `_CHUNKS` chunks, so chunks are larger if the rows with a similar row have more than 4,294,967,296
shingles together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen.curation.lists import Rows, numbers
from synthgen.curation.near import components, kernels
from synthgen.curation.near.limits import check_count
from synthgen.curation.near.shingles import GOLDEN
from synthgen.curation.near.sketch import SLOTS, bands, least_agreement
from synthgen.curation.order import Order
from synthgen.executor import Executor, Services
from synthgen.executor.exchange import divided, read_batch, read_table, write_table
from synthgen.tables.curation_settings import NearDuplicates

_CHUNK = 1 << 22  # about this many shingles, of 8 bytes each, are searched together
_CHUNKS = 1024  # at most about this many chunks; with more rows, chunks are larger, because each opens all files
_KEYS = 1 << 23  # at most this many keys of bands, of 8 bytes each, are read together, but at least one band
_MARKS = 64  # number of 8-bit slots that are compared before two rows are put into one component


def near_rows(paths: Sequence[Path], lost: Rows, order: Order, section: NearDuplicates, executor: Executor) -> pa.Table:
    """The table that `decide` returns. `paths` are the files with the signatures of each task."""
    counts = [read_table(path).num_rows for path in paths]
    check_count(sum(counts))
    rows, sizes = (_column(paths, name, sum(counts)).astype(np.int64, copy=False) for name in ("row", "size"))
    alive = (sizes > 0) & ~np.isin(rows, lost)
    if section.exact:
        chunks = np.where(alive, 0, -1)
    else:
        chunks = _chunks(_components(paths, rows, alive, order, section), alive, sizes)
    count = int(chunks.max(initial=-1)) + 1
    units = order.units_of(rows)
    in_train = ~np.isin(units, units[_column(paths, "held_out", len(rows)).astype(bool)])
    spreading = []
    for path, end, size in zip(paths, np.cumsum(counts).tolist(), counts, strict=True):
        part = slice(end - size, end)
        spreading.append(_Spreading(path, chunks[part], units[part], in_train[part], count))
    files = tuple(executor.map(_spread, spreading))
    searching = [_Searching(files, number, section) for number in range(count)]
    return pa.concat_tables([_RESULT.empty_table(), *executor.map(_search, searching)])


_RESULT = pa.schema([("row", pa.int64()), ("twin", pa.int64()), ("score", pa.float64()), ("threshold", pa.float64())])


def _column(paths: Sequence[Path], name: str, count: int) -> npt.NDArray[np.generic]:
    """A column of numbers from all files, which together have `count` rows."""
    return _filled(paths, count, lambda table: numbers(table[name]))


def _filled(
    paths: Sequence[Path], count: int, read: Callable[[pa.Table], npt.NDArray[np.generic]]
) -> npt.NDArray[np.generic]:
    """The results of `read` for the tables of all files, in one array of `count` rows. Each file is closed before the
    next one is read, because the pages of open files count as memory.
    """
    values, start = np.empty(0, np.int64), 0
    for path in paths:
        part = read(read_table(path))
        if not start:
            values = np.empty((count, *part.shape[1:]), part.dtype)
        values[start : start + len(part)] = part
        start += len(part)
    return values


def band_keys(paths: Sequence[Path], names: Sequence[str], count: int) -> Iterator[npt.NDArray[np.uint64]]:
    """Yield the keys of each band from all files, which together have `count` rows. `names` are the bands' columns.
    Several bands are read together, so that the files are opened less often.
    """
    together = max(1, _KEYS // max(1, count))
    for begin in range(0, len(names), together):
        some = names[begin : begin + together]
        keys, start = np.empty((len(some), count), np.uint64), 0
        for path in paths:
            table = read_table(path)
            for band, name in enumerate(some):
                keys[band, start : start + len(table)] = numbers(table[name])
            start += len(table)
        yield from keys


def _slots(column: pa.ChunkedArray | pa.Array, count: int) -> npt.NDArray[np.uint8]:
    """The first `count` slots of each row: (rows, count)."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    slots = np.frombuffer(array.buffers()[1] or b"", np.uint8)
    slots = slots[array.offset * SLOTS : (array.offset + len(array)) * SLOTS].reshape(-1, SLOTS)
    return slots[:, :count]


def _components(
    paths: Sequence[Path], rows: Rows, alive: npt.NDArray[np.bool_], order: Order, section: NearDuplicates
) -> npt.NDArray[np.int32]:
    """The component of each row: the index of the component's first row."""
    parents = np.arange(len(rows), dtype=np.int32)
    if len(order.rows):
        units = order.units_of(rows).astype(np.uint64) * np.uint64(GOLDEN)
        components.connect(units, alive, np.empty((len(rows), 0), np.uint8), 0, parents)
    marks = _filled(paths, len(rows), lambda table: _slots(table["slots"], _MARKS))
    least = least_agreement(section.threshold, _MARKS)
    names = [f"band-{band:02d}" for band in range(bands(section.threshold)[0])]
    for keys in band_keys(paths, names, len(rows)):
        components.connect(keys, alive, marks, least, parents)
    components.roots(parents)
    return parents


def _chunks(roots: npt.NDArray[np.int32], alive: npt.NDArray[np.bool_], sizes: Rows) -> Rows:
    """The chunk of each row. The chunk is -1 if the row is alone in its component, or if it is not alive: it has no
    text to compare, or it was dropped before.
    """
    shared = alive & (np.bincount(roots[alive], minlength=len(roots)) > 1)[roots]
    weights = np.bincount(roots[shared], sizes[shared], minlength=len(roots)).astype(np.int64)
    chunk = np.cumsum(weights) // max(_CHUNK, int(weights.sum()) // _CHUNKS)
    _, chunk = np.unique(chunk[roots[shared]], return_inverse=True)
    chunks = np.full(len(roots), -1)
    chunks[shared] = chunk
    return chunks


@dataclass(frozen=True)
class _Spreading:
    """The input of `_spread`: a file of signatures, and for each of its rows the chunk (-1: none), the unit, and
    whether no row of the unit is held out. `count` is the number of chunks.
    """

    path: Path
    chunks: Rows
    units: Rows
    in_train: npt.NDArray[np.bool_]
    count: int


def _spread(work: _Spreading, services: Services) -> Path:
    table = read_table(work.path).append_column("unit", pa.array(work.units, pa.int64()))
    table = table.append_column("in_train", pa.array(work.in_train))
    path = work.path.with_name(f"{work.path.stem}-spread{work.path.suffix}")
    write_table(path, divided(table, work.chunks, work.count) or table.slice(0, 0))
    return path


@dataclass(frozen=True)
class _Searching:
    """The input of `_search`: the files that `_spread` wrote, and the number of the chunk."""

    files: tuple[Path, ...]
    number: int
    section: NearDuplicates


def _search(work: _Searching, services: Services) -> pa.Table:
    """The rows of a chunk that have a twin."""
    section = work.section
    names = [] if section.exact else [f"band-{band:02d}" for band in range(bands(section.threshold)[0])]
    chunk = _Chunk.joined([_Chunk.read(path, work.number, names) for path in work.files])
    turn = np.lexsort((chunk.rows, chunk.units, chunk.in_train))
    starts = np.cumsum(chunk.sizes) - chunk.sizes
    sets = (chunk.shingles, starts[turn], chunk.sizes[turn])
    rows, units = chunk.rows[turn], chunk.units[turn]
    twin, score = np.full(len(rows), -1), np.full(len(rows), -1.0)
    if section.exact:
        kernels.exact_twins(sets, units, section.threshold, (twin, score))
    else:
        least = least_agreement(section.threshold)
        keys = np.ascontiguousarray(chunk.keys[:, turn])
        kernels.twins(sets, (chunk.slots[turn], keys), units, section.threshold, least, (twin, score))
    near = np.flatnonzero(twin >= 0)
    threshold = np.full(len(near), section.threshold)
    columns = [rows[near], rows[twin[near]], score[near], threshold]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=_RESULT)


@dataclass(frozen=True)
class _Chunk:
    """The signatures of some rows. `keys` has a row for each band."""

    rows: Rows
    units: Rows
    sizes: Rows
    in_train: npt.NDArray[np.bool_]
    keys: npt.NDArray[np.uint64]
    slots: npt.NDArray[np.uint8]
    shingles: npt.NDArray[np.uint64]

    @classmethod
    def read(cls, path: Path, number: int, names: Sequence[str]) -> _Chunk:
        """Copy a record batch of a file. `names` are the columns with keys."""
        batch = read_batch(path, number)
        rows, units, sizes = (numbers(batch[name]).astype(np.int64) for name in ("row", "unit", "size"))
        keys = np.array([numbers(batch[name]) for name in names], np.uint64).reshape(len(names), len(rows))
        slots = _slots(batch["slots"], SLOTS).copy()
        in_train = numbers(batch["in_train"]).astype(bool)
        shingles = numbers(batch["shingles"].flatten()).astype(np.uint64)
        return cls(rows=rows, units=units, sizes=sizes, in_train=in_train, keys=keys, slots=slots, shingles=shingles)

    @classmethod
    def joined(cls, parts: Sequence[_Chunk]) -> _Chunk:
        """Put the rows of several chunks into one."""
        each = {field.name: [getattr(part, field.name) for part in parts] for field in fields(cls)}
        keys = np.concatenate(each.pop("keys"), axis=1)
        return cls(keys=keys, **{name: np.concatenate(columns) for name, columns in each.items()})
