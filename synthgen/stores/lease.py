"""The lease of a run in a store: at most one working folder writes to the run.

The lease is the object `.writer/N` with the largest N. To take the lease, a process writes the object with the next
number, which succeeds only if no object has this number yet. The owner writes the object again every `BEAT` seconds.
Another process that wants the lease watches the object for `SILENCE` seconds. If the object changes, its owner is
alive, and the other process ends with an error. No clock of another machine is read.
"""

from __future__ import annotations

import json
import secrets
import threading
import time

from synthgen.stores.objects import Raced, Store

FOLDER = ".writer"
BEAT = 10.0
SILENCE = 45.0


class Lease:
    """The lease that this process holds. `owner` names the working folder: after a kill, the same folder takes the
    lease again without waiting.
    """

    def __init__(self, store: Store, owner: str) -> None:
        self._store, self._owner = store, owner
        self.ours, number = _free(store, owner)
        self._number = number + 1
        self._beats = 0
        self._lock = threading.Lock()
        store.write(self._name(), self._content(), None)
        self._renewed = time.monotonic()
        for name in store.list(FOLDER):
            if _number(name) < self._number:
                store.delete(name)

    def renew(self, *, done: bool = False) -> None:
        """Write the object again. Raises Raced when another process has taken the lease."""
        with self._lock:
            if _last(self._store) != self._number:
                raise Raced(self._store.url)
            self._beats += 1
            self._store.overwrite(self._name(), self._content(done))
            self._renewed = time.monotonic()

    def give_back(self, *, keep: bool) -> None:
        """End the lease, so that the next process need not wait. `keep` is False if the store holds no files, so that
        the object of the lease is deleted too.
        """
        self.renew(done=True)
        if not keep:
            self._store.delete(self._name())

    def check(self) -> None:
        """Renew the lease if it is old. Call this before each write."""
        if time.monotonic() - self._renewed > SILENCE / 3:
            self.renew()

    def _name(self) -> str:
        return f"{FOLDER}/{self._number:08d}"

    def _content(self, done: bool = False) -> bytes:
        return json.dumps(
            {"owner": self._owner, "beat": self._beats, "done": done, "id": secrets.token_hex(4)}
        ).encode()


def owner_of(store: Store) -> str:
    """The working folder that held the lease last, or '' when there was none."""
    return _owner(store.read(f"{FOLDER}/{_last(store):08d}"))[0]


def _free(store: Store, owner: str) -> tuple[bool, int]:
    """Wait until the lease is free. Returns whether `owner` held it last, and its number (0 for a new run)."""
    number = _last(store)
    if not number:
        return False, 0
    name = f"{FOLDER}/{number:08d}"
    before = store.read(name)
    last, done = _owner(before)
    if last != owner and not done:
        end = time.monotonic() + SILENCE
        while time.monotonic() < end:
            time.sleep(min(1.0, SILENCE / 4))
            if store.read(name) != before or _last(store) != number:
                raise Raced(store.url)
    return last == owner, number


def _owner(content: bytes | None) -> tuple[str, bool]:
    """(the owner, whether its command ended) according to the object of a lease."""
    try:
        value = json.loads(content or b"")
        return str(value["owner"]), value["done"] is True
    except (ValueError, KeyError, TypeError):
        return "", False


def _last(store: Store) -> int:
    return max(map(_number, store.list(FOLDER)), default=0)


def _number(name: str) -> int:
    number = name.rpartition("/")[2]
    return int(number) if number.isdigit() else 0
