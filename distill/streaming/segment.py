"""A segment: a file of many small blobs that are read one at a time, by number, in constant time.

    entries = np.zeros(rows, entry_type())
    write(path, {"key": key}, entries, (([number], blob) for number, blob in …))
    segment = Segment.open(path, key, entry_type())           # None: missing, cut short, altered, or of another key
    files.read(segment, segment.entries(files)[7])            # the blob

Layout: the blobs, each compressed with zstd; one fixed-size entry a number; the header, JSON; a tail of fixed size
with the places of both, and the SHA-256 of all bytes before it. A segment is written under a temporary name, synced
and renamed, so a file under its real name is whole unless something altered it. Files are read with `pread`, not
mapped: pages that are read do not count as memory of this process.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen import durable
from synthgen.errors import CorpusError

Entries = npt.NDArray[np.void]

_MAGIC = b"sgnseg01"
_TAIL = struct.Struct("<QQQ8s")  # begin of the entries, their number, begin of the header, magic; then 32 of SHA-256
_SHA = 32
_OPEN = 64  # files held open at once
_BLOCK = 1 << 20
_PLACE = [("offset", "<u8"), ("size", "<u4"), ("raw", "<u4"), ("crc", "<u4")]
_NAMES = [name for name, _ in _PLACE]


def entry_type(*fields: tuple[str, str]) -> np.dtype[np.void]:
    """The type of an entry: where its blob lies, and `fields` (name, numpy type) of the caller's own.

    A blob of size 0 in the file means that the number has none.
    """
    return np.dtype([*_PLACE, *fields])


def write(path: Path, header: dict[str, Any], entries: Entries, blobs: Iterable[tuple[Sequence[int], bytes]]) -> None:
    """Write `path` whole or not at all: for each blob the numbers that it belongs to, then `entries`.

    The caller fills its own fields of `entries` before `blobs` ends; places and checksums are filled here.
    """
    durable.make_folder(path.parent)
    temporary = path.with_name(f"{durable.TEMPORARY}{path.name}")
    codec = pa.Codec("zstd", compression_level=1)
    try:
        with temporary.open("wb") as file:
            digest, offset = hashlib.sha256(), 0

            def put(data: bytes) -> None:
                nonlocal offset
                file.write(data)
                digest.update(data)
                offset += len(data)

            for numbers, blob in blobs:
                packed = codec.compress(blob, asbytes=True)
                for number in numbers:
                    for name, value in zip(_NAMES, (offset, len(packed), len(blob), zlib.crc32(packed)), strict=True):
                        entries[name][number] = value
                put(packed)
            begin = offset
            put(entries.tobytes())
            about = offset
            put(json.dumps(header).encode())
            put(_TAIL.pack(begin, len(entries), about, _MAGIC))
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)  # of a write that failed: a full disk gets its bytes back
    durable.fsync_folder(path.parent)


@dataclass(frozen=True)
class Segment:
    """A segment that was whole when it was opened. `digest` is the SHA-256 of its content."""

    path: Path
    header: dict[str, Any]
    kind: np.dtype[np.void]
    begin: int
    count: int
    digest: bytes

    @classmethod
    def open(cls, path: Path, key: str, kind: np.dtype[np.void], *, check: bool = True) -> Segment | None:
        """The segment, if it is whole and its header has this `key`; None otherwise.

        Every byte is compared with the checksum, unless `check` is false.
        """
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(size - _TAIL.size - _SHA)
                tail, digest = file.read(_TAIL.size), file.read(_SHA)
                begin, count, about, magic = _TAIL.unpack(tail)
                if magic != _MAGIC or about - begin != count * kind.itemsize or about > size - _TAIL.size - _SHA:
                    return None
                file.seek(about)
                header = json.loads(file.read(size - _TAIL.size - _SHA - about))
                if header["key"] != key or (check and _sha256(file, size - _SHA) != digest):
                    return None
        except (OSError, ValueError, KeyError, TypeError, struct.error):
            return None
        return cls(path, header, kind, begin, count, digest)

    def __len__(self) -> int:
        return self.count


def _sha256(file: Any, size: int) -> bytes:
    """Digest of the first `size` bytes of an open file."""
    digest = hashlib.sha256()
    file.seek(0)
    while size:
        block = file.read(min(_BLOCK, size))
        if not block:
            raise OSError("the file is shorter than it was")
        digest.update(block)
        size -= len(block)
    return digest.digest()


class Files:
    """Reads blobs and entries of segments; at most `_OPEN` files are open. Threads may share it."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._lock = threading.Lock()

    def entries(self, segment: Segment, begin: int = 0, end: int | None = None) -> Entries:
        """Entries [begin, end) of a segment."""
        end = segment.count if end is None else end
        width = segment.kind.itemsize
        data = self._read(segment, segment.begin + begin * width, (end - begin) * width)
        return np.frombuffer(data, segment.kind)

    def blob(self, segment: Segment, entry: np.void) -> bytes:
        """The blob of an entry. Raises CorpusError if its bytes are not those that were written."""
        packed = self._read(segment, int(entry["offset"]), int(entry["size"]))
        if zlib.crc32(packed) != int(entry["crc"]):
            raise _changed(segment.path)
        return pa.decompress(packed, decompressed_size=int(entry["raw"]), codec="zstd", asbytes=True)

    def close(self) -> None:
        """Close every file; reading opens them again."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])

    def _read(self, segment: Segment, offset: int, size: int) -> bytes:
        with self._lock:
            handle = self._handle(segment)
            data = os.pread(handle, size, offset)
        if len(data) != size:
            raise _changed(segment.path)
        return data

    def _handle(self, segment: Segment) -> int:
        if segment.path in self._open:
            self._open.move_to_end(segment.path)
            return self._open[segment.path]
        try:
            handle = os.open(segment.path, os.O_RDONLY)
        except OSError:
            raise _changed(segment.path) from None
        if os.pread(handle, _SHA, os.fstat(handle).st_size - _SHA) != segment.digest:
            os.close(handle)
            raise _changed(segment.path)
        self._open[segment.path] = handle
        if len(self._open) > _OPEN:
            os.close(self._open.popitem(last=False)[1])
        return handle


def _changed(path: Path) -> CorpusError:
    return CorpusError(f"{path} changed while it was read", "repeat the command, which makes the file again")
