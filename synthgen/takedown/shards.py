"""Writes the shards of a generated corpus again without the removed rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.parquet import REPAIR, read
from synthgen.removed import Removed


@dataclass(frozen=True)
class Rewriting:
    """Which rows and failures of the corpus `folder` stay. `ids` are the ids of the removed rows, and `staying` takes a
    table of failures and returns the places of the failures that stay. `resumed` says that an earlier process was
    killed, so that files of a shard may not match.
    """

    folder: Path
    removed: Removed
    ids: Collection[str]
    staying: Callable[[pa.Table], list[int]]
    resumed: bool


def rewrite(work: Rewriting, name: str) -> None:
    """Write the files of one shard without the removed rows. If no file holds a removed row, nothing is written, except
    after a kill. Raises CorpusError when a file is damaged.
    """
    paths = {part: work.folder / part / f"{name}.parquet" for part in _parts(work.folder, name)}
    tables = {part: read(path) for part, path in paths.items()}
    left = {"data": _without(tables["data"], _gone(work, tables["data"]))}
    ids = set(left["data"]["id"].to_pylist())
    for part, table in tables.items():
        if part == "failures":
            if places := work.staying(table):
                left[part] = table.take(places)
        elif part != "data":
            left[part] = _without(table, set(table["id"].to_pylist()) - ids)
            if left[part].num_rows > len(ids):
                raise CorpusError(f"{paths[part]} has rows that are not in {paths['data']}", REPAIR)
    same = left.keys() == tables.keys() and all(left[part].num_rows == tables[part].num_rows for part in left)
    if work.resumed or not same:
        corpus.commit(work.folder, name, {part: _as_generated(table) for part, table in left.items()})


def _parts(folder: Path, name: str) -> list[str]:
    logits = sorted(path.parent.relative_to(folder).as_posix() for path in folder.glob(f"logits/*/{name}.parquet"))
    return ["data", *logits, *(["failures"] if (folder / "failures" / f"{name}.parquet").exists() else [])]


def _gone(work: Rewriting, data: pa.Table) -> set[str]:
    columns = (data[column].to_pylist() for column in ("id", "seed_id", "sources", "parents"))
    return {
        row_id
        for row_id, seed_id, sources, parents in zip(*columns, strict=True)
        if row_id in work.ids or work.removed.has_row(row_id, seed_id, sources or [], parents or [])
    }


def _without(table: pa.Table, ids: set[str]) -> pa.Table:
    if not ids:
        return table
    return table.filter(pc.invert(pc.is_in(table["id"], value_set=pa.array(sorted(ids), pa.string()))))


def _as_generated(table: pa.Table) -> pa.Table:
    """The table as generation gives it to `corpus.commit`. The file then has the same bytes as a file that was
    generated without the rows. The metadata that `commit` adds is left out. The elements of lists get the name that
    Arrow uses, because Parquet uses another name.
    """
    about = {key: value for key, value in (table.schema.metadata or {}).items() if not key.startswith(b"synthgen.")}
    fields = [pa.field(field.name, _named(field.type), field.nullable) for field in table.schema]
    return table.combine_chunks().cast(pa.schema(fields)).replace_schema_metadata(about or None)


def _named(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_named(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _named(field.type), field.nullable) for field in kind])
    return kind
