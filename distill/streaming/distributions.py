"""Copies the stored distributions of a curated corpus to segments, so that one row can be read in constant time.

The Parquet files of the logits are compressed by row group. Reading one row therefore costs as much as reading a whole
shard. A segment (see `distill.streaming.segment`) holds the same bytes, ordered by row. Each segment has the learnable
rows of one shard, in training order (see `distill.streaming.columns`). The alignment hash of every row is verified when
the row is copied. A segment is made again when the bytes of the shard or of the teacher's logits change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from distill.streaming import segment
from distill.streaming.columns import ID, TOKENS, Teaching, lists, teaching
from synthgen import corpus, durable, logits
from synthgen.errors import CorpusError, nearest
from synthgen.logits import LogitsMeta

FORMAT = "distributions-v1"
ENTRY = segment.entry_type()

_BATCH = 256  # number of rows whose distributions are in memory together
_ALIGN = "align"
_BESIDE = (ID, _ALIGN, "tokens")  # columns of a logits file that do not belong to the distribution


def folders(folder: Path, teachers: Sequence[str]) -> list[Path]:
    """For each teacher, the folder with this teacher's logits.

    Without `teachers`, there must be logits of exactly one teacher. Raises CorpusError when logits are missing.
    """
    root = next((p for p in (folder / "logits", folder.parent / "generated" / "logits") if p.is_dir()), None)
    if root is None:
        raise CorpusError(
            f"{folder} has no stored logits",
            "generate with a `logits` section (or score the rows: strategy: score), or learn from the tokens alone: "
            "train.kd_weight: 0",
        )
    there = {p.name: p for p in sorted(root.iterdir()) if p.is_dir()}
    if not teachers and len(there) != 1:
        raise CorpusError(
            f"{root} has logits of {len(there)} teachers: {', '.join(there)}",
            "name one teacher in train.teacher, or merge them with train.ensemble",
        )
    for name in teachers:
        if name not in there:
            raise CorpusError(
                f"{root} has no logits of a teacher '{name}'{nearest(name, there)}",
                "generate with logits.score_by in the recipe",
            )
    return [there[name] for name in teachers or there]


class Shelf:
    """All logits files of one teacher, with an index of their rows by record id.

    `hashes` has the SHA-256 of each of the `paths`. Raises CorpusError when a file differs from its entry in the
    manifest of the corpus, because a student must not learn from distributions that were changed later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        owner, place = folder.parent.parent, f"{folder.parent.name}/{folder.name}/"
        entries = corpus.manifest(owner)
        names = [name for name in entries["files"] if name.startswith(place)]
        self.paths = sorted(corpus.check_file(owner, entries, name) for name in names)
        self.hashes = [entries["files"][place + path.name]["sha256"] for path in self.paths]

    def places(self, record_id: str) -> list[tuple[int, int]]:
        """Return (index of the file in `paths`, row in the file) of all rows whose id has the hash of `record_id`."""
        hashes, files, rows = self._index
        value = _hash(record_id)
        begin, end = np.searchsorted(hashes, value, "left"), np.searchsorted(hashes, value, "right")
        return [(int(files[n]), int(rows[n])) for n in range(begin, end)]

    @cached_property
    def _index(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """The hashes of all ids in ascending order, with the file and the row of each id. The index takes 16 bytes a
        row.
        """
        hashes = [np.array([_hash(i) for i in _ids(path)], np.uint64) for path in self.paths]
        if not hashes:
            return np.zeros(0, np.uint64), np.zeros(0, np.uint32), np.zeros(0, np.uint32)
        whole = np.concatenate(hashes)
        order = np.argsort(whole, kind="stable")
        files = np.repeat(np.arange(len(hashes), dtype=np.uint32), [len(some) for some in hashes])
        rows = np.concatenate([np.arange(len(some), dtype=np.uint32) for some in hashes])
        return whole[order], files[order], rows[order]


def _hash(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest())


def _ids(path: Path) -> list[str]:
    _meta_of(path)
    return [record_id for batch in corpus.scan(path, [ID]) for record_id in batch[ID].to_pylist()]


def _meta_of(path: Path) -> LogitsMeta:
    """The metadata of a logits file. Raises CorpusError when the file is not a logits file."""
    try:
        return cast(LogitsMeta, json.loads((pq.read_schema(path).metadata or {})[logits.FORMAT.encode()]))
    except (OSError, ValueError, KeyError) as error:  # Arrow's errors are subclasses of ValueError or OSError
        raise CorpusError(
            f"{path}: not a {logits.FORMAT} shard ({error})", "make the logits again: `synthgen generate --repair`"
        ) from None


def key_of(hashes: Sequence[str], logits_hashes: Sequence[str]) -> str:
    """The key of a segment: one hash over the format, the hashes of the shard's files, and `logits_hashes`."""
    return durable.digest([FORMAT, list(hashes), list(logits_hashes)])


def make(folder: Path, shard: str, shelf: Shelf, path: Path, key: str) -> None:
    """Write the segment of one shard. A row without logits gets no blob, and readers of the segment must check for
    this.

    Raises CorpusError when logits belong to another row, or differ in kind, teacher or temperature from other logits of
    the shard.
    """
    rows = teaching(folder, shard, [TOKENS])
    header: dict[str, Any] = {"key": key, "meta": {}, "names": [], "file": ""}
    segment.write(path, header, np.zeros(len(rows), ENTRY), _blobs(rows, shard, shelf, header))


def _blobs(rows: Teaching, shard: str, shelf: Shelf, header: dict[str, Any]) -> Iterator[tuple[list[int], bytes]]:
    ids = rows.table[ID].to_pylist() if len(rows) else []
    values, offsets = lists(rows.table[TOKENS]) if ids else (np.zeros(0, np.int32), np.zeros(1, np.int64))
    wanted: dict[str, list[int]] = {}
    for number, record_id in enumerate(ids):
        if offsets[number + 1] > offsets[number]:  # skip rows without tokens, which have no distributions
            wanted.setdefault(record_id, []).append(number)

    def tokens(number: int) -> list[int]:
        return list(values[offsets[number] : offsets[number + 1]].tolist())

    beside = shelf.folder / f"{shard}.parquet"
    if beside in shelf.paths:
        yield from _from_file(beside, wanted, tokens, header)
    if wanted:  # the logits of the remaining rows are in files that are not named after the shard
        elsewhere = sorted({place for record_id in wanted for place, _ in shelf.places(record_id)}, reverse=True)
        for place in elsewhere:
            yield from _from_file(shelf.paths[place], wanted, tokens, header)


def _from_file(
    path: Path,
    wanted: dict[str, list[int]],
    tokens: Callable[[int], list[int]],
    header: dict[str, Any],
) -> Iterator[tuple[list[int], bytes]]:
    """Yield the blobs of the `wanted` rows that are in one file, and remove these rows from `wanted`."""
    meta = _meta_of(path)
    schema = pq.read_schema(path)
    names = [name for name in schema.names if name not in _BESIDE]
    about = logits.Shard(meta, [], [], {})
    for batch in corpus.scan(path, [ID, _ALIGN]):
        about.ids.extend(batch[ID].to_pylist())
        about.aligns.extend(batch[_ALIGN].to_pylist())
    place = {record_id: row for row, record_id in enumerate(about.ids)}  # if an id occurs twice, its last row is used
    chosen = {place[record_id]: record_id for record_id in wanted if record_id in place}
    if not chosen:
        return
    if header["meta"] not in ({}, meta):
        raise CorpusError(f"{path}: these logits differ from those of the other shards in kind, teacher or temperature")
    header |= {"meta": meta, "names": names, "file": f"{path.parent.name}/{path.name}"}
    start = 0
    for batch in corpus.scan(path, names, _BATCH):
        here = [row for row in range(start, start + batch.num_rows) if row in chosen]
        columns = [batch[name] for name in names]
        for row in here:
            numbers = wanted.pop(chosen[row])
            for number in numbers:
                logits.check_aligned(about, row, chosen[row], tokens(number), path)
            yield numbers, _pack([column[row - start].as_py() for column in columns])
        start += batch.num_rows


def _pack(blobs: Sequence[bytes]) -> bytes:
    return b"".join([np.array([len(blob) for blob in blobs], "<u4").tobytes(), *blobs])


def unpack(blob: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """Return the parts of a row's blob by name, in the form that `logits.decode` expects."""
    sizes = np.frombuffer(blob, "<u4", len(names))
    ends = 4 * len(names) + np.cumsum(sizes, dtype=np.int64)
    return {name: blob[end - size : end] for name, size, end in zip(names, sizes.tolist(), ends.tolist(), strict=True)}
