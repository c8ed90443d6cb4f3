"""What each command writes into its output folder, and so the only files that it may delete there.

A folder named with -o can hold files of its user. A command therefore checks the folder before it writes the first
byte, and `--fresh` deletes only files whose names are in the command's table:

    outputs.check(folder, CURATED, fresh)        # raises RunChanged when the folder is somebody else's
    if fresh:
        outputs.discard(folder, CURATED)
    outputs.sweep(folder, CURATED)               # what a killed process left under temporary names

A command also never writes into what it reads: `apart` refuses an output folder that overlaps its source.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from synthgen import durable
from synthgen.errors import RunChanged, UserError

SHARD = r"(train|validation|test)-\d{5,}\.parquet"
STAGES = (
    "generated",
    "curated",
    "audit",
    "student",
    "hidden",
    "cache",
)  # folders of a run that belong to one stage each

_SHOWN = 3  # files that a message names
_TEMPORARY_MODEL = re.compile(r"model-\d+")  # a folder of weights on its way to its name


@dataclass(frozen=True)
class Output:
    """The files of one command.

    `files` and `kept` are regular expressions of whole paths relative to the folder. `files` stand in the order in
    which they are deleted: first what says that the work is finished, last what says what it was begun with, so that
    a deletion that is cut short leaves a folder which the command can still read. `kept` outlive `--fresh`. A folder
    is the command's if one of `signs`, a file and a text in it, is there.
    """

    command: str
    signs: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    kept: tuple[str, ...] = ()

    def names(self, path: str) -> bool:
        """Whether the command writes a file of this path, or one that gets this name when it is whole."""
        return self._writes(path) or self.temporary(path)

    def temporary(self, path: str) -> bool:
        """Whether the path is a name under which the command writes, or deletes, one of its files."""
        parts = path.split("/")
        place = next((n for n, part in enumerate(parts) if part.startswith(durable.TEMPORARY)), None)
        if place is None:
            return path == ".lock"
        name = parts[place].removeprefix(durable.TEMPORARY).removeprefix("gone-")
        inside = [] if _TEMPORARY_MODEL.fullmatch(name) else [name]
        return self._writes("/".join([*parts[:place], *inside, *parts[place + 1 :]]))

    def _writes(self, path: str) -> bool:
        return any(re.fullmatch(pattern, path) for pattern in (*self.files, *self.kept))

    def begun(self, folder: Path) -> bool:
        """Whether the command, or a process of it that was killed, made this folder."""
        for name, text in self.signs:
            try:
                content = (folder / name).read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if text in content or (name.endswith(".json") and not _is_json(content)):  # a damaged one is made anew
                return True
        return False


def corpus_files(*parts: str) -> tuple[str, ...]:
    """Patterns of a corpus folder whose shards have these companions; the data file is deleted before them."""
    shards = [f"{part}/{SHARD}" for part in ("data", *parts)]
    return (r"manifest\.json", r"README\.md", *shards, r"inputs\.json")


GENERATED = Output(
    "synthgen generate",
    (("inputs.json", '"seeds_sha256"'),),
    (*corpus_files("logits/.+", "failures")[:-1], r"batches\.json", r"\.run-id", r"\.seed-rows", r"inputs\.json"),
)
STEPS = Output("synthgen curate", (), (r"steps/[0-9a-f]{16}/.+",))
CURATED = Output(
    "synthgen curate",
    (("inputs.json", '"generated_sha256"'),),
    (*corpus_files("rejected")[:-1], *STEPS.files, r"inputs\.json"),
)
AUDITED = Output(
    "synthgen audit",
    (("report.json", '"findings"'), ("report.md", "# Audit: ")),
    (r"([0-9a-f]{16}/)?report\.(json|md)", r"([0-9a-f]{16}/)?attribution\.md"),
)


def check(folder: Path, output: Output, fresh: bool) -> None:
    """Raise RunChanged when `folder` is not empty and `output`'s command did not begin it.

    With `fresh`, also when it holds any file that the command does not write: such a file would have been deleted.
    """
    if folder.exists() and not folder.is_dir():
        raise RunChanged(f"{folder} is a file", "give a folder with -o")
    begun = output.begun(folder)
    if begun and not fresh:
        return
    known = output.names if begun else output.temporary
    others = list(islice((path for path in files_in(folder) if not known(path)), _SHOWN + 1))
    if not others:
        return
    some = ", ".join(others[:_SHOWN]) + (" and more" if len(others) > _SHOWN else "")
    raise RunChanged(
        f"{folder} holds {some}, which `{output.command}` did not make" + ("; nothing is deleted" if fresh else ""),
        "give another folder with -o" + (", or move these files away" if begun else ""),
    )


def discard(folder: Path, output: Output) -> None:
    """Delete every file that the command made, but for `kept`; `check` goes first. The lock stays."""
    there = sorted(files_in(folder))
    for pattern in output.files:
        parents = set()
        for path in there:
            if re.fullmatch(pattern, path):
                (folder / path).unlink()
                parents.add((folder / path).parent)
        for parent in parents:
            durable.fsync_folder(parent)
        for parent in parents:
            _remove_empty(parent, folder)


def sweep(folder: Path, output: Output) -> None:
    """Remove what a killed process of the command left under temporary names, and nothing else."""

    def ours(path: Path) -> bool:
        below = [path] if path.is_symlink() or not path.is_dir() else [path / name for name in files_in(path)]
        return all(output.temporary(each.relative_to(folder).as_posix()) for each in below)

    durable.sweep(folder, ours)


def files_in(folder: Path) -> Iterator[str]:
    """Paths, relative to `folder`, of the files and links below it. Links are not followed."""
    for where, folders, files in os.walk(folder):
        place = Path(where)
        links = [name for name in folders if (place / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (place / name).relative_to(folder).as_posix()


def apart(folder: Path, source: Path, own: str = "", nested: bool = False) -> None:
    """Raise UserError when `folder` is, holds or lies in `source`, or lies in another stage's folder of its run.

    If `source` is a stage's folder, `own` is the one that the command makes. A folder below that is one that the
    command makes itself if `nested`, and refused otherwise. Links are resolved first.
    """
    not_around(folder, source)
    taken = [source, *stages(source, own)]
    if own and not nested and folder.resolve() != (source.absolute().parent / own).resolve():
        taken.append(source.absolute().parent / own)
    not_inside(folder, taken)


def not_around(folder: Path, source: Path) -> None:
    """Raise UserError when `folder` is or holds `source`, which the command reads. Links are resolved first."""
    where = folder.resolve()
    for read in (source.resolve(), source.absolute().parent.resolve() / source.name):  # the second: a link's own place
        if where == read:
            raise UserError(f"{folder} is what this command reads", "give another folder with -o")
        if where in read.parents:
            raise UserError(f"{folder} holds {source}, which this command reads", "give another folder with -o")


def not_inside(folder: Path, taken: Iterable[Path]) -> None:
    """Raise UserError when `folder` is or lies in one of `taken`. Links are resolved first."""
    where = folder.resolve()
    for other in taken:
        if where == other.resolve() or other.resolve() in where.parents:
            word = "is" if where == other.resolve() else "lies in"
            raise UserError(f"{folder} {word} {other}, which is for other files", "give another folder with -o")


def stages(folder: Path, own: str) -> list[Path]:
    """Where `folder` is a stage's folder of a run: those of all stages but `own`."""
    run = folder.absolute().parent
    return [run / name for name in STAGES if name != own] if folder.absolute().name in STAGES else []


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top:
        try:
            folder.rmdir()
        except OSError:  # it is not empty
            return
        folder = folder.parent


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
