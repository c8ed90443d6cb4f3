"""The objects of a store below one URL, by their names relative to it. The library fsspec reads and writes them.

Failed requests are repeated. A new object is written only if no object has its name. An object is replaced only if it
has not changed since this process last saw it, if the kind of store has such a condition.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from synthgen import durable
from synthgen.errors import SynthgenError, UserError
from synthgen.stores.kinds import (
    CONFLICT,
    KINDS,
    MISSING,
    NO_CREDENTIALS,
    REFUSED,
    cause_of,
    connect,
    kind_of,
    reason,
    version_of,
)

T = TypeVar("T")

_PAUSES = (0.5, 2.0, 5.0, 15.0)  # seconds before each repetition of a request; fsspec repeats some requests itself
_WHOLE = 64 << 20  # bytes; larger files are sent in parts, and replaced without a condition


class Raced(UserError):
    """Another process wrote an object that this process was about to write."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"{url}: another process writes to this run", "end one of the two commands, and repeat the other"
        )


class Entry(NamedTuple):
    """One object: its size in bytes, and a text that changes whenever the object is replaced."""

    bytes: int
    version: str


class Store:
    """The objects below `url`. Raises UserError when the package for this kind of store is missing."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._kind = kind_of(url)
        scheme = url.partition("://")[0]
        try:
            self._fs, self._root = connect(url)
        except ImportError:
            raise UserError(
                f"{scheme}:// needs the package '{self._kind.package}', which is not installed", self._kind.install
            ) from None
        except ValueError as error:
            if scheme in KINDS:
                raise UserError(f"{url} cannot be opened: {reason(error)}", self._kind.hint) from None
            raise UserError(
                f"synthgen does not know stores of the kind {scheme}://", "give s3://, gs://, az://, hf:// or a folder"
            ) from None

    def list(self, folder: str = "") -> dict[str, Entry]:
        """All objects below the URL, or below a folder of the URL. A single object at the URL has the name ''."""
        entries = {}
        for path, info in self._tried(lambda: self._found(self._path(folder))).items():
            name = path[len(self._root) :].lstrip("/")
            if info["type"] == "file" and not path.endswith("/"):
                entries[self._checked(name)] = Entry(int(str(info["size"])), version_of(info))
        return entries

    def _found(self, path: str) -> dict[str, dict[str, object]]:
        """What fsspec says about the objects at and below a path."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.find(path, detail=True) or [path]
        except FileNotFoundError:
            return {}
        if not isinstance(found, dict):  # adlfs says nothing about a single object, and overlooks it after an error
            return {path: info} if (info := self._info(path)) else {}
        # http:// lists no details. adlfs lists the mark of a folder as an empty file.
        return {name: info if info.get("size") else self._fs.info(name) for name, info in found.items()}

    def _info(self, path: str) -> dict[str, object] | None:
        try:
            info: dict[str, object] = self._fs.info(path)
        except FileNotFoundError:
            return None
        return info

    def is_object(self) -> bool:
        """Whether there is one object at the URL, such as a file of rows."""

        def act() -> bool:
            self._fs.invalidate_cache()
            info = self._info(self._root)  # fsspec's function `isfile` takes every error for a no
            return info is not None and info["type"] == "file"

        return self._tried(act)

    def read(self, name: str) -> bytes | None:
        """The bytes of an object, or None when there is none."""
        try:
            data: bytes = self._tried(lambda: self._fs.cat_file(self._path(name)), may_miss=True)
        except FileNotFoundError:
            return None
        return data

    def sha256(self, name: str) -> str:
        """The hex digest of an object's bytes, which are not kept in memory."""

        def act() -> str:
            self._fs.invalidate_cache()
            with self._fs.open(self._path(name), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

        return self._tried(act)

    def fetch(self, name: str, path: Path, size: int) -> None:
        """Copy an object of `size` bytes to a file, completely or not at all."""
        durable.make_folder(path.parent)
        temporary = path.with_name(durable.TEMPORARY + path.name)

        def act() -> None:
            temporary.unlink(missing_ok=True)
            self._fs.get_file(self._path(name), str(temporary))
            if temporary.stat().st_size != size:
                raise OSError(f"{temporary.stat().st_size} of {size} bytes came")

        self._tried(act)
        durable.publish(temporary, path)

    def write(self, name: str, data: bytes, version: str | None) -> str:
        """Write an object. `version` is the version that it replaces, or None for a new object. Returns the new
        version. Raises Raced when there is another object.
        """
        try:
            answer = self._tried(lambda: self._kind.write(self._fs, self._path(name), data, version))
            if isinstance(answer, dict):
                return version_of(answer)
        except FileExistsError:
            # an earlier attempt may have succeeded although its reply was lost
            if self.read(name) != data:
                raise Raced(self.url) from None
        return self.version(name)

    def send(self, name: str, path: Path) -> str:
        """Copy a file to an object of any size, which is replaced. Returns the new version."""
        self._tried(lambda: self._fs.put_file(str(path), self._path(name)))
        return self.version(name)

    def create(self, name: str, path: Path) -> None:
        """Copy a file to a new object of any size. Raises Raced when there is another object."""
        if whole(path.stat().st_size):
            self.write(name, path.read_bytes(), None)
            return
        try:
            self._tried(lambda: self._fs.put_file(str(path), self._path(name), mode="create"))
        except FileExistsError:
            if self.sha256(name) != durable.sha256(path):
                raise Raced(self.url) from None

    def overwrite(self, name: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        self._tried(lambda: self._fs.pipe_file(self._path(name), data))

    def delete(self, name: str) -> None:
        """Delete an object. It may be gone already."""
        with suppress(FileNotFoundError):
            self._tried(lambda: self._fs.rm_file(self._path(name)), may_miss=True)

    def version(self, name: str) -> str:
        """The current version of an object."""

        def act() -> str:
            self._fs.invalidate_cache()
            return version_of(self._fs.info(self._path(name)))

        return self._tried(act)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _checked(self, name: str) -> str:
        """`name`, unless it would lead out of the folder into which the object is copied."""
        if name and (name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/"))):
            raise UserError(f"{self.url} holds an object with the name '{name}', which is no path", "delete the object")
        return name

    def _tried(self, act: Callable[[], T], *, may_miss: bool = False) -> T:
        """The result of `act`, which is repeated when it fails for a reason that may pass. With `may_miss`, raises
        FileNotFoundError when there is no such object.
        """
        for pause in (*_PAUSES, None):
            try:
                return act()
            except SynthgenError:
                raise
            except Exception as error:  # each store has its own classes of errors
                cause = cause_of(error)
                if cause == CONFLICT:
                    raise FileExistsError from None
                if cause == MISSING and may_miss:
                    raise FileNotFoundError from None
                if cause or pause is None:
                    raise self._explained(cause, reason(error)) from None
            time.sleep(pause * random.uniform(0.5, 1.5))
        raise AssertionError

    def _explained(self, cause: str, why: str) -> UserError:
        if cause == MISSING:
            message = f"{self.url}: the bucket is missing, or an object was deleted meanwhile"
            return UserError(message, "make the bucket, or give the same command again")
        if cause == REFUSED:
            return UserError(f"{self.url}: access is refused: {why}", self._kind.hint)
        if cause == NO_CREDENTIALS:
            return UserError(f"{self.url}: no credentials: {why}", self._kind.hint)
        return UserError(
            f"{self.url} cannot be reached: {why}",
            "give the same command again when it can be reached; finished work is kept",
        )


def whole(size: int) -> bool:
    """Whether a file of this size is sent as one object with a condition."""
    return size <= _WHOLE
