"""A corpus: a folder of Parquet shards that is also a valid Hugging Face dataset repository.

    README.md  manifest.json  inputs.json  data/<split>-NNNNN.parquet
    generated/: logits/<teacher>/<same names>  failures/<same names>     curated/: rejected/<same names>

A shard holds the rows of a contiguous range of requests of one split. Its data file lies in data/. Its other files, in
logits/, failures/ and rejected/, are its companions. They are written before the data file. Renaming the data file to
its final name commits the shard. The data file holds the sha256 of each companion, so an altered or exchanged companion
is detected even before there is a manifest. `inputs.json` holds the inputs from which the corpus is made, such as the
recipe's settings. `manifest.json` is written after all shards. It lists every file of every shard with its number of
rows, its size in bytes and its sha256. The progress of an unfinished corpus is determined from its files; no counter is
stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import durable, logits
from synthgen.cards import write_dataset_card
from synthgen.errors import CorpusError, RunChanged
from synthgen.manifest import Facts, FileEntry, Kind, Manifest, from_json, make
from synthgen.recipe import differences
from synthgen.records import SCHEMA, SPLITS, Record, from_rows

_INPUTS_KEY = b"synthgen.inputs"
_COMPANIONS_KEY = b"synthgen.companions"
_REPAIR = "repeat the command that made the corpus and add --repair; only damaged shards are made again"
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
        old = load_json(path)
        if changed := compare(old, inputs):
            raise RunChanged(
                f"{folder} was made from other inputs: {'; '.join(changed[:5])}"
                + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
                f"give another folder with -o, or use --fresh, which deletes what `{what}` made there",
            )
        return True
    if (folder / "manifest.json").exists() or any(folder.glob("data/*.parquet")):
        raise RunChanged(f"{folder} holds a corpus of unknown origin (no inputs.json)", "give another folder with -o")
    return False


def commit(folder: Path, name: str, tables: dict[str, pa.Table]) -> None:
    """Write the files of one shard: all companions first, then the data file."""
    if "failures" not in tables:  # an earlier call that was killed may have written failures of this shard
        (folder / "failures" / f"{name}.parquet").unlink(missing_ok=True)
    inputs = durable.digest(load_json(folder / "inputs.json"))
    companions: dict[str, str] = {}
    for part in sorted(tables, key=lambda part: (part == "data", part)):
        table = tables[part]
        metadata = {**(table.schema.metadata or {}), _INPUTS_KEY: inputs.encode()}
        if part == "data":
            metadata[_COMPANIONS_KEY] = json.dumps(companions).encode()
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(
            sink,
            table.schema.with_metadata(metadata),
            compression="zstd",
            compression_level=logits.compression_level(table) if part.startswith("logits") else _ROWS_LEVEL,
            use_dictionary=False,  # zstd compresses repeated values as well as a dictionary does, in less time
            write_page_checksum=True,
        ) as file:
            if table.num_rows:  # `load_dataset` cannot read a row group without rows
                file.write_table(table.replace_schema_metadata(metadata), logits.row_group_rows(table))
        data = sink.getvalue().to_pybytes()
        companions[part] = hashlib.sha256(data).hexdigest()
        durable.write_bytes(folder / part / f"{name}.parquet", data)


def committed(folder: Path, parts: Sequence[str] = ()) -> set[str]:
    """Names of the committed shards. Each of these shards must have a companion in every folder that `parts` names.

    Raises CorpusError when a file is damaged or missing, or when its columns differ from those of the first shard. The
    message names the file.
    """
    expected = durable.digest(load_json(folder / "inputs.json")).encode()
    paths = [p for p in sorted(folder.glob("data/*.parquet")) if not p.name.startswith(".")]
    first: pa.Schema | None = None
    for path in paths:
        schema = _check_whole(folder, path, expected, parts)
        first = first or schema
        if not schema.equals(first):
            raise CorpusError(f"{path} has other columns than {paths[0].name}", _REPAIR)
    return {path.stem for path in paths}


def _check_whole(folder: Path, path: Path, expected: bytes, parts: Sequence[str] = ()) -> pa.Schema:
    """Check a data file and its companions. Returns the columns of the data file.

    Raises CorpusError unless the data file is readable, was made from the inputs with the hash `expected`, has a
    companion in every folder that `parts` names, and holds the right hash of each companion.
    """
    table = _read(path)
    metadata = table.schema.metadata or {}
    if metadata.get(_INPUTS_KEY) != expected:
        raise CorpusError(f"{path} was not made from the inputs in {folder}/inputs.json", _REPAIR)
    try:
        companions = dict(json.loads(metadata[_COMPANIONS_KEY]))
    except (KeyError, ValueError, TypeError):
        companions = {}
    check_columns(table.schema, path)
    if not companions.keys() >= set(parts):
        raise CorpusError(f"{path} is damaged: its metadata is not the metadata of a corpus", _REPAIR)
    for part, sha256 in companions.items():
        companion = folder / part / path.name
        if not companion.exists():
            raise CorpusError(f"{companion} is missing beside {path}", _REPAIR)
        if durable.sha256(companion) != sha256:
            raise CorpusError(f"{companion} is damaged or does not match the rows of {path}", _REPAIR)
    return table.schema


def check_columns(schema: pa.Schema, path: Path) -> None:
    """Raise CorpusError unless the columns of a shard begin with the columns of `SCHEMA`. The user's own columns may
    follow.
    """
    ours = [schema.field(name) for name in schema.names[: len(SCHEMA)]]
    if pa.schema(ours).equals(SCHEMA):
        return
    if {"id", "seed_id", "prompt"} <= set(schema.names) and "edits" not in schema.names:
        raise CorpusError(
            f"{path} has the columns of an older version of synthgen",
            "make the corpus again with this version, or read it with the version that made it",
        )
    raise CorpusError(f"{path} is damaged: its columns are not the columns of a corpus", _REPAIR)


def finish(folder: Path, kind: Kind, facts: Facts, names: Sequence[str]) -> Manifest:
    """Write the card and then the manifest, which lists all files of the shards `names`. Returns the manifest.

    The manifest marks the corpus as finished, so it is written last.
    """
    files: dict[str, FileEntry] = {}
    for path in _shard_files(folder):
        if path.stem in names:
            rows = pq.read_metadata(path).num_rows
            name, size = path.relative_to(folder).as_posix(), path.stat().st_size
            files[name] = {"rows": rows, "bytes": size, "sha256": durable.sha256(path)}
    manifest = make(kind, facts, files)
    write_dataset_card(folder, manifest, f"{facts['task']}: {kind}")
    durable.write_json(folder / "manifest.json", manifest)
    return manifest


def manifest(folder: Path) -> Manifest:
    """The manifest of a finished corpus. Raises CorpusError when there is no manifest or its version is older."""
    path = folder / "manifest.json"
    if not path.exists():
        if not folder.exists():
            raise CorpusError(f"there is no corpus at {folder}", "make one: `synthgen generate RECIPE -o RUN`")
        raise CorpusError(
            f"{folder} is not finished (no manifest.json)", "repeat the command that began it; it will continue"
        )
    return from_json(load_json(path), str(path))


def damaged(folder: Path) -> list[str]:
    """Files of a finished corpus that are missing or differ from their hashes in the manifest."""
    bad = []
    for name, entry in manifest(folder)["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != entry["bytes"] or durable.sha256(path) != entry["sha256"]:
            bad.append(name)
    return bad


def verify(folder: Path) -> Manifest:
    """Check every file against the manifest. Returns the manifest. Raises CorpusError, which names damaged files."""
    expected = manifest(folder)
    if bad := damaged(folder):
        raise CorpusError(
            f"{folder}: {', '.join(bad[:3])}{' and more' if len(bad) > 3 else ''} damaged (size or sha256 differs from "
            "the manifest)",
            _REPAIR,
        )
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
        expected = durable.digest(load_json(folder / "inputs.json")).encode()
        for path in folder.glob("data/*.parquet"):
            try:
                _check_whole(folder, path, expected)
            except CorpusError:
                names.add(path.stem)
    discard(folder, names)
    return sorted(names)


def discard(folder: Path, names: Iterable[str]) -> None:
    """Remove the shards `names`, the card and the manifest, so that the next call of the command makes all of them
    again.

    The card is removed first. It holds a hash of all files, and `load_dataset` uses this hash as the key of its cache.
    If the card were still there, `load_dataset` could read the remaining shards alone and cache their rows under this
    key.
    """
    (folder / "README.md").unlink(missing_ok=True)
    for name in sorted(names):
        for path in sorted(_shard_files(folder, name), key=lambda p: p.parent.name != "data"):
            path.unlink()  # remove the data file first: without it the shard is not committed
    (folder / "manifest.json").unlink(missing_ok=True)


def _shard_files(folder: Path, name: str = "*") -> list[Path]:
    """The paths of the files of the shard `name`, or of all shards. Only the subfolders of a corpus are searched."""
    patterns = (f"{part}/{name}.parquet" for part in ("data", "rejected", "failures", "logits/**"))
    return sorted(p for pattern in patterns for p in folder.glob(pattern) if not p.name.startswith("."))


def failed(folder: Path, kinds: Sequence[str]) -> dict[str, int]:
    """The number of failures of these kinds in each committed shard. Shards without such failures are left out."""
    failures: dict[str, int] = {}
    for path in sorted(folder.glob("failures/*.parquet")):
        if not path.name.startswith(".") and (folder / "data" / path.name).exists():
            count = sum(kind in kinds for kind in _read(path)["kind"].to_pylist())
            failures |= {path.stem: count} if count else {}
    return failures


def shards(folder: Path, part: str = "data", split: str | None = None) -> list[str]:
    """Names of the shards that have a file in the subfolder `part` ('data', 'rejected' or 'failures').

    They are ordered by split and number. With `split`, only shards of this split are named.
    """
    names = [p.stem for p in (folder / part).glob("*.parquet") if not p.name.startswith(".")]
    names = [name for name in names if split is None or name.startswith(f"{split}-")]
    return sorted(names, key=lambda name: (SPLITS.index(name.rsplit("-", 1)[0]), name))


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


def read_batches(path: Path, columns: Sequence[str], rows: int = 2048) -> Iterator[pa.RecordBatch]:
    """Yield batches of at most `rows` rows of one shard, with the named columns in the given order. A shard without
    rows yields one empty batch. Raises the same errors as `batches`.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise CorpusError(
                    f"{path} has no column '{missing[0]}'", "make the corpus again, or name another corpus"
                )
            count = 0
            for batch in file.iter_batches(rows, columns=list(columns), use_threads=False):
                count += batch.num_rows
                yield batch.select(list(columns))
            if not count:
                schema = pa.schema([file.schema_arrow.field(name) for name in columns])
                yield pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read the named columns of one shard as a table; each column is one chunk. Raises the same errors as `batches`."""
    return pa.Table.from_batches(read_batches(path, columns, 1 << 20)).combine_chunks()


def own_columns(folder: Path) -> pa.Schema:
    """The user's own columns of a corpus, which are the columns not in `SCHEMA`. Empty when there is no shard."""
    if not (names := shards(folder)):
        return pa.schema([])
    path = folder / "data" / f"{names[0]}.parquet"
    schema = _schema(path)
    check_columns(schema, path)
    return pa.schema([schema.field(name) for name in schema.names[len(SCHEMA) :]])


def records(folder: Path, part: str = "data", split: str | None = None) -> Iterator[tuple[str, list[Record]]]:
    """Yield pairs (shard name, its records) of the shards in the subfolder 'data' or 'rejected', in corpus order."""
    for name in shards(folder, part, split):
        yield name, from_rows(_read(folder / part / f"{name}.parquet").to_pylist())


def scan(path: Path, columns: Sequence[str] | None = None, size: int = 1024) -> Iterator[pa.RecordBatch]:
    """Yield batches of at most `size` rows of one file, with these columns. Raises CorpusError for a damaged file.

    `columns` may also name a field inside a column, in Parquet's notation: `verdicts.list.element.check`.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(size, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CorpusError(f"{path} is damaged: {reason}", _REPAIR) from None


def resolve(path: Path, prefer: Sequence[str] = ("curated", "generated")) -> Path:
    """The corpus folder for `path`, which is a corpus folder or a run folder. Raises CorpusError when there is none.

    In a run folder, the corpus is the first finished corpus among the subfolders `prefer`, or else the first of them
    that exists.
    """
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


def read_shard(path: Path) -> pa.Table:
    """Read all columns of one shard. Raises CorpusError when the file is damaged or was written by another version of
    synthgen.
    """
    table = _read(path)
    check_columns(table.schema, path)
    return table


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read(use_threads=False)  # shards are small
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> CorpusError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return CorpusError(f"{path} is damaged: {reason}", _REPAIR)


def load_json(path: Path) -> Any:
    """Read a JSON file of a run. Raises CorpusError when the file is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        flag = "--repair" if path.name == "manifest.json" else "--fresh"
        raise CorpusError(
            f"{path} is damaged: {error}", f"repeat the command that made the file and add {flag}"
        ) from None
