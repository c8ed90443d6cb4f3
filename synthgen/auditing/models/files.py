"""Reads the lines of a test set, and refuses lines of another form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from synthgen.errors import UserError
from synthgen.files import is_regular


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, from 1. Raises UserError when the file cannot be read, or when a
    line is empty or not UTF-8.
    """
    if not is_regular(path):
        raise UserError(f"there is no file {path}", "name the files of the test set in the recipe under audit.models")
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            refuse(path, number, "an empty line")
        try:
            yield number, line.decode().strip()
        except UnicodeDecodeError:
            refuse(path, number, "not UTF-8 text")


def refuse(path: Path, number: int, why: str) -> NoReturn:
    """Raise UserError: line `number` of the file has a wrong form."""
    raise UserError(f"{path}, line {number}: {why}", "get the file again from the test set's own repository")
