"""Opens a data set and reads its rows as records, one at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from synthgen import durable
from synthgen.datasets.columns import Survey, fitted
from synthgen.datasets.turns import Turns
from synthgen.errors import CorpusError, RecipeError, nearest, told_in_one_line
from synthgen.recipe import SeedSource, Split
from synthgen.records import Record, Source, own_names
from synthgen.seeds import has_rows, mask, read_rows, side
from synthgen.tables.formats import DATASET_FORMATS, DatasetFormat
from synthgen.tables.reference import resolve
from synthgen.values import accepted, is_blank, is_null, text_of

_PLACES = ("", "curated", "generated")


@dataclass(frozen=True)
class Dataset:
    """A data set whose columns are known.

    `format` is the format's name in the table DATASET_FORMATS. `taken` holds the names of columns that fill the
    record's columns of the same names. Columns that the format reads are not among them. `own` holds the names (as in
    the data set) and types of the user's own columns. `rows` is the number of rows. It can differ from the number of
    records, because one row may become several records.
    """

    source: SeedSource
    format: str
    taken: frozenset[str]
    own: pa.Schema
    rows: int


def is_dataset(path: Path) -> bool:
    """Whether the path is a file of rows or a folder of such files. False for the folder of a run (any folder with
    recipe.yaml) and for the folder of a corpus.
    """
    if (path / "recipe.yaml").exists() or not (path.is_file() or has_rows(path)):
        return False
    names = ("manifest.json", "inputs.json")
    return not any((path / place / name).exists() for place in _PLACES for name in names)


@told_in_one_line()
def open_dataset(source: SeedSource) -> Dataset:
    """Read every row of a data set once to detect its format and its columns.

    Raises CorpusError when there are no rows, and RecipeError when no format matches or a line cannot be read.
    """
    name, survey = "", Survey([])
    for where, row in read_rows(source):
        if not name:
            name = _format_of(row, str(where))
            survey = Survey(DATASET_FORMATS[name].columns)
        survey.see(row)
    if not name:
        raise CorpusError(f"there are no rows in '{source.path}'", "give a folder of JSONL, CSV or Parquet files")
    own = survey.own()
    return Dataset(source, name, survey.taken(), own, survey.rows)


def _format_of(row: Mapping[str, object], where: str) -> str:
    for name, entry in DATASET_FORMATS.items():
        if resolve(entry.recognize)(row):
            return name
    has = ", ".join(sorted(row)) or "nothing"
    known = "; ".join(f"{name}: {entry.about}" for name, entry in DATASET_FORMATS.items())
    raise RecipeError(f"{where}: unknown format of rows; the columns are {has}", f"known formats: {known}")


def records(dataset: Dataset, task: str, split: Split) -> Iterator[tuple[str, Record]]:
    """Yield a pair (place, record) for each record of a data set, one at a time. The place is text such as "rows.jsonl,
    line 3".

    A row that names no split gets a split in the same way as a seed: the split settings and the row's group determine
    it.

    Uses about 100 bytes of memory a row. Raises RecipeError when a row cannot be read, and CorpusError when an id
    occurs twice. Either error names the row.
    """
    with told_in_one_line():
        yield from _records(dataset, task, split)


def _records(dataset: Dataset, task: str, split: Split) -> Iterator[tuple[str, Record]]:
    entry = DATASET_FORMATS[dataset.format]
    names = own_names(dataset.own.names)
    seen: dict[bytes, int] = {}
    for where, row in read_rows(dataset.source):
        for column in (dataset.source.reference, dataset.source.group):
            if column and column not in row:
                raise RecipeError(
                    f"{where}: no column '{column}'{nearest(column, row)}", "correct the row or the recipe's `seeds`"
                )
        own = {names[field.name]: fitted(row.get(field.name), field.type) for field in dataset.own}
        turns = _turns(entry, row, str(where))
        for number, turn in enumerate(turns, 1):
            part = f"-{turn.pair_role or number}" if len(turns) > 1 else ""
            name = _id(dataset, row, turn, part, seen, str(where))
            try:
                record = _record(dataset, row, turn, name, task, split)
            except ValueError as error:
                raise RecipeError(
                    f"{where}: the reference is {error}", "a reference is a text, a number, or a list of these"
                ) from None
            if len(turns) > 1 and record.group_id is None:
                record.group_id = name.removesuffix(part)
            record.own = own
            yield str(where), record


def _turns(entry: DatasetFormat, row: Mapping[str, object], where: str) -> list[Turns]:
    try:
        read: list[Turns] = resolve(entry.read)(row)
    except ValueError as error:
        raise RecipeError(f"{where}: {error}", f"every row must have the format of the first: {entry.about}") from None
    return read


def _id(dataset: Dataset, row: Mapping[str, object], turn: Turns, part: str, seen: dict[bytes, int], where: str) -> str:
    """The id of a record. If the rows have ids, it is the row's id, followed by `part` when a row becomes several
    records. Otherwise it is a hash of the record's content. The second of two identical rows gets an id of its own, and
    so do further ones. `seen` holds a hash of the row for each id, and counts identical rows.
    """
    column = dataset.source.id or ("id" if "id" in dataset.taken else "")
    if not column:
        content = [turn.prompt, turn.completion]
        count = _count(seen, durable.digest(content))
        return durable.digest(content if count == 1 else [*content, count])[:32]
    if is_blank(row.get(column)):
        raise RecipeError(f"{where}: no id in the column '{column}'", "name another column with seeds.id")
    name = f"{row[column]}{part}"
    content_hash = int.from_bytes(bytes.fromhex(durable.digest(row)[:16]))
    key = _key(name)
    if key not in seen:
        seen[key] = content_hash
        return name
    if seen[key] != content_hash:
        raise _twice(where, name)
    copy = f"{row[column]}#{_count(seen, name) + 1}{part}"
    if seen.setdefault(_key(copy), -1) != -1:
        raise _twice(where, copy)
    return copy


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _count(seen: dict[bytes, int], text: str) -> int:
    """Count how often this text was given, this time included."""
    key = _key(f"count {text}")
    seen[key] = seen.get(key, 0) + 1
    return seen[key]


def _twice(where: str, name: str) -> CorpusError:
    return CorpusError(
        f"{where}: the id '{name}' occurs twice", "ids must be unique; to keep the column, give it another name"
    )


def _record(dataset: Dataset, row: Mapping[str, object], turn: Turns, name: str, task: str, split: Split) -> Record:
    source = dataset.source

    def text(column: str) -> str | None:
        value = row.get(column) if column in dataset.taken else None
        return None if is_null(value) else text_of(value)

    reference = source.reference or ("reference" if "reference" in dataset.taken else None)
    question = str(turn.prompt[-1].get("content") or "") if turn.prompt else ""
    group = row.get(source.group) if source.group else None
    tools = row.get("tools") if "tools" in dataset.taken else None
    return Record(
        id=name,
        seed_id=text("seed_id") or name,
        split=text("split") or side(mask(question) if is_blank(group) else str(group), split),
        task=task,
        strategy=None,
        prompt_version=None,
        prompt=turn.prompt,
        completion=turn.completion,
        teacher=None,
        group_id=text("group_id"),
        pair_role=turn.pair_role or text("pair_role"),
        tools=tools if isinstance(tools, str | None) else json.dumps(tools, ensure_ascii=False),
        rationale=text("rationale"),
        answer=text("answer"),
        reference=accepted(row.get(reference)) if reference else None,
        sources=[_lineage(source)],
    )


def _lineage(source: SeedSource) -> Source:
    return {
        "id": source.source,
        "role": "dataset",
        "license": source.license,
        "terms_date": None,
        "made_by": getattr(source, "made_by", None),
        "account": getattr(source, "account", None),
        "tools": [],
    }
