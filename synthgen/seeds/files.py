"""Finds the files of rows at a path, and opens them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import IO

from synthgen.errors import RecipeError

SUFFIXES = (".jsonl", ".csv", ".parquet", ".ndjson", ".tsv")
"""Suffixes of files of rows, in lower case. `.ndjson` is another name for `.jsonl`."""

_IN_PLACE = ".parquet"  # a format that has its own compression


def _zstd(path: str) -> IO[bytes]:
    import pyarrow as pa

    return io.BufferedReader(pa.input_stream(path, compression="zstd"))


def _gzip(path: str) -> IO[bytes]:
    return io.BufferedReader(gzip.GzipFile(path))


_OPENERS: dict[str, Callable[[str], IO[bytes]]] = {
    ".gz": _gzip,
    ".bz2": partial(bz2.open, mode="rb"),
    ".xz": partial(lzma.open, mode="rb"),
    ".zst": _zstd,
}

# Files that may lie beside the files of rows and hold no rows. A folder with any other file is refused, because that
# file may hold rows.
_DOCUMENTS = (".md", ".rst", ".html", ".pdf", ".py", ".ipynb", ".sh", ".yaml", ".yml", ".toml", ".cff", ".bib", ".j2")
_DOCUMENT_NAMES = ("readme", "license", "licence", "notice", "copying", "authors", "changelog", "citation")
_NAMED = 5  # number of files that a message names


def split_name(name: str) -> tuple[str, str]:
    """(format, compression) of a file by its name: two suffixes in lower case, such as (".jsonl", ".gz"). The second
    suffix is empty for a file without compression. Both suffixes are empty for a file whose format is not supported.
    """
    kind, packed = suffixes(name)
    return (kind, packed) if kind in SUFFIXES and not (packed and kind == _IN_PLACE) else ("", "")


def suffixes(name: str) -> tuple[str, str]:
    """The suffix of a file's name and the suffix of its compression, in lower case, such as (".json", ".gz"). The
    second suffix is empty for a file without compression.
    """
    path = PurePath(name.lower())
    packed = path.suffix if path.suffix in _OPENERS else ""
    return (PurePath(path.stem).suffix if packed else path.suffix), packed


def is_readable(path: Path) -> bool:
    """Whether the file is a file of rows, by its name."""
    return split_name(path.name)[0] != ""


def has_rows(folder: Path) -> bool:
    """Whether the path is a folder that has a file of rows at any depth."""
    return folder.is_dir() and any(is_readable(path) for path in walk(folder))


def row_files(path: Path) -> list[Path]:
    """The files of rows at `path`: the file itself, or the files in the folder at any depth, in the order of their
    names. Names that begin with a dot are left out.

    Raises RecipeError when there is no file of rows, or when the folder has a file that may hold rows but cannot be
    read. A pipe, a device or a socket is not read.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.exists():
        raise RecipeError(f"seed file '{path}' does not exist", "correct seeds.path in the recipe")
    if not path.is_file():
        raise RecipeError(f"'{path}' is not a file or a folder", "give a regular file: it is read more than once")
    if not is_readable(path):
        raise RecipeError(f"seed file '{path}' has an unknown format", f"use one of {', '.join(SUFFIXES)}{_json(path)}")
    return [path]


def _in_folder(folder: Path) -> list[Path]:
    files, unread = [], []
    for path in sorted(walk(folder)):
        if is_readable(path) and path.is_file():
            files.append(path)
        elif not (path.is_file() and is_document(path)):
            unread.append(path)
    if unread:
        names = ", ".join(str(path.relative_to(folder)) for path in unread[:_NAMED])
        more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
        raise RecipeError(
            f"folder '{folder}' has files that are not read: {names}{more}",
            f"convert them to one of {', '.join(SUFFIXES)}{_json(*unread)}, or move them to another folder",
        )
    if not files:
        raise RecipeError(f"no seeds in folder '{folder}'", f"it must hold files of {', '.join(SUFFIXES)}")
    return files


def _json(*paths: Path) -> str:
    """The text that is added to a hint about JSON files."""
    return " (JSONL has one JSON object in each line)" if any(p.suffix.lower() == ".json" for p in paths) else ""


def is_document(path: Path) -> bool:
    """Whether the file, by its name, describes the rows of its folder and holds no rows itself."""
    return path.suffix.lower() in _DOCUMENTS or path.name.lower().split(".")[0] in _DOCUMENT_NAMES


def walk(folder: Path) -> Iterator[Path]:
    """The paths of all files below a folder, at any depth. Links to folders are followed, and each folder is read
    once.
    """
    seen: set[str] = set()

    def fail(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(root, name) for name in names if not name.startswith("."))


def opened(path: Path) -> IO[bytes]:
    """Open a text file for reading. A compressed file is decompressed while it is read."""
    packed = path.suffix.lower()
    return _OPENERS[packed](str(path)) if packed in _OPENERS else path.open("rb")
