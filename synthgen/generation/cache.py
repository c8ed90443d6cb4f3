"""Paid replies, kept for ever: one sqlite file in the user's cache folder, keyed by the content of the request.

A reply counts once it is durable here (WAL, synchronous=FULL). A writer thread commits whatever has gathered in
one transaction, so that a thousand replies a second cost a few fsyncs, and each waiting task goes on only after
its commit. The same file holds the ledger of budgets: what a run has spent, and what it has reserved for
requests that may be on their way. A reservation that a killed process leaves behind counts as spent.

No key of any provider is ever in a request's body, so none is in here.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from synthgen.errors import UserError

_VERSION = 1
_TABLES = """
CREATE TABLE reply(key BLOB PRIMARY KEY, failure TEXT, reason TEXT, body BLOB, model TEXT, made INTEGER);
CREATE TABLE spent(run TEXT PRIMARY KEY, usd INTEGER NOT NULL, tokens INTEGER NOT NULL);
CREATE TABLE reserved(id INTEGER PRIMARY KEY, run TEXT NOT NULL, usd INTEGER NOT NULL, tokens INTEGER NOT NULL);
"""
_PLACES = "(?, ?, ?, ?, ?, ?)"
_PUT = f"INSERT OR REPLACE INTO reply VALUES {_PLACES}"
_ROWS = 64  # replies in one statement
_SPEND = (
    "INSERT INTO spent VALUES (?, ?, ?) "
    "ON CONFLICT(run) DO UPDATE SET usd = usd + excluded.usd, tokens = tokens + excluded.tokens"
)
_SMALL = 2048  # bytes of a body that compressing would not make worth it

Statement = tuple[str, Sequence[Any]]
Batch = list[tuple[list[Statement], asyncio.Future[None]]]


@dataclass(frozen=True)
class Entry:
    """A reply as the server sent it, or why there is none (`failure` = (kind, reason); `body` may be there)."""

    body: bytes | None
    failure: tuple[str, str] | None = None


@dataclass(frozen=True)
class Spent:
    """Picodollars (1e-12 $) and tokens."""

    usd: int = 0
    tokens: int = 0


class Cache:
    """The file at `path`; use it from one event loop. `retry_failed` makes kept failures invisible.

    Raises UserError for a file that is damaged or is not a cache.
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
                f"{path} is a reply cache of version {version}; this synthgen writes {_VERSION}",
                "set SYNTHGEN_CACHE to another folder, or upgrade synthgen",
            )
        self._next_id = time.time_ns()
        self._pending: Batch = []
        self._busy = False
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="reply-cache", daemon=True)
        self._thread.start()

    def get(self, key: bytes) -> Entry | None:
        """What is kept for a request, or None."""
        return self.find([key]).get(key)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        """What is kept for some requests, by key: one query for all costs little more than one for each."""
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
            if failure is None or not self.retry_failed
        }

    def put(self, key: bytes, entry: Entry, model: str) -> Statement:
        """The statement that keeps an entry; hand it to `commit`."""
        kind, reason = entry.failure or (None, None)
        return _PUT, (key, kind, reason, entry.body, model, int(time.time()))

    def reserve(self, run: str, most: Spent) -> tuple[int, Statement]:
        """(id of the reservation, statement)."""
        self._next_id += 1
        return self._next_id, ("INSERT INTO reserved VALUES (?, ?, ?, ?)", (self._next_id, run, most.usd, most.tokens))

    def settle(self, run: str, reservation: int | None, spent: Spent) -> list[Statement]:
        """Statements that turn a reservation into what was spent."""
        found: list[Statement] = []
        if reservation is not None:
            found.append(("DELETE FROM reserved WHERE id = ?", (reservation,)))
        if spent.usd or spent.tokens:
            found.append((_SPEND, (run, spent.usd, spent.tokens)))
        return found

    def commit(self, statements: list[Statement]) -> asyncio.Future[None]:
        """Done once the statements are on the disk, all or none of them. Raises OSError or UserError.

        What is asked for while the writer is busy goes into one transaction after it.
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
        """In the loop, after a commit: the next batch first, then those who waited."""
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

    def spent(self, run: str) -> Spent:
        """What a run has spent, with everything a killed process had reserved: that may have been billed."""
        try:
            with self._reader:
                self._reader.execute("BEGIN IMMEDIATE")
                lost = self._reader.execute(
                    "SELECT coalesce(sum(usd), 0), coalesce(sum(tokens), 0) FROM reserved WHERE run = ?", (run,)
                ).fetchone()
                self._reader.execute("DELETE FROM reserved WHERE run = ?", (run,))
                self._reader.execute(_SPEND, (run, *lost))
                row = self._reader.execute("SELECT usd, tokens FROM spent WHERE run = ?", (run,)).fetchone()
        except sqlite3.Error as error:
            raise self._broken(error) from None
        return Spent(*row)

    def close(self) -> None:
        """Commit what waits, and let go of the file."""
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
        """The writer thread: a batch, a transaction, word to the loop."""
        connection: sqlite3.Connection | None = None
        while (batch := self._queue.get()) is not None:
            error: Exception | None = None
            try:
                connection = connection or self._connect()
                self._transaction(connection, [s for statements, _ in batch for s in statements])
            except sqlite3.Error as problem:
                error = self._broken(problem)
            loop = batch[0][1].get_loop()
            try:
                loop.call_soon_threadsafe(self._told, batch, error)
            except RuntimeError:  # closed by an interruption: nobody is left to tell, and the commit stands
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
        if "locked" in text or "readonly" in text or "unable to open" in text:
            return UserError(f"the reply cache {self.path} cannot be used: {text}", "check the file and who uses it")
        return UserError(
            f"the reply cache {self.path} is damaged: {text}",
            "restore a copy, or move the file away: what it held is then paid for again when asked again",
        )


def _together(statements: list[Statement]) -> Iterator[Statement]:
    """The same done in fewer statements: between two the interpreter goes from thread to thread.

    Replies go in many at a time, and what a run spent is summed; nothing else needs these to come in their order.
    """
    puts: list[Sequence[Any]] = []
    spent: dict[str, list[int]] = {}
    for sql, values in statements:
        if sql is _PUT:
            puts.append(values)
        elif sql is _SPEND:
            total = spent.setdefault(values[0], [0, 0])
            total[0] += values[1]
            total[1] += values[2]
        else:
            yield sql, values
    for start in range(0, len(puts), _ROWS):
        some = puts[start : start + _ROWS]
        yield _PUT + f", {_PLACES}" * (len(some) - 1), [value for put in some for value in _packed(put)]
    for run, (usd, tokens) in spent.items():
        yield _SPEND, (run, usd, tokens)


def _packed(values: Sequence[Any]) -> list[Any]:
    """The values of _PUT with the body compressed; here, since it is the writer's thread that has time for it."""
    key, kind, reason, body, model, made = values
    return [key, kind, reason, None if body is None else _pack(body), model, made]


def _pack(body: bytes) -> bytes:
    """A large body compressed after its length, a small one as it is after a zero."""
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
