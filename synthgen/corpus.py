"""A corpus: a folder of Parquet shards that is also a valid Hugging Face dataset repository.

    README.md  manifest.json  inputs.json  data/<split>-NNNNN.parquet
    generated/: logits/<teacher>/<same names>  failures/<same names>     curated/: rejected/<same names>

A shard is a contiguous range of requests of one split. Its companions (logits, failures, rejects) are written
first and its data file last: the data file under its real name is the commit, and names the sha256 of each
companion, so that an altered or exchanged one is seen before there is a manifest. `inputs.json` says what the
folder was begun with; `manifest.json`, written last of all, gives rows, bytes and sha256 of each shard's files.
Progress is read from the files, never from a counter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_ROWS_LEVEL = 3  # of zstd, for rows: level 9 saves 8% of the bytes and takes three times the time


@dataclass(frozen=True)
class Shard:
    """Requests `start` to `stop` of the whole run, all of one split; `name` is the file name without suffix."""

    name: str
    split: str
    start: int
    stop: int


def plan_shards(counts: Mapping[str, int], size: int) -> list[Shard]:
    """Cut requests, given by their number in each split and ordered by split, into ranges of at most `size`."""
    shards: list[Shard] = []
    start = 0
    for split in SPLITS:
        total = counts.get(split, 0)
        for number, begin in enumerate(range(start, start + total, size)):
            shards.append(Shard(f"{split}-{number:05d}", split, begin, min(begin + size, start + total)))
        start += total
    return shards


def claim(folder: Path, inputs: dict[str, Any], what: str) -> None:
    """Begin or go on with `folder` for exactly these inputs. Raises RunChanged naming what differs.

    A folder in which nothing has been made yet, since the first inputs had a mistake, is begun anew.
    """
    if not is_begun(folder, inputs, what):
        durable.write_json(folder / "inputs.json", inputs)


def is_begun(
    folder: Path,
    inputs: dict[str, Any],
    what: str,
    compare: Callable[[dict[str, Any], dict[str, Any]], list[str]] = differences,
) -> bool:
    """Whether something was made in `folder` from exactly these inputs. Nothing is written.

    Raises RunChanged when it was made from others; `compare` says what differs.
    """
    path = folder / "inputs.json"
    begun = any(p.is_file() for p in folder.rglob("*") if p != path and not p.name.startswith("."))
    if path.exists() and begun:
        old = load_json(path)
        if changed := compare(old, inputs):
            raise RunChanged(
                f"{folder} was made from other inputs: {'; '.join(changed[:5])}"
                + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
                f"give another folder with -o, or --fresh to discard what `{what}` made there",
            )
        return True
    if (folder / "manifest.json").exists() or any(folder.glob("data/*.parquet")):
        raise RunChanged(f"{folder} holds a corpus of unknown origin (no inputs.json)", "give another folder with -o")
    return False


def commit(folder: Path, name: str, tables: dict[str, pa.Table]) -> None:
    """Write one shard: every companion first, `data` last."""
    if "failures" not in tables:  # those of a killed attempt, if this one has none
        (folder / "failures" / f"{name}.parquet").unlink(missing_ok=True)
    inputs = durable.digest(load_json(folder / "inputs.json"))
    companions: dict[str, str] = {}
    for part in sorted(tables, key=lambda part: (part == "data", part)):
        table = tables[part]
        metadata = {**(table.schema.metadata or {}), _INPUTS_KEY: inputs.encode()}
        if part == "data":
            metadata[_COMPANIONS_KEY] = json.dumps(companions).encode()
        sink = pa.BufferOutputStream()
        pq.write_table(
            table.replace_schema_metadata(metadata),
            sink,
            compression="zstd",
            compression_level=logits.compression_level(table) if part.startswith("logits") else _ROWS_LEVEL,
            use_dictionary=not part.startswith("logits"),
            row_group_size=logits.row_group_rows(table),
            write_page_checksum=True,
        )
        data = sink.getvalue().to_pybytes()
        companions[part] = hashlib.sha256(data).hexdigest()
        durable.write_bytes(folder / part / f"{name}.parquet", data)


def committed(folder: Path, parts: Sequence[str] = ()) -> set[str]:
    """Names of the shards that are whole, with the companions `parts`.

    Raises CorpusError naming a damaged file, or one whose columns are not those of the first shard.
    """
    expected = durable.digest(load_json(folder / "inputs.json")).encode()
    paths = [p for p in sorted(folder.glob("data/*.parquet")) if not p.name.startswith(".")]
    first: pa.Schema | None = None
    for path in paths:
        schema = _check_whole(folder, path, expected, parts)
        first = first or schema
        if not schema.equals(first):
            raise CorpusError(f"{path} has other columns than {paths[0].name}", _repair_hint())
    return {path.stem for path in paths}


def _check_whole(folder: Path, path: Path, expected: bytes, parts: Sequence[str] = ()) -> pa.Schema:
    """The columns of a data file that is readable, of these inputs, and whose companions are those it names.

    Raises CorpusError for any other.
    """
    table = _read(path)
    metadata = table.schema.metadata or {}
    if metadata.get(_INPUTS_KEY) != expected:
        raise CorpusError(f"{path}: made from other inputs than {folder}/inputs.json", _repair_hint())
    try:
        companions = dict(json.loads(metadata[_COMPANIONS_KEY]))
    except (KeyError, ValueError, TypeError):
        companions = {}
    check_columns(table.schema, path)
    if not companions.keys() >= set(parts):
        raise CorpusError(f"{path} is damaged: its metadata is not that of a corpus", _repair_hint())
    for part, sha256 in companions.items():
        companion = folder / part / path.name
        if not companion.exists():
            raise CorpusError(f"{companion} is missing beside {path}", _repair_hint())
        if durable.sha256(companion) != sha256:
            raise CorpusError(f"{companion} is damaged or does not match the rows of {path}", _repair_hint())
    return table.schema


def check_columns(schema: pa.Schema, path: Path) -> None:
    """Raise CorpusError unless the columns of a shard are those of the record, followed by the user's own."""
    ours = [schema.field(name) for name in schema.names[: len(SCHEMA)]]
    if pa.schema(ours).equals(SCHEMA):
        return
    if {"id", "seed_id", "prompt"} <= set(schema.names) and "edits" not in schema.names:
        raise CorpusError(
            f"{path} has the columns of an older version of synthgen",
            "make the corpus again with this version, or read it with the version that made it",
        )
    raise CorpusError(f"{path} is damaged: its columns are not those of a corpus", _repair_hint())


def finish(folder: Path, kind: Kind, facts: Facts, names: Sequence[str]) -> Manifest:
    """Write the card and then the manifest over all files of the shards `names`; returns it.

    The manifest says that the corpus is finished, so nothing is written after it.
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
    """The manifest of a finished corpus. Raises CorpusError when there is none, or one of an older version."""
    path = folder / "manifest.json"
    if not path.exists():
        if not folder.exists():
            raise CorpusError(f"there is no corpus at {folder}", "make one: `synthgen generate RECIPE -o RUN`")
        raise CorpusError(f"{folder} is not finished (no manifest.json)", "go on with the command that began it")
    return from_json(load_json(path), str(path))


def damaged(folder: Path) -> list[str]:
    """Files of a finished corpus that are missing or not the bytes that the manifest names."""
    bad = []
    for name, entry in manifest(folder)["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != entry["bytes"] or durable.sha256(path) != entry["sha256"]:
            bad.append(name)
    return bad


def verify(folder: Path) -> Manifest:
    """The manifest, once every file has been checked against it. Raises CorpusError naming damaged files."""
    found = manifest(folder)
    bad = damaged(folder)
    if bad:
        raise CorpusError(
            f"{folder}: {', '.join(bad[:3])}{' and more' if len(bad) > 3 else ''} damaged (sha256 or size is not the "
            "manifest's)",
            _repair_hint(),
        )
    return found


def discard_damaged(folder: Path) -> list[str]:
    """Remove every shard that has a damaged or missing file, then the manifest, so that they are made again.

    The manifest goes last: it alone knows which files are damaged, should this be interrupted.
    """
    try:
        names = {Path(name).stem for name in damaged(folder)}
        if not names:
            return []
    except CorpusError:  # no manifest, or it is itself damaged: the shards say what they should be
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
    """Remove shards, the card and the manifest, so that they are made again.

    The card goes first. `load_dataset` keeps what it read by the card, which names the hash of all rows: it must not
    keep a part of the rows under that name.
    """
    (folder / "README.md").unlink(missing_ok=True)
    for name in sorted(names):
        for path in sorted(_shard_files(folder, name), key=lambda p: p.parent.name != "data"):
            path.unlink()  # the data file first: without it the shard does not count as made
    (folder / "manifest.json").unlink(missing_ok=True)


def _shard_files(folder: Path, name: str = "*") -> list[Path]:
    """The files of one shard, or of all. Those of a folder that is no part of a corpus are not among them."""
    patterns = (f"{part}/{name}.parquet" for part in ("data", "rejected", "failures", "logits/**"))
    return sorted(p for pattern in patterns for p in folder.glob(pattern) if not p.name.startswith("."))


def failed(folder: Path, kinds: Sequence[str]) -> dict[str, int]:
    """Failures of these kinds, of every committed shard that has some."""
    found: dict[str, int] = {}
    for path in sorted(folder.glob("failures/*.parquet")):
        if not path.name.startswith(".") and (folder / "data" / path.name).exists():
            count = sum(kind in kinds for kind in _read(path)["kind"].to_pylist())
            found |= {path.stem: count} if count else {}
    return found


def shards(folder: Path, part: str = "data", split: str | None = None) -> list[str]:
    """Names of the shards of a part ('data', 'rejected'), of one split or of all, in order of split and number."""
    names = [p.stem for p in (folder / part).glob("*.parquet") if not p.name.startswith(".")]
    names = [name for name in names if split is None or name.startswith(f"{split}-")]
    return sorted(names, key=lambda name: (SPLITS.index(name.rsplit("-", 1)[0]), name))


def batches(
    folder: Path, part: str, columns: Sequence[str], split: str | None = None, rows: int = 2048
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """(shard name, batch) for each `rows` rows of a part, with the named columns alone, in corpus order.

    Only the columns that are asked for are read. Raises CorpusError for a damaged file, or one without a column.
    """
    for name in shards(folder, part, split):
        for batch in read_batches(folder / part / f"{name}.parquet", columns, rows):
            yield name, batch


def read_batches(path: Path, columns: Sequence[str], rows: int = 2048) -> Iterator[pa.RecordBatch]:
    """Batches of at most `rows` rows of one shard, with the named columns alone, in that order; one empty batch where
    there are no rows. Raises CorpusError as `batches`."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise CorpusError(f"{path} has no column '{missing[0]}'", "make the corpus again, or name another one")
            count = 0
            for batch in file.iter_batches(rows, columns=list(columns)):
                count += batch.num_rows
                yield batch.select(list(columns))
            if not count:
                schema = pa.schema([file.schema_arrow.field(name) for name in columns])
                yield pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def read_columns(path: Path, columns: Sequence[str]) -> pa.Table:
    """The named columns of one shard, in one chunk each. Raises CorpusError as `batches`."""
    return pa.Table.from_batches(read_batches(path, columns, 1 << 20)).combine_chunks()


def own_columns(folder: Path) -> pa.Schema:
    """The user's own columns of a corpus, those beside `SCHEMA`; no columns where there is no shard."""
    names = shards(folder)
    if not names:
        return pa.schema([])
    path = folder / "data" / f"{names[0]}.parquet"
    schema = _schema(path)
    check_columns(schema, path)
    return pa.schema([schema.field(name) for name in schema.names[len(SCHEMA) :]])


def records(folder: Path, part: str = "data", split: str | None = None) -> Iterator[tuple[str, list[Record]]]:
    """(shard name, its records) for every shard of a part ('data', 'rejected'), in order of split and number."""
    for name in shards(folder, part, split):
        yield name, from_rows(_read(folder / part / f"{name}.parquet").to_pylist())


def scan(path: Path, columns: Sequence[str] | None = None, size: int = 1024) -> Iterator[pa.RecordBatch]:
    """Batches of at most `size` rows of one file, with these columns. Raises CorpusError for a damaged file.

    A name may be a field inside a column, as Parquet writes it: `verdicts.list.element.check`.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield from file.iter_batches(size, columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CorpusError(f"{path} is damaged: {reason}", _repair_hint()) from None


def resolve(path: Path, prefer: Sequence[str] = ("curated", "generated")) -> Path:
    """The corpus meant by a run folder or a corpus folder. Raises CorpusError."""
    if (path / "data").is_dir():
        return path.resolve() if path.name in ("", "..") else path  # "." has no name and no folder beside it
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
    """All columns of one shard. Raises CorpusError for a damaged file, or one of another version."""
    table = _read(path)
    check_columns(table.schema, path)
    return table


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> CorpusError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return CorpusError(f"{path} is damaged: {reason}", _repair_hint())


def load_json(path: Path) -> Any:
    """A JSON file of a run. Raises CorpusError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        flag = "--repair" if path.name == "manifest.json" else "--fresh"
        raise CorpusError(f"{path} is damaged: {error}", f"give the command that made it again with {flag}") from None


def _repair_hint() -> str:
    return "repair: run the command that made it again with --repair; only damaged shards are made again"
