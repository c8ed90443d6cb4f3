"""The files that each command writes into its output folder. In its output folder, a command deletes only files that it
writes itself.

A folder named with -o can hold the user's own files. A command therefore checks the folder before it writes the first
byte, and `--fresh` deletes only files whose names match the command's `Output`:

    outputs.check(folder, CURATED, fresh)        # raises RunChanged when the command did not create the folder
    if fresh:
        outputs.discard(folder, CURATED)
    outputs.sweep(folder, CURATED)               # removes temporary files of a killed process

A command also never writes into the folder that it reads: `apart` refuses an output folder that overlaps the input.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from synthgen import durable
from synthgen.errors import RunChanged, UserError
from synthgen.files import is_regular, parse_json

SHARD = r"(train|validation|test)-\d{5,}\.parquet"
STAGES = (
    "generated",
    "ledger",
    "curated",
    "audit",
    "student",
    "hidden",
    "cache",
)  # names of folders in a run; each folder belongs to one stage

NOTICE_HEADING = b"# Attribution and obligations\n"
"""The beginning of every NOTICE.md that synthgen writes."""
_SHOWN = 3  # maximum number of files that a message names
_TEMPORARY_MODEL = re.compile(r"model-\d+")  # matches the temporary name of a folder of model weights


@dataclass(frozen=True)
class Output:
    """The files that one command writes.

    `files` and `kept` are regular expressions that match whole paths relative to the folder. `--fresh` deletes the
    files that match `files`, in the order of the expressions, and keeps the files that match `kept`. In `files`, the
    expression for the file that marks the work as finished is first. The expression for the file with the inputs is
    last, so the command still recognizes the folder after an interrupted deletion. `signs` are pairs of a glob pattern
    and a text. A folder counts as made by the command if, for one of these pairs, a file that matches the pattern
    contains the text.
    """

    command: str
    signs: tuple[tuple[str, str], ...]
    files: tuple[str, ...]
    kept: tuple[str, ...] = ()

    def names(self, path: str) -> bool:
        """Whether `path` is the path of a file that the command writes, or of a temporary file that it renames to such
        a path.
        """
        return self._writes(path) or self.temporary(path)

    def temporary(self, path: str) -> bool:
        """Whether `path` is a temporary path that the command uses while it writes or deletes a file."""
        parts = path.split("/")
        place = next((n for n, part in enumerate(parts) if part.startswith(durable.TEMPORARY)), None)
        if place is None:
            return path == ".lock"
        name = durable.ATTEMPT.sub("", parts[place].removeprefix(durable.TEMPORARY), count=1).removeprefix("gone-")
        inside = [] if _TEMPORARY_MODEL.fullmatch(name) else [name]
        below = [part.removeprefix(durable.TEMPORARY) for part in parts[place + 1 :]]
        return self._writes("/".join([*parts[:place], *inside, *below]))

    def _writes(self, path: str) -> bool:
        return any(re.fullmatch(pattern, path) for pattern in (*self.files, *self.kept))

    def begun(self, folder: Path) -> bool:
        """Whether the command created this folder, even if the command was killed."""
        for pattern, text in self.signs:
            for path in folder.glob(pattern):
                if not is_regular(path):
                    continue
                try:
                    content = path.read_text(encoding="utf-8", errors="replace")
                except OSError:
                    continue
                # a damaged JSON file also counts as a sign, because the command writes this file again
                if text in content or (path.suffix == ".json" and not _is_json(content)):
                    return True
        return False


def corpus_files(*parts: str) -> tuple[str, ...]:
    """The patterns for the files of a corpus whose shards have the companions `parts`. Data files are deleted before
    their companions.
    """
    shards = [f"{part}/{SHARD}" for part in ("data", *parts)]
    return (r"manifest\.json", r"README\.md", r"NOTICE\.md", *shards, r"inputs\.json")


GENERATED = Output(
    "synthgen generate",
    (("inputs.json", '"seeds_sha256"'), (".seed-rows", '{"counts": ')),
    (*corpus_files("logits/.+", "failures")[:-1], r"batches\.json", r"\.run-id", r"\.seed-rows", r"inputs\.json"),
)
STEPS = Output("synthgen curate", (), (r"steps/[0-9a-f]{16}/.+",))
CURATED = Output(
    "synthgen curate",
    (("inputs.json", '"generated_sha256"'),),
    (*corpus_files("rejected", "logits/.+")[:-1], *STEPS.files, r"inputs\.json"),
)
_REPORTS = (("report.json", '"findings"'), ("report.md", "# Audit: "))
AUDITED = Output(
    "synthgen audit",
    tuple((place + name, text) for place in ("", "[0-9a-f]" * 16 + "/") for name, text in _REPORTS),
    (r"([0-9a-f]{16}/)?report\.(json|md)", r"([0-9a-f]{16}/)?attribution\.md"),
)
ALLOWED = Output(
    "synthgen audit --keep-allowed",
    (("curated/inputs.json", '"audited_sha256"'),),
    (
        *(f"curated/{pattern}" for pattern in corpus_files("rejected", "logits/.+")[:-1]),
        *(f"audit/{pattern}" for pattern in AUDITED.files),
        r"recipe\.yaml",
        r"curated/inputs\.json",
    ),
)


def check(folder: Path, output: Output, fresh: bool) -> None:
    """Raise RunChanged when `folder` is not empty and was not created by the command of `output`.

    With `fresh`, RunChanged is also raised when the folder holds a file that the command does not write.
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
    """Delete every file that the command wrote, except those that match `output.kept`. Call `check` first. The lock
    file is not deleted, and a NOTICE.md of the user stays.
    """
    there = sorted(files_in(folder))
    for pattern in output.files:
        parents = set()
        for path in there:
            if re.fullmatch(pattern, path) and not _is_own_notice(folder / path):
                (folder / path).unlink()
                parents.add((folder / path).parent)
        for parent in parents:
            durable.fsync_folder(parent)
        for parent in parents:
            _remove_empty(parent, folder)


def sweep(folder: Path, output: Output) -> None:
    """Remove the temporary files that a killed process of the command left, and no other files."""

    def ours(path: Path) -> bool:
        below = [path] if path.is_symlink() or not path.is_dir() else [path / name for name in files_in(path)]
        return all(output.temporary(each.relative_to(folder).as_posix()) for each in below)

    durable.sweep(folder, ours)


@contextmanager
def locked(folder: Path, source: Path) -> Iterator[None]:
    """Lock the output folder of a command that reads the corpus `source`. If the output folder and the corpus are in
    the same run, the run is locked too, as `generate` and `run` lock it. Call `check` and `apart` first, so that no
    lock is written elsewhere.
    """
    with ExitStack() as held:
        if folder.absolute().parent.resolve() == source.absolute().parent.resolve():
            held.enter_context(durable.lock(source.absolute().parent))
        held.enter_context(durable.lock(folder))
        yield


def files_in(folder: Path) -> Iterator[str]:
    """Yield the paths, relative to `folder`, of all files and links below it. Links are not followed."""
    for where, folders, files in os.walk(folder):
        place = Path(where)
        links = [name for name in folders if (place / name).is_symlink()]
        for name in sorted([*files, *links]):
            yield (place / name).relative_to(folder).as_posix()


def apart(folder: Path, source: Path, own: str = "", nested: bool = False) -> None:
    """Raise UserError when `folder` equals, contains or is inside `source`. If `source` is a stage's folder, also raise
    UserError when `folder` is inside the folder of another stage of the same run.

    `own` is the name of the folder that this command makes in a run, such as `curated`. `folder` may be the run's
    folder with the name `own`. If `nested` is true, `folder` may also be inside that folder. Links are resolved first.
    """
    not_around(folder, source)
    taken = [source, *stages(source, own)]
    if own and not nested and folder.resolve() != (source.absolute().parent / own).resolve():
        taken.append(source.absolute().parent / own)
    not_inside(folder, taken)


def not_around(folder: Path, source: Path) -> None:
    """Raise UserError when `folder` equals or contains `source`, which the command reads. Links are resolved first."""
    where = folder.resolve()
    # check the folder to which `source` leads and, in case `source` is a link, also the path of the link
    for read in (source.resolve(), source.absolute().parent.resolve() / source.name):
        if where == read:
            raise UserError(f"{folder} is an input of this command", "give another folder with -o")
        if where in read.parents:
            raise UserError(
                f"{folder} contains {source}, which is an input of this command", "give another folder with -o"
            )


def not_inside(folder: Path, taken: Iterable[Path]) -> None:
    """Raise UserError when `folder` equals or is inside one of `taken`. Links are resolved first."""
    where = folder.resolve()
    for other in taken:
        if where == other.resolve() or other.resolve() in where.parents:
            word = "is" if where == other.resolve() else "lies in"
            raise UserError(
                f"{folder} {word} {other}, which is not an output folder of this command", "give another folder with -o"
            )


def stages(folder: Path, own: str) -> list[Path]:
    """The folders of all stages of a run except `own`, if `folder` is the folder of a stage, such as RUN/curated.
    Otherwise the result is [].
    """
    run = folder.absolute().parent
    return [run / name for name in STAGES if name != own] if folder.absolute().name in STAGES else []


def _remove_empty(folder: Path, top: Path) -> None:
    while folder != top:
        try:
            folder.rmdir()
        except OSError:  # the folder is not empty
            return
        folder = folder.parent


def _is_own_notice(path: Path) -> bool:
    """Whether a file is a NOTICE.md that the user wrote."""
    return path.name == "NOTICE.md" and is_regular(path) and not path.read_bytes().startswith(NOTICE_HEADING)


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True
