"""A working folder on this machine's disk, and the store to which it belongs.

Commands read and write the working folder as they read and write any folder. `fetch` copies objects into it before the
command begins. While the command runs, a thread sends each file that changed, in the order of `order.py`. The ledger,
the list of paid batches and the journal of a removal are sent at once, before the command goes on.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, cast

from synthgen import durable
from synthgen.errors import UserError
from synthgen.files import is_regular, parse_json
from synthgen.stores import lease as leases
from synthgen.stores.address import Address
from synthgen.stores.objects import Entry, Store, whole
from synthgen.stores.order import (
    MARKS,
    REMOVAL,
    Stat,
    is_sent,
    rank,
    rebuilds,
    scan,
    speaks_of_others,
    stage_of,
    stat_of,
)

_AT_ONCE = 8  # objects that are fetched at the same time
_SAVED_EVERY = 5.0  # seconds
_CALM = 0.2  # seconds; a program that deletes the working folder needs some time
_EVERY = 1.0  # least number of seconds between two searches for files that changed
_GONE = Entry(0, "")


class _State(TypedDict):
    """The content of state.json: for each file its version, its hash, and the parts of its `Stat`."""

    owner: str
    files: dict[str, tuple[str, str, int, int, int]]


@dataclass
class Known:
    """What is known about a file that is the same on the disk and in the store."""

    version: str
    sha256: str
    stat: Stat


@dataclass
class Mirror:
    """The working folder of one address and its store. `known` has the files that were equal in the folder and in the
    store when they were last seen. `error` is the error that ended the thread.
    """

    address: Address
    store: Store
    owner: str = ""
    known: dict[str, Known] = field(default_factory=dict)
    lease: leases.Lease | None = None
    error: Exception | None = None
    _lock: int | None = None  # the inode of the lock file of this command
    _ledgers: set[str] = field(default_factory=set)  # the ledger's files that this process writes
    _sending: threading.RLock = field(default_factory=threading.RLock)
    _ending: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The working folder."""
        return self.address.working

    # What is known between two commands

    def load(self) -> None:
        """Read from state.json which files were equal in the folder and in the store after the last command. If
        state.json is damaged, everything is compared again, as without state.json.
        """
        path = self.address.state / "state.json"
        try:
            value = parse_json(path.read_text(encoding="utf-8")) if is_regular(path) else {}
            state = cast(_State, value)
            self.known = {n: Known(v[0], v[1], (v[2], v[3], v[4])) for n, v in state["files"].items()}
            self.owner = state["owner"]
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            self.owner, self.known = secrets.token_hex(8), {}

    def save(self) -> None:
        """Write what is known to the disk."""
        files = {name: [one.version, one.sha256, *one.stat] for name, one in sorted(self.known.items())}
        text = json.dumps({"url": self.address.root, "owner": self.owner, "files": files})
        durable.write_text(self.address.state / "state.json", text)

    # From the store

    def fetch(self, ours: bool, wanted: Callable[[str], bool]) -> dict[str, Entry]:
        """Make the working folder equal to the store, and return the objects that the store had.

        With `ours`, this folder was the last that wrote to the store. A file that changed here since it was last sent
        then stays, and is sent again. But if a file is missing here, a user or a system may have deleted it, so the
        whole stage of this file is taken from the store. Objects for which `wanted` is false are left out. If another
        machine changed rows, the training rows in tokens are deleted, because `synthgen remove` may have run there.
        """
        if self.folder.is_symlink():
            raise UserError(f"{self.folder} is a link, so no store is copied to it", "delete it")
        there = {name: entry for name, entry in self.store.list().items() if is_sent(name)}
        here = {"": stat} if (stat := stat_of(self.folder)) and self.folder.is_file() else scan(self.folder)
        lost = {stage_of(name) for name in self.known if name not in here}
        other = [name for name, one in self.known.items() if there.get(name, _GONE).version != one.version]
        if not ours and any(map(rebuilds, other)):
            for path in (self.folder / "cache", *self.folder.glob("*/cache")):
                durable.remove(path)
        needed = {}
        for name, entry in there.items():
            known, stat = self.known.get(name), here.get(name)
            changed = known is None or stat != known.stat
            if known is not None and not changed and known.version == entry.version:
                continue
            if stat is not None and changed and ours and stage_of(name) not in lost:
                self.known[name] = Known(
                    entry.version, self.store.sha256(name), (0, 0, 0)
                )  # is compared and sent again
            elif wanted(name):
                needed[name] = entry
            elif self.known.pop(name, None):
                (self.folder / name).unlink(missing_ok=True)  # an old copy
        for name in here.keys() - there.keys():
            known = self.known.pop(name, None)
            if not ours or stage_of(name) in lost or (known is not None and known.stat == here[name]):
                (self.folder / name).unlink(missing_ok=True)
        for name in self.known.keys() - there.keys():
            del self.known[name]
        self._fetch_all(needed)
        self.save()
        return there

    def _fetch_all(self, needed: dict[str, Entry]) -> None:
        def fetch(name: str) -> None:
            path = self.folder / name if name else self.folder
            entry = needed[name]
            self.known.pop(name, None)
            self.store.fetch(name, path, entry.bytes)
            stat = stat_of(path)
            assert stat is not None, path
            self.known[name] = Known(entry.version, durable.sha256(path), stat)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            # a file that marks a stage as finished comes after the files of the stage
            for of_rank in _by_rank(needed):
                list(pool.map(fetch, of_rank))

    # To the store

    def hold(self, lease: leases.Lease) -> None:
        """Renew the lease from now on."""
        self.lease = lease
        self._start(self._renew_always)

    def begin(self) -> None:
        """Start to send files. The lease must be held."""
        self._lock = self._inode_of_lock()
        durable.watchers.append(self._written)
        self._start(self._send_always)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=f"synthgen store {self.address.root}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def stop(self) -> None:
        """End the threads."""
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def end(self) -> None:
        """Send the last files and give the lease back. Raises the error that ended the thread."""
        self.stop()
        durable.watchers.remove(self._written)
        if self.error is not None:
            raise self.error
        assert self.lease is not None
        while not self._send_changed():
            pass
        self.lease.give_back(keep=bool(self.known))

    def _send_always(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                self._send_changed()
            except Exception as error:  # raised by the command's next write, or at the command's end
                self.error = self.error or error
                return
            took = time.monotonic() - began
            self._ending.wait(max(_EVERY, 10 * took))

    def _renew_always(self) -> None:
        assert self.lease is not None
        while not self._ending.wait(leases.BEAT):
            try:
                self.lease.renew()
            except Exception as error:
                self.error = self.error or error
                return

    def _written(self, path: Path) -> None:
        """`durable` calls this method after each write of this process. Raises the error of the thread, so that the
        command ends.
        """
        if not path.is_relative_to(self.folder):
            return
        if self.error is not None:
            raise self.error
        name = path.relative_to(self.folder).as_posix()
        if name in self._ledgers:
            self._send(name, stat_of(path) or (0, 0, 0))  # at once, even while a large file is being sent
        elif "ledger/" in name or name in REMOVAL or path.name == "batches.json":
            while not self._send_changed():
                pass
            if "ledger/" in name:
                self._ledgers.add(name)

    def _send_changed(self) -> bool:
        """Send and delete what changed. Returns False when a file changed meanwhile: then a further call is needed."""
        with self._sending:
            here = scan(self.folder) if self.folder.is_dir() else {}
            changed = [n for n, stat in here.items() if n not in self.known or self.known[n].stat != stat]
            changed = [n for n in changed if n not in self._ledgers]  # `_written` sends these
            gone = [n for n in self.known if n not in here]
            if not changed and not gone:
                return True
            if gone and not self._deleted_by_us():
                return True
            first = [] if any(name == REMOVAL[0] for name in (*self.known, *here)) else self._stale(changed, gone)
            journals, saved = [n for n in changed if n in REMOVAL], time.monotonic()
            try:
                for name in journals:
                    self._send(name, here[name])
                for name in sorted({*first, *gone} - set(REMOVAL), key=_place, reverse=True):
                    self._delete(name)
                if first:
                    self.save()
                for name in sorted({*changed, *(n for n in first if n in here)} - set(journals), key=_place):
                    if not self._send(name, here[name]):
                        return False
                    saved = self._save_sometimes(saved)
                for name in [n for n in gone if n in REMOVAL]:
                    self._delete(name)
            finally:
                self.save()
            return True

    def _deleted_by_us(self) -> bool:
        """Whether missing files may be deleted in the store. Raises UserError when another program has deleted the
        working folder. Returns False while the folder is missing, which a command may replace as a whole.
        """
        time.sleep(_CALM)
        there = self.folder.is_dir()
        if self._inode_of_lock() != self._lock or (self._ending.is_set() and not there):
            raise UserError(
                f"{self.folder} was deleted while this command ran; nothing was deleted in {self.address.root}",
                "give the same command again; leave the cache folder alone meanwhile",
            )
        return there

    def _inode_of_lock(self) -> int | None:
        stat = stat_of(self.address.state / ".lock")
        return stat and stat[0]

    def _save_sometimes(self, last: float) -> float:
        """Save what is known if it was last saved more than `_SAVED_EVERY` seconds ago. Returns the time of the last
        saving.
        """
        if time.monotonic() - last < _SAVED_EVERY:
            return last
        self.save()
        return time.monotonic()

    def _stale(self, changed: Iterable[str], gone: Iterable[str]) -> list[str]:
        """The objects that must be deleted before anything is sent: shards that changed, and the cards and marks that
        describe these shards or old inputs.
        """
        altered = [n for n in changed if n in self.known and rebuilds(n) and self._differs(n)]
        altered += [n for n in gone if rebuilds(n)]
        stages = {stage_of(n) for n in altered}
        marks = [n for n in self.known if stage_of(n) in stages and speaks_of_others(n)]
        return [*(n for n in altered if not n.endswith("inputs.json")), *marks]

    def _differs(self, name: str) -> bool:
        try:
            return durable.sha256(self.folder / name) != self.known[name].sha256
        except OSError:
            return True

    def _send(self, name: str, stat: Stat) -> bool:
        """Send one file. Returns False when the file is no longer as it was scanned, and nothing was sent."""
        assert self.lease is not None
        self.lease.check()
        path, known = self.folder / name, self.known.get(name)
        try:
            data = path.read_bytes() if whole(stat[1]) else None
            sha256 = durable.sha256(path) if data is None else hashlib.sha256(data).hexdigest()
        except FileNotFoundError:
            return False
        settled = name.endswith(".parquet") or rank(name)[1] == MARKS  # these files are only renamed into place
        if settled and stat_of(path) != stat:
            return False
        if known is None or known.sha256 != sha256:
            if "ledger/" in name and data is not None:  # only the last complete line of a ledger's file counts
                self.store.overwrite(name, _last_line(data))
                version = ""
            elif data is None:
                try:
                    version = self.store.send(name, path)
                except UserError:
                    if path.exists():
                        raise
                    return False  # such as a checkpoint that was deleted before it was sent
            else:
                version = self.store.write(name, data, known.version if known else None)
            known = Known(version, sha256, stat)
        self.known[name] = Known(known.version, sha256, stat)
        return True

    def _delete(self, name: str) -> None:
        assert self.lease is not None
        self.lease.check()
        self.store.delete(name)
        self.known.pop(name, None)


def _place(name: str) -> tuple[tuple[int, int], str]:
    return rank(name), name


def _by_rank(names: Iterable[str]) -> list[list[str]]:
    ranks: dict[tuple[int, int], list[str]] = {}
    for name in names:
        ranks.setdefault(rank(name), []).append(name)
    return [ranks[key] for key in sorted(ranks)]


def _last_line(data: bytes) -> bytes:
    """The last complete line of a file."""
    lines = data.split(b"\n")[:-1]
    return lines[-1] + b"\n" if lines else b""
