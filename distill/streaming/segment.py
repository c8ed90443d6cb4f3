"""Segments: files of many small blobs. A blob is read by its number in constant time.

    entries = np.zeros(rows, entry_type())
    write(path, {"key": key}, entries, (([number], blob) for number, blob in …))
    segment = Segment.open(path, key, entry_type())           # None if missing, changed, or of another key
    files.blob(segment, files.entries(segment)[7])            # the blob

The file begins with the blobs, each compressed with zstd. Then come the entries, which all have the same size, and a
JSON header. The last parts are a fixed-size tail with the positions of entries and header, and the SHA-256 of all bytes
before the hash. A segment is written under a temporary name, synced and renamed. A file under its final name is
therefore complete, unless it was changed later. Files are read with `pread` instead of mmap, because mapped pages would
count as memory of this process.
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
from synthgen.files import is_regular

Entries = npt.NDArray[np.void]

_MAGIC = b"sgnseg01"
_TAIL = struct.Struct("<QQQ8s")  # start of the entries, their number, start of the header, magic
_SHA = 32
_OPEN = 64  # maximum number of open files
_BLOCK = 1 << 20
_PLACE = [("offset", "<u8"), ("size", "<u4"), ("raw", "<u4"), ("crc", "<u4")]
_NAMES = [name for name, _ in _PLACE]


def entry_type(*fields: tuple[str, str]) -> np.dtype[np.void]:
    """The numpy type of an entry: the position of its blob, and the caller's own `fields` as (name, numpy type).

    An entry with size 0 has no blob.
    """
    return np.dtype([*_PLACE, *fields])


def write(path: Path, header: dict[str, Any], entries: Entries, blobs: Iterable[tuple[Sequence[int], bytes]]) -> None:
    """Write a segment to `path`, completely or not at all.

    `blobs` yields each blob with the numbers of the entries that it belongs to. The caller must fill in its own fields
    of `entries` before the iterator `blobs` is exhausted. This function fills in positions and checksums.
    """
    durable.make_folder(path.parent)
    temporary = path.with_name(f"{durable.TEMPORARY}{path.name}")
    codec = pa.Codec("zstd", compression_level=1)
    try:
        with durable.new_file(temporary) as file:
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
        raise durable.named(error, path) from None
    finally:
        temporary.unlink(missing_ok=True)  # a failed write would leave the temporary file, which may fill the disk
    durable.fsync_folder(path.parent)


@dataclass(frozen=True)
class Segment:
    """A segment that was complete when it was opened. `digest` is the SHA-256 of the segment's content."""

    path: Path
    header: dict[str, Any]
    kind: np.dtype[np.void]
    begin: int
    count: int
    digest: bytes

    @classmethod
    def open(cls, path: Path, key: str, kind: np.dtype[np.void], *, check: bool = True) -> Segment | None:
        """Open the segment. Returns None unless the file is complete and its header has this `key`.

        All bytes are compared with the checksum, unless `check` is false.
        """
        if not is_regular(path):  # opening a pipe would block
            return None
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
    """The SHA-256 of the first `size` bytes of an open file. Raises OSError when the file is shorter."""
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
    """Reads blobs and entries of segments, with at most `_OPEN` open files. Threads may share one instance."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._lock = threading.Lock()

    def entries(self, segment: Segment, begin: int = 0, end: int | None = None) -> Entries:
        """The entries [begin, end) of a segment."""
        end = segment.count if end is None else end
        width = segment.kind.itemsize
        data = self._read(segment, segment.begin + begin * width, (end - begin) * width)
        return np.frombuffer(data, segment.kind)

    def blob(self, segment: Segment, entry: np.void) -> bytes:
        """The blob of an entry. Raises CorpusError when the blob's bytes do not match the checksum."""
        packed = self._read(segment, int(entry["offset"]), int(entry["size"]))
        if zlib.crc32(packed) != int(entry["crc"]):
            raise _changed(segment.path)
        return pa.decompress(packed, decompressed_size=int(entry["raw"]), codec="zstd", asbytes=True)

    def close(self) -> None:
        """Close all files. Later reads open the files again."""
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
