"""Writes that survive SIGKILL and power loss: write under a temporary name, fsync, rename, fsync the folder.

A reader sees the old file, the new file or no file, but never a partly written file. `lock` keeps a second process out
of a folder. `sweep` removes the temporary files of a killed process.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

from synthgen.errors import UserError

TEMPORARY = ".tmp-"
_attempt = ""  # the beginning of the names of this process's temporary files; see `attempt`
ATTEMPT = re.compile(r"^attempt-[0-9a-f]+-")
"""The text that `attempt` puts into temporary names after TEMPORARY."""

watchers: list[Callable[[Path], None]] = []
"""Functions that are called with the path of each file that this process has written. For example, `synthgen.stores`
sends these files to a store.
"""


def cache_folder() -> Path:
    """The folder for data that is kept between runs: $SYNTHGEN_CACHE, or else `synthgen` in the user's cache folder."""
    if "SYNTHGEN_CACHE" in os.environ:
        return Path(os.environ["SYNTHGEN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "synthgen"


def attempt(number: str) -> None:
    """Give the temporary files of this process their own names. `number` is hexadecimal. These names are needed where a
    second process may write the same file at the same time. This happens on a cluster that wrongly takes the first
    process for dead.
    """
    global _attempt
    _attempt = f"attempt-{number}-"


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, completely or not at all."""
    with new_version(path) as file:
        file.write(data)


@contextmanager
def new_version(path: Path) -> Iterator[BinaryIO]:
    """A file for writing, which gets the name `path` at the end of the block. If the block fails, `path` stays as it
    was.
    """
    make_folder(path.parent)
    temporary = path.with_name(TEMPORARY + _attempt + path.name)
    try:
        with new_file(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        temporary.unlink(missing_ok=True)  # the disk may be full, so free the space
        # the OSError of a write does not name the file, which the user needs to know
        raise named(error, path) from None
    os.replace(temporary, path)
    fsync_folder(path.parent)
    written(path)


def named(error: OSError, path: Path) -> OSError:
    """The error with the name of the file. An error without a number, as libraries raise it, keeps its text."""
    return OSError(error.errno, error.strerror or str(error), str(path))


def written(path: Path) -> None:
    """Tell the watchers that a file or folder has been written. Raises their errors."""
    for watch in watchers:
        watch(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 with `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON with a final newline. Keys keep their order. Surrogates, which UTF-8 lacks, are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def new_file(path: Path) -> BinaryIO:
    """Open a new file for writing. If there is already something at `path`, for example from a killed process, it is
    removed first.

    A link is never followed, because it may lead to a file outside the folder, which would be overwritten.
    """
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb")


def new_folder(folder: Path) -> None:
    """Make a temporary folder and its parents. If the folder exists, its files stay. If a link has the folder's name,
    the link is removed and not followed.
    """
    if folder.is_symlink():
        folder.unlink()
    make_folder(folder)


def lock_file(folder: Path) -> IO[str]:
    """Open the file `.lock` in `folder` for reading and writing. Raises UserError when `.lock` is a link, or not a
    file.
    """
    path = folder / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise _no_lock(path) from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _no_lock(path)
    return os.fdopen(handle, "r+")


def _no_lock(path: Path) -> UserError:
    return UserError(f"{path} is not a lock file of synthgen, so nothing is written", "move it away")


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents. Fsync the parent of each new folder, so that the folders survive a power
    loss.
    """
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Fsync `folder`, so that renames inside it survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(temporary: Path, final: Path) -> None:
    """Rename a finished temporary file or folder to its final name, so that the rename survives a power loss. If a file
    or folder already has the final name, it is replaced.
    """
    for path in [temporary, *sorted(temporary.rglob("*"))]:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            fsync_folder(path)
    if final.is_dir():
        remove(final)
    os.replace(temporary, final)
    fsync_folder(final.parent)
    written(final)


def remove(path: Path) -> None:
    """Delete a file or folder. The file or folder is renamed first, so readers never see it partly deleted."""
    if not path.exists() and not path.is_symlink():
        return
    gone = _gone(path)
    _delete(gone)
    os.replace(path, gone)
    fsync_folder(path.parent)
    _delete(gone)


def _gone(path: Path) -> Path:
    return path.absolute().with_name(TEMPORARY + "gone-" + path.name)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path, ours: Callable[[Path], bool] = lambda path: True) -> None:
    """Remove the temporary files that a killed process left anywhere below `folder`.

    Temporary files for which `ours` returns False are kept. If a killed process had begun to delete `folder` itself
    with `remove`, the rest of it is deleted too.
    """
    _delete(_gone(folder))
    if folder.is_dir():
        for path in list(folder.rglob(TEMPORARY + "*")):
            if ours(path):
                _delete(path)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex sha256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(_encode(value).encode("utf-8", "surrogatepass")).hexdigest()


_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def writes() -> bool:
    """Whether this process writes files. `torchrun` and `accelerate launch` start several processes. Only the process
    with rank 0 writes files.
    """
    return os.environ.get("RANK", "0") == "0"


def one_process(command: str) -> None:
    """Raise UserError when a launcher such as `torchrun` has started several processes, because each of them would do
    all the work of `command`.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1:
        raise UserError(
            f"`{command}` runs in one process, but {count} were started",
            "start it without `torchrun` or `accelerate launch`",
        )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock `folder` for this thread. The kernel releases the lock when the process ends for any reason.

    A thread that holds the lock may lock the folder again: the functions of stages lock the folders in which they
    write, and also run inside functions that hold these locks.
    """
    make_folder(folder)
    key = (str(folder.resolve()), os.getpid(), threading.get_ident())
    if key in _held:
        yield
        return
    with lock_file(folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = "".join(filter(str.isdigit, file.read(20))) or "unknown"
            raise UserError(
                f"{folder}: another process (pid {owner}) is writing here",
                "wait until that process ends, or give another folder with -o",
            ) from None
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)


_held: set[tuple[str, int, int]] = set()
"""The folders that threads have locked: (path, process, thread)."""
