"""The ledger: what a run has spent on paid teachers. The ledger lies in RUN/ledger, so it does not depend on the cache.

Each process appends to its own file. A line holds the totals of the process: the amount spent, and the amount that is
reserved for requests that are in flight. Only the last complete line of each file is used. The amount that this line
reserves counts as spent, because the requests of a killed process may have been billed.

Lines are written by a thread. Amounts that arrive while the thread writes become part of the next line, so a thousand
requests a second need only a few fsyncs.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from synthgen import durable
from synthgen.errors import CorpusError
from synthgen.parquet import read_columns

FOLDER = "ledger"
_PAUSE = 0.1  # seconds to wait for further amounts before a line is written, when no task waits for the line
_TAIL = 4096  # the last complete line of a file lies within this many bytes from the end
_NAME = re.compile(r"(\d+)-of-(\d+)-[0-9a-f]+\.jsonl")


class Spent(NamedTuple):
    """An amount of picodollars (1e-12 $) and tokens."""

    usd: int = 0
    tokens: int = 0

    def __add__(self, other: Spent) -> Spent:  # type: ignore[override]
        return Spent(self.usd + other.usd, self.tokens + other.tokens)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.usd - other.usd, self.tokens - other.tokens)

    def times(self, factor: float) -> Spent:
        """The amount multiplied by a factor, rounded up."""
        return self if factor == 1 else Spent(math.ceil(self.usd * factor), math.ceil(self.tokens * factor))


class Ledger:
    """The ledger in `folder`, for the process that makes the i-th of n parts of a run. `part` is (i, n). Use the object
    in only one event loop at a time, and close it after use.

    `before` is the amount that this part of the run had spent when the object was created. When the ledger's files have
    been deleted, the costs of the rows in `shards` are used instead.

    Raises CorpusError when a file of the ledger is damaged.
    """

    def __init__(self, folder: Path, part: tuple[int, int] = (1, 1), shards: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.spent, self.held = Spent(), Spent()
        self.before = spent(folder, part)
        if shards and not _files(folder):
            self.spent = cost_of_rows(shards)
            self.before = self.spent
        durable.make_folder(folder)
        self.path = folder / f"{part[0]}-of-{part[1]}-{secrets.token_hex(8)}.jsonl"
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW, 0o644)
        self._pool = ThreadPoolExecutor(1, "ledger")
        self._next: asyncio.Future[None] | None = None  # this future is done when the amounts known now are on disk
        self._writing: asyncio.Task[None] | None = None
        self._urgent = False  # whether a task waits until the amounts are on disk
        self._error: Exception | None = None
        self._write(self._line())
        durable.fsync_folder(folder)

    async def reserve(self, most: Spent) -> None:
        """Reserve an amount. Returns as soon as the reservation is on disk. Raises OSError."""
        self.held += most
        self._urgent = True
        await asyncio.shield(self._durable())  # other tasks await this future, so a canceled task must not cancel it

    def settle(self, reserved: Spent, spent: Spent) -> None:
        """Replace a reservation by the amount spent. A thread writes the change soon afterwards. If an earlier write
        failed, raises the OSError of that write.
        """
        self.held -= reserved
        self.spent += spent
        self._durable()

    async def add(self, spent: Spent) -> None:
        """Add an amount, which may be negative. Returns as soon as the amount is on disk. Raises OSError."""
        self.spent += spent
        self._urgent = True
        await asyncio.shield(self._durable())

    def close(self) -> None:
        """Write the last line and close the file."""
        self._pool.shutdown(wait=True)
        try:
            if self._error is None:
                self._write(self._line())
        finally:
            os.close(self._file)

    def _durable(self) -> asyncio.Future[None]:
        if self._error is not None:
            raise self._error
        loop = asyncio.get_running_loop()
        if self._next is None or self._next.get_loop() is not loop:
            self._next = loop.create_future()
            self._next.add_done_callback(_look)
        waiting = self._next
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write_all())
        return waiting

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._next is not None:
            if not self._urgent:
                await asyncio.sleep(_PAUSE)
            waiting, self._next, self._urgent = self._next, None, False
            try:
                await loop.run_in_executor(self._pool, self._write, self._line())
            except Exception as error:
                self._error = error
                for one in (waiting, self._next):  # more tasks may have begun to wait while the thread wrote
                    if one is not None and not one.done():
                        one.set_exception(error)
                self._next = None
                return
            if not waiting.done():
                waiting.set_result(None)

    def _line(self) -> bytes:
        state = {
            "picodollars": self.spent.usd,
            "tokens": self.spent.tokens,
            "reserved_picodollars": self.held.usd,
            "reserved_tokens": self.held.tokens,
        }
        return json.dumps(state).encode() + b"\n"

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(self._file, view) :]
        os.fsync(self._file)
        durable.written(self.path)


def discard(folder: Path) -> None:
    """Delete the ledger in `folder`. A run that begins anew also has a new budget. Files that do not belong to the
    ledger are kept.
    """
    for path in _files(folder):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _look(waiting: asyncio.Future[None]) -> None:
    """Mark the error of a future as seen, so that asyncio prints no warning. The next call of a method of `Ledger`
    raises this error.
    """
    if not waiting.cancelled():
        waiting.exception()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.jsonl") if _NAME.fullmatch(path.name))


def spent(folder: Path, part: tuple[int, int] = (1, 1)) -> Spent:
    """The amount that a part of a run has spent, according to the ledger in `folder`. If the run had another number of
    parts before, the amounts that those parts spent are divided equally among the present parts. Raises CorpusError
    when a file is damaged.
    """
    usd = tokens = other_usd = other_tokens = 0
    for path in _files(folder):
        index, count = (int(number) for number in _NAME.fullmatch(path.name).groups())  # type: ignore[union-attr]
        amount = _last(path)
        if (index, count) == part:
            usd, tokens = usd + amount.usd, tokens + amount.tokens
        elif count != part[1]:
            other_usd, other_tokens = other_usd + amount.usd, other_tokens + amount.tokens
    return Spent(usd - (-other_usd // part[1]), tokens - (-other_tokens // part[1]))


def _last(path: Path) -> Spent:
    """The amount in the last complete line of a file. A killed process may have left half a line at the end."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        if not line:
            continue
        try:
            state = json.loads(line)
            usd = state["picodollars"] + state["reserved_picodollars"]
            tokens = state["tokens"] + state["reserved_tokens"]
            if type(usd) is int and type(tokens) is int:
                return Spent(usd, tokens)
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise CorpusError(
            f"{path} is damaged, so it is not known what this run has spent",
            "restore the file, or delete the folder 'ledger' of the run: the costs of its rows count then",
        )
    return Spent()


def cost_of_rows(shards: Sequence[Path]) -> Spent:
    """The costs that the rows of these shards state."""
    usd = tokens = 0
    for path in shards:
        table = read_columns(path, ["cost_usd", "usage"])
        usd += round((pc.sum(table["cost_usd"]).as_py() or 0.0) * 10**12)
        usage = table["usage"].combine_chunks()
        for name in ("prompt_tokens", "completion_tokens"):
            tokens += pc.sum(pc.cast(pc.struct_field(usage, name), pa.int64())).as_py() or 0
    return Spent(usd, tokens)
