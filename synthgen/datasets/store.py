"""Writes a stream of records as a corpus in shards."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from synthgen import corpus
from synthgen.errors import CorpusError
from synthgen.manifest import Facts, Kind, Manifest
from synthgen.records import FAILURE_SCHEMA, SPLITS, Record, Source, schema_with, to_table
from synthgen.sources import distinct, terms_of

_SHARD = 1024


def store(
    folder: Path,
    kind: Kind,
    rows: Iterable[Record | str],
    own: pa.Schema,
    facts: Facts,
    failures: list[dict[str, str]] | None = None,
) -> Manifest:
    """Write `rows` as a corpus into `folder` and return the manifest.

    Every row must have a split, and the caller must have claimed the folder. For a row that was removed from the run,
    `rows` yields only a text: the row's split. The removed row is left out, but keeps its place in a shard, so that the
    other shards do not change. `own` holds the names (as in the data set) and types of the user's own columns. `facts`
    is read after all rows are written, so the iterator `rows` may change `facts` while it yields rows. The sources of
    the rows are added to the sources in `facts`. The iterator may also append to `failures`, which are written beside
    the next shard. At most one shard of each split is in memory. Raises CorpusError when a value does not fit into its
    column.
    """
    schema = schema_with(own)
    waiting: dict[str, list[Record]] = {split: [] for split in SPLITS}
    numbers, left_out = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
    names: list[str] = []

    def flush(split: str) -> None:
        names.append(f"{split}-{numbers[split]:05d}")
        try:
            tables = {"data": to_table(waiting[split], schema)}
        except (pa.ArrowException, OverflowError, TypeError) as error:
            first = (str(error).splitlines() or [""])[0]
            ids = f"'{waiting[split][0].id}' to '{waiting[split][-1].id}'"
            raise CorpusError(
                f"rows {ids}: a value does not fit into its column ({first})", "give all values of a column one type"
            ) from None
        if failures:
            tables["failures"] = pa.Table.from_pylist(failures, FAILURE_SCHEMA)
            failures.clear()
        if kind == "curated":
            tables["rejected"] = to_table([], schema)
        corpus.commit(folder, names[-1], tables)
        numbers[split] += 1
        left_out[split] = 0
        waiting[split].clear()

    given: dict[str, Source] = {}
    for record in rows:
        split = record if isinstance(record, str) else str(record.split)
        if isinstance(record, str):
            left_out[split] += 1
        else:
            given.update((str(one), one) for one in record.sources if str(one) not in given)
            waiting[split].append(record)
        if len(waiting[split]) + left_out[split] == _SHARD:
            flush(split)
    for split in SPLITS:
        if waiting[split] or left_out[split]:
            flush(split)
    if failures:  # some failures came after the last row
        flush("train")
    sources = distinct([*facts["sources"], *map(terms_of, given.values())])
    return corpus.finish(folder, kind, {**facts, "sources": sources}, names)
