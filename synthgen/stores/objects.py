"""The objects of a store below one URL, by their names relative to it. The library fsspec reads and writes them.

Failed requests are repeated. A new object is written only if no object has its name. On S3, an object is replaced only
if it has not changed since this process last saw it.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import fsspec

from synthgen import durable
from synthgen.errors import SynthgenError, UserError

T = TypeVar("T")

_PAUSES = (0.5, 2.0, 5.0, 15.0)  # seconds before each repetition of a request; fsspec repeats some requests itself
_WHOLE = 64 << 20  # bytes; larger files are sent in parts, without a condition
_PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "hf": "huggingface_hub", "http": "aiohttp", "https": "aiohttp",
}  # fmt: skip
_CONDITION: dict[str, Callable[[str], dict[str, str]]] = {
    "s3": lambda version: {"IfMatch": version},
    "s3a": lambda version: {"IfMatch": version},
}
"""Arguments with which a store replaces an object only if it has this version."""
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError")
_HINT = "set AWS_PROFILE or AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS or HF_TOKEN; see docs/scale.md"


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
        self.scheme = url.partition("://")[0]
        package = _PACKAGES.get(self.scheme, self.scheme)
        try:
            self._fs, self._root = fsspec.url_to_fs(url)
        except ImportError:
            raise UserError(
                f"{self.scheme}:// needs the package '{package}', which is not installed",
                "pip install 'synthgen-distill[stores]'" if package == "s3fs" else f"pip install {package}",
            ) from None
        except ValueError:
            raise UserError(
                f"synthgen does not know stores of the kind {self.scheme}://", "give s3://, gs://, hf:// or a folder"
            ) from None

    def list(self, folder: str = "") -> dict[str, Entry]:
        """All objects below the URL, or below a folder of the URL. A single object at the URL has the name ''."""

        def act() -> dict[str, dict[str, object]]:
            self._fs.invalidate_cache()
            try:
                found: dict[str, dict[str, object]] = self._fs.find(self._path(folder), detail=True)
            except FileNotFoundError:
                return {}
            return {path: info or self._fs.info(path) for path, info in found.items()}  # http:// lists no details

        entries = {}
        for path, info in self._tried(act).items():
            name = path[len(self._root) :].lstrip("/")
            if info["type"] == "file" and not path.endswith("/"):
                entries[self._checked(name)] = Entry(int(str(info["size"])), _version(info))
        return entries

    def is_object(self) -> bool:
        """Whether there is one object at the URL, such as a file of rows."""
        return bool(self._tried(lambda: self._fs.isfile(self._root)))

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
        condition = _CONDITION.get(self.scheme, lambda version: {})
        more = {"mode": "create"} if version is None else condition(version)
        try:
            answer = self._tried(lambda: self._fs.pipe_file(self._path(name), data, **more))
            if isinstance(answer, dict) and "ETag" in answer:
                return str(answer["ETag"])
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
        else:
            self.send(name, path)

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
            return _version(self._fs.info(self._path(name)))

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
            except (FileExistsError, SynthgenError):
                raise
            except FileNotFoundError:
                if may_miss:
                    raise
                raise UserError(
                    f"{self.url}: the bucket is missing, or an object was deleted meanwhile",
                    "make the bucket, or give the same command again",
                ) from None
            except PermissionError as error:
                raise UserError(f"{self.url}: access is refused: {_first_line(error)}", _HINT) from None
            except Exception as error:  # each store has its own classes of errors
                if _is_conflict(error):
                    raise FileExistsError from None
                if type(error).__name__ in _CREDENTIALS:
                    raise UserError(f"{self.url}: no credentials: {_first_line(error)}", _HINT) from None
                if pause is None:
                    raise UserError(
                        f"{self.url} cannot be reached: {_first_line(error)}",
                        "give the same command again when it can be reached; finished work is kept",
                    ) from None
            time.sleep(pause * random.uniform(0.5, 1.5))
        raise AssertionError


def whole(size: int) -> bool:
    """Whether a file of this size is sent as one object with a condition."""
    return size <= _WHOLE


def _version(info: dict[str, object]) -> str:
    """A text that is different for each content of an object. Each kind of store has its own key for this text."""
    for key in ("generation", "ETag", "etag", "blob_id", "created", "mtime", "LastModified"):
        if (value := info.get(key)) is not None:  # some stores give a time as a number in lists alone
            return str(value.timestamp() if isinstance(value, datetime) else value)
    return str(info["size"])


def _is_conflict(error: Exception) -> bool:
    """Whether a store refused a write because of its condition. S3 answers 409 (ConditionalRequestConflict) while an
    earlier attempt of the same write is still at work. Such a write is repeated, as after any other failure.
    """
    text = f"{type(error).__name__} {error} {error.__cause__}"
    return any(word in text for word in ("PreconditionFailed", "conditionNotMet", "(412)"))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
