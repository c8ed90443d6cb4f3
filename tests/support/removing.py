"""Makes small runs with a server on this machine for tests of `synthgen remove`, and searches files for a text."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import synthgen
from support.serving import Serving, write_recipe
from synthgen import corpus
from synthgen.records import Record

SECRET = "Zanzibarish"
"""A word that occurs only in the seed q1 and in the reply to it."""


def questions(count: int = 12) -> list[dict[str, Any]]:
    """Seeds q0, q1, …; the question of q1 has the word `SECRET`."""
    return [{"id": f"q{i}", "question": f"What is {SECRET if i == 1 else f'thing {i}'}?"} for i in range(count)]


ANSWERS = {f"What is {SECRET}?": [f"{SECRET} is a word."]}


@dataclass(frozen=True)
class Made:
    """A finished run with the folder of its cache of paid replies."""

    recipe: synthgen.Recipe
    run: Path
    cache: Path

    def copy(self, folder: Path, monkeypatch: Any) -> Made:
        """A copy in a new folder, whose cache is used from now on."""
        shutil.copytree(self.run, folder / "run")
        shutil.copytree(self.cache, folder / "cache")
        monkeypatch.setenv("SYNTHGEN_CACHE", str(folder / "cache"))
        return Made(self.recipe, folder / "run", folder / "cache")


def make(
    folder: Path, server: Serving, templates: dict[str, str] | None = None, page: bool = False, **sections: Any
) -> Made:
    """Runs all stages but the training. The cache is $SYNTHGEN_CACHE, which must be set to `folder`/cache."""
    path = write_recipe(folder / "task", server.url, **sections)
    for name, text in (templates or {}).items():
        (folder / "task" / f"{name}.j2").write_text(text)
    recipe = synthgen.load_recipe(path)
    synthgen.generate(recipe, folder / "run")
    synthgen.curate(recipe, folder / "run")
    synthgen.audit(recipe, folder / "run")
    if page:
        synthgen.report(folder / "run")
    return Made(recipe, folder / "run", folder / "cache")


def rows_of(run: Path, part: str = "generated") -> dict[str, Record]:
    """The rows of a corpus of the run by their ids."""
    return {row.id: row for _, rows in corpus.records(run / part) for row in rows}


def places_of(text: str, *folders: Path) -> list[str]:
    """All files below these folders in which a text occurs, either in the bytes or in a value of a Parquet file."""
    return [str(path) for folder in folders for path in sorted(folder.rglob("*")) if _holds(path, text)]


def _holds(path: Path, text: str) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    data = path.read_bytes()
    if text.encode() in data or text.encode("utf-16-le") in data:
        return True
    return path.suffix == ".parquet" and any(text in one for one in _values(path))


def _values(path: Path) -> Iterator[str]:
    for row in pq.read_table(path).to_pylist():
        yield repr(row)
