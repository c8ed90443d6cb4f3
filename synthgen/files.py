"""Reads files that a run wrote and that may have been changed since. In place of a file of the run, there may be JSON
of any shape, a pipe, a device or a link.

    inputs = read_object(folder / "inputs.json", "repeat the command and add --fresh")

Every problem becomes a CorpusError of one line, which names the file and what to do.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path

from synthgen.errors import CorpusError

LARGEST = 256 << 20  # bytes; the largest JSON file of a run, the metrics of a long training, has a few MB


def is_regular(path: Path) -> bool:
    """Whether `path` is a file with bytes, or a link to one. The result is False for a folder, a pipe and a device."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def check_regular(path: Path, again: str) -> None:
    """Raise CorpusError unless `path` is a file with bytes, or a link to one.

    Opening a pipe may block forever, and reading a device may never end. So call this function before a file is opened.
    """
    if is_regular(path):
        return
    try:
        there = path.is_symlink() or path.exists()
    except OSError:
        there = True
    what = "is a folder" if path.is_dir() else "is not a file that can be read" if there else "does not exist"
    raise CorpusError(f"{path} is damaged: it {what}" if there else f"{path} is missing", again)


def read_text(path: Path, again: str) -> str:
    """The text of a UTF-8 file. Raises CorpusError, with the hint `again`, when `path` is not a file of UTF-8 text."""
    check_regular(path, again)
    if path.stat().st_size > LARGEST:
        raise CorpusError(f"{path} is damaged: it has more than {LARGEST >> 20} MiB", again)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is damaged: it is not UTF-8 text ({error.reason})", again) from None


def read_json(path: Path, again: str) -> object:
    """The value of a JSON file. Raises CorpusError, with the hint `again`, when the file is damaged."""
    try:
        return parse_json(read_text(path, again))
    except ValueError as error:
        raise CorpusError(f"{path} is damaged: {error}", again) from None


def parse_json(text: str) -> object:
    """The value of a JSON document. Raises ValueError, also for values that are nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values are nested too deep") from None


def read_object(path: Path, again: str) -> dict[str, object]:
    """The value of a JSON file that holds an object. Raises CorpusError, with the hint `again`, when the file does not
    hold a JSON object.
    """
    value = read_json(path, again)
    if not isinstance(value, dict):
        raise CorpusError(f"{path} is damaged: it holds no JSON object", again)
    return value
