"""A corpus: a folder of Parquet shards that is also a valid Hugging Face dataset repository.

    README.md  manifest.json  inputs.json  data/<split>-NNNNN.parquet
    generated/: logits/<teacher>/<same names>  failures/<same names>     curated/: rejected/<same names>

A shard holds the rows of a contiguous range of requests of one split. The data file of a shard lies in data/. The other
files of a shard, in logits/, failures/ and rejected/, are the companions of the data file. The companions are written
before the data file. Renaming the data file to its final name commits the shard. The data file holds the sha256 of each
companion, so an altered or exchanged companion is detected even before there is a manifest. `inputs.json` holds the
inputs from which the corpus is made, such as the recipe's settings. `manifest.json` is written after all shards. The
manifest lists every file of every shard with its number of rows, its size in bytes and its sha256. The progress of an
unfinished corpus is determined from its files; no counter is stored.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import durable, logits
from synthgen.cards import write_dataset_card
from synthgen.errors import CorpusError, RunChanged
from synthgen.files import is_regular, parse_json, read_object
from synthgen.manifest import Facts, FileEntry, Kind, Manifest, from_json, make
from synthgen.outputs import SHARD
from synthgen.parquet import REPAIR, check_columns, metadata, read, read_batches, read_columns, read_shard, scan
from synthgen.recipe import differences
from synthgen.records import SCHEMA, SPLITS, Record, from_rows
from synthgen.removed import refuse_half

__all__ = [
    "batches",
    "check_columns",
    "check_file",
    "claim",
    "commit",
    "committed",
    "damaged",
    "discard",
    "discard_damaged",
    "failed",
    "finish",
    "inputs_hash",
    "is_begun",
    "load_json",
    "manifest",
    "own_columns",
    "read_batches",
    "read_columns",
    "read_shard",
    "records",
    "resolve",
    "scan",
    "shards",
    "verify",
]

_INPUTS_KEY = b"synthgen.inputs"
_NAME_KEY = b"synthgen.file"
_COMPANIONS_KEY = b"synthgen.companions"
_ROWS_LEVEL = 3  # zstd level for rows; level 9 saves 8% of the bytes but takes three times as long


def claim(folder: Path, inputs: dict[str, Any], what: str) -> None:
    """Start or resume `folder` for exactly these inputs. Raises RunChanged, which names the inputs that differ.

    If the folder holds no output yet, its inputs are replaced, so that a mistake in the first inputs can be corrected.
    """
    if not is_begun(folder, inputs, what):
        durable.write_json(folder / "inputs.json", inputs)


def is_begun(
    folder: Path,
    inputs: dict[str, Any],
    what: str,
    compare: Callable[[dict[str, Any], dict[str, Any]], list[str]] = differences,
) -> bool:
    """Whether `folder` holds output made from exactly these inputs. Writes nothing.

    Raises RunChanged when the output was made from other inputs. `compare` gets the old and the new inputs, and returns
    a text for each difference.
    """
    path = folder / "inputs.json"
    begun = any(p.is_file() for p in folder.rglob("*") if p != path and not p.name.startswith("."))
    if path.exists() and begun:
        if changed := compare(load_json(path), inputs):
            raise RunChanged(
                f"{folder} was made from other inputs: {'; '.join(changed[:5])}"
                + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
                f"give another folder with -o, or use --fresh, which deletes what `{what}` made there",
            )
        return True
    if (folder / "manifest.json").exists() or any(folder.glob("data/[!.]*.parquet")):
        raise RunChanged(f"{folder} holds a corpus of unknown origin (no inputs.json)", "give another folder with -o")
    return False


def commit(folder: Path, name: str, tables: dict[str, pa.Table], made_from: str | None = None) -> None:
    """Write the files of one shard: all companions first, then the data file.

    `made_from` is the hash of the inputs from which a worker of a cluster made the rows. Raises RunChanged when the
    folder now has other inputs: another command has begun it anew while the worker was still running.
    """
    inputs = inputs_hash(folder)
    if made_from not in (None, inputs):
        raise RunChanged(f"{folder} was begun anew by another command", "wait until that command ends")
    if "failures" not in tables:  # an earlier call that was killed may have written failures of this shard
        (folder / "failures" / f"{name}.parquet").unlink(missing_ok=True)
    companions: dict[str, str] = {}
    for part in sorted(tables, key=lambda part: (part == "data", part)):
        table = tables[part]
        about = {**(table.schema.metadata or {}), _INPUTS_KEY: inputs.encode(), _NAME_KEY: f"{part}/{name}".encode()}
        if part == "data":
            about[_COMPANIONS_KEY] = json.dumps(companions).encode()
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink,
            table.schema.with_metadata(about),
            compression="zstd",
            compression_level=logits.compression_level(table) if part.startswith("logits") else _ROWS_LEVEL,
            use_dictionary=False,  # zstd compresses repeated values as well as a dictionary does, in less time
            write_page_checksum=True,
        ) as file:
            if table.num_rows:  # `load_dataset` cannot read a row group without rows
                file.write_table(table.replace_schema_metadata(about), logits.row_group_rows(table))
        data = sink.getvalue().to_pybytes()
        companions[part] = hashlib.sha256(data).hexdigest()
        durable.write_bytes(folder / part / f"{name}.parquet", data)


def inputs_hash(folder: Path) -> str:
    """The hash of the inputs for which `folder` is claimed."""
    return durable.digest(load_json(folder / "inputs.json"))


def committed(folder: Path, parts: Sequence[str] = ()) -> set[str]:
    """Names of the committed shards. Each of these shards must have a companion in every folder that `parts` names.

    Raises CorpusError when a file is damaged or missing, or when its columns differ from the columns of the first
    shard. The message names the file.
    """
    expected = inputs_hash(folder).encode()
    paths = [folder / "data" / f"{name}.parquet" for name in shards(folder)]
    first: pa.Schema | None = None
    for path in paths:
        schema = read(path).schema  # this reads the whole file and checks the checksums of its pages
        for part, sha256 in _companions(path, schema, expected, parts).items():
            if durable.sha256(folder / part / path.name) != sha256:
                raise _mismatch(folder / part / path.name, path)
        first = first or schema
        if not schema.equals(first):
            raise CorpusError(f"{path} has other columns than {paths[0].name}", REPAIR)
    return {path.stem for path in paths}


def _companions(path: Path, schema: pa.Schema, expected: bytes, parts: Sequence[str] = ()) -> dict[str, str]:
    """The hash of each companion of a data file, by the companion's folder. `schema` is the schema of the data file.

    Raises CorpusError if the data file was made under another name, or from inputs whose hash is not `expected`. Also
    raises CorpusError if the file lacks the columns of a corpus, or has no companion in a folder that `parts` names.
    """
    about = schema.metadata or {}
    if about.get(_INPUTS_KEY) != expected:
        raise CorpusError(f"{path} was not made from the inputs in {path.parent.parent}/inputs.json", REPAIR)
    try:
        companions = parse_json(about[_COMPANIONS_KEY].decode())
    except (KeyError, ValueError):
        companions = None
    check_columns(schema, path)
    if not isinstance(companions, dict) or not companions.keys() >= set(parts):
        raise CorpusError(f"{path} is damaged: its metadata is not the metadata of a corpus", REPAIR)
    if about.get(_NAME_KEY) != f"data/{path.stem}".encode():
        name = about.get(_NAME_KEY, b"a shard of an older version").decode(errors="replace")
        raise CorpusError(f"{path} holds other rows than its name says: it was written as {name}", REPAIR)
    for part in companions:
        if not is_regular(path.parent.parent / part / path.name):
            raise CorpusError(f"{path.parent.parent / part / path.name} is missing beside {path}", REPAIR)
    return {part: str(sha256) for part, sha256 in companions.items()}


def _mismatch(companion: Path, path: Path) -> CorpusError:
    return CorpusError(f"{companion} is damaged or does not match the rows of {path}", REPAIR)


def finish(folder: Path, kind: Kind, facts: Facts, names: Sequence[str]) -> Manifest:
    """Write the card and then the manifest, which lists all files of the shards `names`. Returns the manifest.

    The manifest marks the corpus as finished, so it is written last. Raises CorpusError when a file of one of these
    shards is missing or belongs to another shard, and when the folder holds a shard that is not among `names`.
    """
    files: dict[str, FileEntry] = {}
    expected = inputs_hash(folder).encode()
    for name in names:
        data = folder / "data" / f"{name}.parquet"
        if not is_regular(data):
            raise CorpusError(f"{data} is missing: it was there when it was written", "give the same command again")
        companions = _companions(data, metadata(data)[0], expected)
        for part in ("data", *companions):
            path = folder / part / data.name
            sha256, size = durable.sha256(path), path.stat().st_size
            if part != "data" and sha256 != companions[part]:
                raise _mismatch(path, data)
            files[f"{part}/{data.name}"] = {"rows": metadata(path)[1], "bytes": size, "sha256": sha256}
    _check_listed(folder, files)
    manifest = make(kind, facts, dict(sorted(files.items())))
    write_dataset_card(folder, manifest, f"{facts['task']}: {kind}")
    durable.write_json(folder / "manifest.json", manifest)
    return manifest


def _check_listed(folder: Path, files: Iterable[str]) -> None:
    """Raise CorpusError when the folder holds a file of a shard, and `files` does not name this file."""
    listed = set(files)
    for path in _shard_files(folder):
        name = path.relative_to(folder).as_posix()
        if name not in listed and re.fullmatch(SHARD, path.name):
            raise CorpusError(f"{path} does not belong to this corpus", "move it away, then give the same command")


def manifest(folder: Path) -> Manifest:
    """The manifest of a finished corpus. Raises CorpusError when there is no manifest or its version is older, and when
    a removal from the run was interrupted.
    """
    refuse_half(folder.absolute().parent)
    path = folder / "manifest.json"
    if not path.exists():
        if not folder.exists():
            raise CorpusError(f"there is no corpus at {folder}", "make one: `synthgen generate RECIPE -o RUN`")
        again = "repeat the command that began the corpus; the command continues the work"
        raise CorpusError(f"{folder} is not finished (no manifest.json)", again)
    return from_json(load_json(path), str(path))


def check_file(folder: Path, entries: Manifest, name: str) -> Path:
    """The path of a file of a finished corpus. Raises CorpusError unless the file has its hash in the manifest."""
    entry = entries["files"].get(name)
    if entry is None or not _is_whole(folder / name, entry):
        raise CorpusError(f"{folder / name} is damaged: its size or sha256 differs from the manifest", REPAIR)
    return folder / name


def _is_whole(path: Path, entry: FileEntry) -> bool:
    return is_regular(path) and path.stat().st_size == entry["bytes"] and durable.sha256(path) == entry["sha256"]


def damaged(folder: Path) -> list[str]:
    """Files of a finished corpus that are missing or differ from their hashes in the manifest."""
    return [name for name, entry in manifest(folder)["files"].items() if not _is_whole(folder / name, entry)]


def verify(folder: Path) -> Manifest:
    """Check every file against the manifest. Returns the manifest. Raises CorpusError, which names damaged files."""
    expected = manifest(folder)
    if bad := damaged(folder):
        raise CorpusError(
            f"{folder}: {', '.join(bad[:3])}{' and more' if len(bad) > 3 else ''} damaged (size or sha256 differs from "
            "the manifest)",
            REPAIR,
        )
    _check_listed(folder, expected["files"])
    return expected


def discard_damaged(folder: Path) -> list[str]:
    """Remove the manifest and every shard that has a damaged or missing file, so that these shards are made again.

    Returns the names of these shards. The manifest is removed last, because it shows which files are damaged. So an
    interrupted call can be repeated.
    """
    try:
        names = {Path(name).stem for name in damaged(folder)}
        if not names:
            return []
    except CorpusError:  # the manifest is missing or damaged, so use the hashes that the data files hold
        names = set()
        expected = inputs_hash(folder).encode()
        for name in shards(folder):
            path = folder / "data" / f"{name}.parquet"
            try:
                companions = _companions(path, read(path).schema, expected)
                if any(durable.sha256(folder / part / path.name) != sha256 for part, sha256 in companions.items()):
                    names.add(name)
            except CorpusError:
                names.add(name)
    discard(folder, names)
    return sorted(names)


def discard(folder: Path, names: Iterable[str]) -> None:
    """Remove the shards `names`, the card and the manifest, so that the next call of the command makes all of them
    again.

    The card is removed first. The card holds a hash of all files, and `load_dataset` uses this hash as the key of its
    cache. If the card were still there, `load_dataset` could read the remaining shards alone and cache their rows under
    the key of the whole corpus.
    """
    (folder / "README.md").unlink(missing_ok=True)
    for name in sorted(names):
        for path in sorted(_shard_files(folder, name), key=lambda p: p.parent.name != "data"):
            path.unlink()  # remove the data file first: without it the shard is not committed
    (folder / "manifest.json").unlink(missing_ok=True)


def _shard_files(folder: Path, name: str = "*") -> list[Path]:
    """The paths of the files of the shard `name`, or of all shards. Only the subfolders of a corpus are searched."""
    patterns = (f"{part}/{name}.parquet" for part in ("data", "rejected", "failures", "logits/*"))
    return sorted(p for pattern in patterns for p in folder.glob(pattern) if not p.name.startswith("."))


def failed(folder: Path, kinds: Sequence[str]) -> dict[str, int]:
    """The number of failures of these kinds in each committed shard. Shards without failures of these kinds are left
    out.
    """
    failures: dict[str, int] = {}
    for name in shards(folder, "failures"):
        if (folder / "data" / f"{name}.parquet").exists():
            table = read_columns(folder / "failures" / f"{name}.parquet", ["kind"])
            count = sum(kind in kinds for kind in table["kind"].to_pylist())
            failures |= {name: count} if count else {}
    return failures


def shards(folder: Path, part: str = "data", split: str | None = None) -> list[str]:
    """Names of the shards that have a file in the subfolder `part` ('data', 'rejected' or 'failures').

    The names are ordered by split and number. Files with other names are not shards. With `split`, the result has only
    shards of this split.
    """
    names = [p.stem.rsplit("-", 1) for p in (folder / part).glob("*.parquet") if re.fullmatch(SHARD, p.name)]
    names = sorted(names, key=lambda name: (SPLITS.index(name[0]), int(name[1])))  # as text, 100000 precedes 10001
    return ["-".join(name) for name in names if split in (None, name[0])]


def batches(
    folder: Path, part: str, columns: Sequence[str], split: str | None = None, rows: int = 2048
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Read the rows in one subfolder of a corpus, such as 'data', in order. Yields pairs (shard name, batch).

    A batch has at most `rows` rows and only the named columns; other columns are not read. Raises CorpusError when a
    file is damaged or lacks a column.
    """
    for name in shards(folder, part, split):
        for batch in read_batches(folder / part / f"{name}.parquet", columns, rows):
            yield name, batch


def own_columns(folder: Path) -> pa.Schema:
    """The user's own columns of a corpus, which are the columns not in `SCHEMA`. The result is empty when there is no
    shard.
    """
    if not (names := shards(folder)):
        return pa.schema([])
    path = folder / "data" / f"{names[0]}.parquet"
    schema, _ = metadata(path)
    check_columns(schema, path)
    return pa.schema([schema.field(name) for name in schema.names[len(SCHEMA) :]])


def records(folder: Path, part: str = "data", split: str | None = None) -> Iterator[tuple[str, list[Record]]]:
    """Yield pairs (shard name, its records) of the shards in the subfolder 'data' or 'rejected', in corpus order."""
    for name in shards(folder, part, split):
        yield name, from_rows(read(folder / part / f"{name}.parquet").to_pylist())


def resolve(path: Path, prefer: Sequence[str] = ("curated", "generated")) -> Path:
    """The corpus folder for `path`, which is a corpus folder or a run folder. Raises CorpusError when there is no
    corpus.

    In a run folder, the corpus is the first finished corpus among the subfolders `prefer`, or else the first of these
    subfolders that exists.
    """
    for run in (path, path.absolute().parent):
        refuse_half(run)
    if (path / "data").is_dir():
        return path.resolve() if path.name in ("", "..") else path  # resolve paths such as ".", which has no name
    for name in prefer:
        if (path / name / "manifest.json").exists():
            return path / name
    for name in prefer:
        if (path / name).is_dir():
            return path / name
    raise CorpusError(
        f"there is no corpus in '{path}'" if path.exists() else f"'{path}' does not exist",
        "give a run folder, or make one: `synthgen generate RECIPE -o RUN`",
    )


def load_json(path: Path) -> Any:
    """Read a JSON file of a run that holds an object. Raises CorpusError when the file is damaged."""
    flag = "--repair" if path.name == "manifest.json" else "--fresh"
    return read_object(path, f"repeat the command that made the file and add {flag}")
