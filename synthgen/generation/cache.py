"""The cache of paid replies: one SQLite file in the user's cache folder. The key of an entry is a hash of the request's
content. Entries never expire.

A reply is used only after it is durable in the cache (WAL, synchronous=FULL). A writer thread commits all waiting
statements in one transaction. A thousand replies a second therefore need only a few fsyncs. A task that stores a reply
waits until its statements are committed.

The file holds no API key, because the body of a request never contains the key.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthgen.errors import UserError

_VERSION = 1
_TABLES = """
CREATE TABLE reply(key BLOB PRIMARY KEY, failure TEXT, reason TEXT, body BLOB, model TEXT, made INTEGER);
"""
_PLACES = "(?, ?, ?, ?, ?, ?)"
_PUT = f"INSERT OR REPLACE INTO reply VALUES {_PLACES}"
_ROWS = 64  # maximum number of replies in one statement
_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""SQLite's codes for a file whose content is wrong. After an error with any other code, the file may be intact."""
_WAIT = 10.0  # seconds for which `forget` waits for other processes
_SMALL = 2048  # bodies with fewer bytes are not compressed

Statement = tuple[str, Sequence[Any]]
Batch = list[tuple[list[Statement], asyncio.Future[None]]]


@dataclass(frozen=True)
class Entry:
    """What is stored for one request: the reply's body as the server sent it, or a failure (kind, reason). An entry
    with a failure may also have a body.
    """

    body: bytes | None
    failure: tuple[str, str] | None = None


class Cache:
    """The cache in the file at `path`. Use the object in only one event loop. With `retry_failed`, cached failures are
    ignored, so that failed requests are sent again.

    Raises UserError when the file is damaged or is not a cache.
    """

    def __init__(self, path: Path, *, retry_failed: bool = False) -> None:
        self.path = path
        self.retry_failed = retry_failed
        self.commits = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._reader = self._connect()
            with self._reader:
                self._reader.execute("BEGIN IMMEDIATE")
                (version,) = self._reader.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _TABLES.strip().split("\n"):
                        self._reader.execute(statement)
                    self._reader.execute(f"PRAGMA user_version = {_VERSION}")
        except sqlite3.Error as error:
            raise self._broken(error) from None
        if version not in (0, _VERSION):
            raise UserError(
                f"{path} is a reply cache of version {version}, but this synthgen uses version {_VERSION}",
                "set SYNTHGEN_CACHE to another folder, or upgrade synthgen",
            )
        self._stored: set[bytes] = set()  # with `retry_failed`, the keys of entries that this object has stored
        self._pending: Batch = []
        self._busy = False
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="reply-cache", daemon=True)
        self._thread.start()

    def get(self, key: bytes) -> Entry | None:
        """The cached entry of a request, or None."""
        return self.find([key]).get(key)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """The cached entries of several requests, by key. Keys without an entry are left out. One query reads all
        entries, which takes little longer than reading one entry.
        """
        marks = ", ".join("?" * len(keys))
        try:
            rows = self._reader.execute(
                f"SELECT key, failure, reason, body FROM reply WHERE key IN ({marks})", keys
            ).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from None
        return {
            key: Entry(
                None if body is None else _unpack(body, self.path), None if failure is None else (failure, reason)
            )
            for key, failure, reason, body in rows
            if failure is None or not self.repeats(key)
        }

    def repeats(self, key: bytes) -> bool:
        """Whether a request that failed is sent again. With `retry_failed`, each failed request is sent again once."""
        return self.retry_failed and key not in self._stored

    def put(self, key: bytes, entry: Entry, model: str) -> Statement:
        """The statement that stores an entry. Pass this statement to `commit`."""
        if self.retry_failed:
            self._stored.add(key)
        kind, reason = entry.failure or (None, None)
        return _PUT, (key, kind, reason, entry.body, model, int(time.time()))

    def commit(self, statements: list[Statement]) -> asyncio.Future[None]:
        """Commit all statements or none. The returned future is done when the statements are on disk. Awaiting this
        future raises OSError or UserError when the statements cannot be written.

        Statements that arrive while the writer thread is busy are committed in its next transaction.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._pending.append((statements, future))
        if not self._busy:
            self._busy = True
            loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        self._queue.put(self._pending)
        self._pending = []

    def _told(self, batch: Batch, error: Exception | None) -> None:
        """The writer thread has committed `batch`. Complete the futures of `batch`, and give the thread the statements
        that are waiting. This method runs in the event loop after each commit.
        """
        if self._pending:
            self._flush()
        else:
            self._busy = False
        for _, future in batch:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    def close(self) -> None:
        """Commit waiting statements and close the file."""
        if self._pending:
            self._flush()
        self._queue.put(None)
        self._thread.join()
        self._reader.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _write(self) -> None:
        """The main loop of the writer thread: take a batch of statements, commit them, and notify the event loop."""
        connection: sqlite3.Connection | None = None
        while (batch := self._queue.get()) is not None:
            error: Exception | None = None
            try:
                connection = connection or self._connect()
                self._transaction(connection, [s for statements, _ in batch for s in statements])
            except sqlite3.Error as problem:
                error = self._broken(problem)
            except Exception as problem:  # the thread must not end, because tasks wait for it
                error = problem
            loop = batch[0][1].get_loop()
            try:
                loop.call_soon_threadsafe(self._told, batch, error)
            except RuntimeError:  # the event loop is closed, for example after Ctrl-C, so no task waits for the commit
                continue
        if connection is not None:
            connection.close()

    def _transaction(self, connection: sqlite3.Connection, statements: list[Statement]) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for sql, values in _together(statements):
                connection.execute(sql, values)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.commits += 1

    def _broken(self, error: sqlite3.Error) -> Exception:
        text = str(error)
        if "full" in text:
            return OSError(errno.ENOSPC, "No space left on device", str(self.path))
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in _DAMAGED:
            return UserError(
                f"the reply cache {self.path} cannot be used: {text}",
                "check the file, its disk, and which processes have it open; the replies in it are kept",
            )
        return UserError(
            f"the reply cache {self.path} is damaged: {text}",
            "restore a copy, or move the file away; lost replies are then paid again when they are needed",
        )


def forget(path: Path, keys: Sequence[bytes]) -> int:
    """Delete the entries of these requests from the cache in the file at `path`, so that the file no longer contains
    their bytes. Returns the number of entries.

    The file is written anew, because SQLite would otherwise leave deleted bytes in it. The new file needs as much free
    disk space as the old file takes. Raises UserError when another process is using the cache.
    """
    if not path.exists():
        return 0
    connection = sqlite3.connect(path, timeout=_WAIT, isolation_level=None)
    try:
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("BEGIN IMMEDIATE")
        found = sum(connection.execute("DELETE FROM reply WHERE key = ?", (key,)).rowcount for key in keys)
        connection.execute("COMMIT")
        for statement in ("VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
            rows = connection.execute(statement).fetchall()
            if rows and rows[0][0]:
                raise sqlite3.OperationalError("another process is reading it")
    except sqlite3.Error as error:
        raise UserError(
            f"replies cannot be deleted from the cache {path}: {error}",
            "end the processes that use the cache, then give the same command again",
        ) from None
    finally:
        connection.close()
    return found


def count(path: Path, keys: Sequence[bytes]) -> int:
    """The number of these requests whose replies are in the cache in the file at `path`."""
    if not (keys and path.exists()):
        return 0
    with closing(Cache(path)) as cache:
        return sum(len(cache.find(keys[start : start + 500])) for start in range(0, len(keys), 500))


def _together(statements: list[Statement]) -> Iterator[Statement]:
    """Merge the statements into fewer statements, because each statement costs a switch between the interpreter's
    threads. One statement stores up to `_ROWS` replies.
    """
    puts = [values for _, values in statements]
    for start in range(0, len(puts), _ROWS):
        some = puts[start : start + _ROWS]
        yield _PUT + f", {_PLACES}" * (len(some) - 1), [value for put in some for value in _packed(put)]


def _packed(values: Sequence[Any]) -> list[Any]:
    """Compress the body, which is one of the parameters of a `_PUT` statement. This function runs in the writer thread,
    so that the event loop is not delayed.
    """
    key, kind, reason, body, model, made = values
    return [key, kind, reason, None if body is None else _pack(body), model, made]


def _pack(body: bytes) -> bytes:
    """The bytes in which a body is stored. The stored bytes begin with a 4-byte number. For a large body, the number is
    the body's length, and the compressed body follows. For a small body, the number is 0, and the uncompressed body
    follows.
    """
    if len(body) < _SMALL:
        return struct.pack("<I", 0) + body
    return struct.pack("<I", len(body)) + pa.compress(body, codec="zstd", asbytes=True)


def _unpack(blob: bytes, path: Path) -> bytes:
    try:
        (size,) = struct.unpack_from("<I", blob)
        if size == 0:
            return blob[4:]
        return bytes(pa.decompress(blob[4:], decompressed_size=size, codec="zstd", asbytes=True))
    except (struct.error, pa.ArrowException, OSError) as error:
        raise UserError(f"the reply cache {path} is damaged: {error}", "restore a copy, or move it away") from None
