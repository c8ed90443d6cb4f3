"""Opens a data set and reads its rows as records, one at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from synthgen import durable
from synthgen.datasets.columns import Survey, fitted
from synthgen.datasets.files import has_rows
from synthgen.datasets.messages import MEDIA, tool_list
from synthgen.datasets.rows import column_names, is_typed, rows
from synthgen.datasets.turns import Turns
from synthgen.errors import CorpusError, RecipeError, nearest, one_line, told_in_one_line
from synthgen.recipe import SeedSource, Split
from synthgen.records import Record, own_names
from synthgen.seeds import Where, mask, side
from synthgen.sources import LICENSE_COLUMNS, given_sources, own_license, stated_sources
from synthgen.tables.formats import DATASET_FORMATS, DatasetFormat
from synthgen.tables.reference import resolve
from synthgen.values import accepted, is_blank, is_null, text_of

_KEYS = ("id", "reference", "group")  # keys of an entry of `seeds` that name a column
_PLACES = ("", "curated", "generated")


@dataclass(frozen=True)
class Dataset:
    """A data set whose columns are known.

    `format` is the format's name in the table DATASET_FORMATS. `columns` are the columns that the format reads. `taken`
    holds the names of columns that the format does not read, but that fill the record's columns of the same names.
    `own` holds the names (as in the data set) and types of the user's own columns. `left_out` are keys of messages that
    a record cannot hold, such as the time of a message. `unread` are the columns whose values are not JSON values, such
    as bytes. `rows` is the number of rows; the number of records may be larger, because one row may become several
    records.
    """

    source: SeedSource
    format: str
    taken: frozenset[str]
    own: pa.Schema
    rows: int
    columns: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    def text(self) -> str:
        """One line that says how the rows are read."""
        parts = {
            "columns": (*self.columns, *sorted(self.taken)),
            "own columns": self.own.names,
            "license of each row": tuple(name for name in self.own.names if name in LICENSE_COLUMNS),
            "left out of messages": self.left_out,
            "columns that are not read (bytes or the like)": self.unread,
        }
        listed = "".join(f"; {what}: {', '.join(names)}" for what, names in parts.items() if names)
        name = Path(self.source.path).name if self.source.path else self.source.dataset
        return one_line(f"{name}: format {self.format}, {self.rows:,} rows{listed}")


def is_dataset(path: Path) -> bool:
    """Whether the path is a file of rows or a folder of such files. False for the folder of a run (any folder with
    recipe.yaml) and for the folder of a corpus.
    """
    if (path / "recipe.yaml").exists() or not (path.is_file() or has_rows(path)):
        return False
    names = ("manifest.json", "inputs.json")
    return not any((path / place / name).exists() for place in _PLACES for name in names)


def source_of(path: Path, license: str | None = None, fields: Mapping[str, str] | None = None) -> SeedSource:
    """The source for the data set at `path`. `license` states the terms of all rows; without `license`, the terms are
    unknown. `fields` maps columns of a format to the columns of the data set that hold them, as in {"prompt":
    "question"}. The keys `id`, `reference` and `group` name the columns with the rows' ids, accepted answers and
    groups.
    """
    name, named = path.resolve().name, dict(fields or {})
    keys = {key: named.pop(key, None) for key in _KEYS}
    given = {"path": str(path), "license": license or "unknown", "source": name, "fields": named, **keys}
    return SeedSource.model_validate(given)


@told_in_one_line()
def open_dataset(source: SeedSource, *, skip: bool = False) -> Dataset:
    """Read every row of a data set once to detect its format and its columns. An entry `column: name` in the source's
    `fields` means that the data set has the format's column `column` under another `name`.

    Raises CorpusError when there are no rows. Raises RecipeError when no format matches, when a row cannot be read, or
    when a record cannot hold a row. The error's message states the place of the row. With `skip`, rows that a record
    cannot hold are an error only if the data set has no rows besides them.
    """
    name, survey = "", Survey([])
    left_out: dict[str, None] = {}
    refused: RecipeError | None = None  # the first error; `broken` counts the errors
    broken = 0
    for where, row, _ in _named(source):
        if not name:
            name = _format_of(row, str(where))
            survey = Survey(DATASET_FORMATS[name].columns)
            read = _reader(DATASET_FORMATS[name])
        survey.see(row)
        try:
            turns = read(row, where)
        except RecipeError as error:
            if not skip:
                raise
            refused, broken = refused or error, broken + 1
            continue
        for turn in turns:
            left_out |= dict.fromkeys(turn.left_out)
    if not name:
        raise CorpusError(f"there are no rows in '{source.path}'", "give a folder of JSONL, CSV or Parquet files")
    if refused and broken == survey.rows:
        raise refused
    own = survey.own()
    known = {*survey.names(), *survey.taken(), *own.names, *source.fields.values()}
    return Dataset(
        source,
        name,
        survey.taken(),
        own,
        survey.rows,
        columns=tuple(survey.names()),
        left_out=tuple(left_out),
        unread=_unread(source, known),
    )


def _unread(source: SeedSource, known: set[str]) -> tuple[str, ...]:
    """The columns that are in the files but not in the rows, because their values are not JSON values. Raises
    RecipeError when one of these columns holds images, videos or sounds.
    """
    unread = tuple(column for column in column_names(source) if column not in known)
    media = next((column for column in unread if column in MEDIA), None)
    if media:
        raise RecipeError(f"the rows of '{source.path}' have {media}, which cannot be learned", "use rows of text")
    return unread


def _named(source: SeedSource) -> Iterator[tuple[Where, dict[str, object], str | None]]:
    """Yield each row with its place and its split. Columns are renamed as `source.fields` says, so that the formats
    recognize them.
    """
    known = {column for entry in DATASET_FORMATS.values() for column in entry.columns}
    fields = {column: name for column, name in source.fields.items() if column in known and column != name}
    for where, row, split in rows(source):
        if fields:
            row = _renamed(row, fields, str(where))
        if is_typed(where):
            row = {name: without_nulls(value) if name in known else value for name, value in row.items()}
        yield where, row, split


def _renamed(row: Mapping[str, object], fields: Mapping[str, str], where: str) -> dict[str, object]:
    absent = next((name for name in fields.values() if name not in row), None)
    if absent:
        raise RecipeError(f"{where}: no column '{absent}'{nearest(absent, row)}", "correct the name of the column")
    others = {name: value for name, value in row.items() if name not in fields.values()}
    kept = {f"source_{name}" if name in fields else name: value for name, value in others.items()}
    return {**{column: row[name] for column, name in fields.items()}, **kept}


def without_nulls(value: object) -> object:
    """A copy of a JSON value; objects at any depth lose the keys whose values are null."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


def _format_of(row: Mapping[str, object], where: str) -> str:
    for name, entry in DATASET_FORMATS.items():
        if resolve(entry.recognize)(row):
            return name
    has = ", ".join(sorted(row)) or "nothing"
    known = "; ".join(f"{name}: {entry.about}" for name, entry in DATASET_FORMATS.items())
    raise RecipeError(
        f"{where}: unknown format of rows; the columns are {has}",
        "name columns as in `fields: {prompt: question, completion: answer}` in the recipe's `seeds`, or with --field; "
        f"known formats: {known}",
    )


Refused = Callable[[Mapping[str, object], str | None, RecipeError], None]
"""A function with three arguments: a row that a record cannot hold, the split that the row's file name states, and the
error.
"""


def records(
    dataset: Dataset, task: str, split: Split | None, refused: Refused | None = None
) -> Iterator[tuple[str, Record]]:
    """Yield a pair (place, record) for each record of a data set, one at a time. The place is text such as "rows.jsonl,
    line 3".

    The column `split` says which split a row is in. Without this column, the name of the row's file says which split
    the row is in. If neither the column nor the file's name states a split, the split settings and the row's group
    determine the split, as for a seed. If there are no split settings either, the row has no split.

    Uses about 100 bytes of memory a row. Raises RecipeError when a row cannot be read, and CorpusError when an id
    occurs twice; both errors name the row. If `refused` is given, it is called for each row that a record cannot hold,
    and no error is raised.
    """
    with told_in_one_line():
        yield from _records(dataset, task, split, refused)


def _records(dataset: Dataset, task: str, split: Split | None, refused: Refused | None) -> Iterator[tuple[str, Record]]:
    read = _reader(DATASET_FORMATS[dataset.format])
    names = own_names(dataset.own.names)
    seen: dict[bytes, int] = {}
    for where, row, place in _named(dataset.source):
        for column in (dataset.source.reference, dataset.source.group):
            if column and column not in row:
                raise RecipeError(
                    f"{where}: no column '{column}'{nearest(column, row)}", "correct the row or the recipe's `seeds`"
                )
        own = {names[field.name]: fitted(row.get(field.name), field.type) for field in dataset.own}
        try:
            turns = read(row, where)
        except RecipeError as error:
            if refused is None:
                raise
            refused(row, place, error)
            continue
        for turn, (row_id, part) in zip(turns, _ids(dataset, row, turns, seen, str(where)), strict=True):
            try:
                record = _record(dataset, row, turn, row_id + part, task)
            except ValueError as error:
                raise RecipeError(
                    f"{where}: the reference is {error}", "a reference is a text, a number, or a list of these"
                ) from None
            if part:
                record.group_id = record.group_id or row_id
            if record.seed_id == record.id:
                record.seed_id = row_id
            if "split" not in dataset.taken:
                record.split = place
            if split is not None:
                record.split = record.split or _side(dataset, row, turn, split)
            record.own = own
            yield str(where), record


def _reader(entry: DatasetFormat) -> Callable[[Mapping[str, object], Where], list[Turns]]:
    """A function that reads a row of a format. The RecipeError that this function raises names the row."""
    read: Callable[[Mapping[str, object]], list[Turns]] = resolve(entry.read)

    def turns(row: Mapping[str, object], where: Where) -> list[Turns]:
        try:
            return read(row)
        except ValueError as error:
            raise RecipeError(
                f"{where}: {error}", f"correct the row, or leave it out; the first row has the format {entry.about}"
            ) from None

    return turns


def _ids(
    dataset: Dataset, row: Mapping[str, object], turns: list[Turns], seen: dict[bytes, int], where: str
) -> list[tuple[str, str]]:
    """For each record that is made from the row: a pair (the row's id, the rest of the record's id after the row's id).

    The id of the row is its own id, or else a hash of its content. If a row is identical to an earlier row, it gets an
    id of its own. `seen` holds a hash of the row for each id, and counts identical rows.
    """
    parts = [f"-{turn.pair_role or number}" if len(turns) > 1 else "" for number, turn in enumerate(turns, 1)]
    column = dataset.source.id or ("id" if "id" in dataset.taken else "")
    if not column:
        each = [[turn.prompt, turn.completion] for turn in turns]
        content = each[0] if len(each) == 1 else each
        name = durable.digest(content)
        count = _count(seen, name)
        if count > 1:
            name = durable.digest([*content, count])
        return [(name[:32], part) for part in parts]
    if is_blank(row.get(column)):
        raise RecipeError(f"{where}: no id in the column '{column}'", "name another column with seeds.id")
    name = str(row[column])
    content_hash = int.from_bytes(bytes.fromhex(durable.digest(row)[:16]))
    before = [seen.setdefault(_key(f"{name}{part}"), content_hash) for part in parts]
    if any(other != content_hash for other in before):
        raise _twice(where, name)
    number = _count(seen, name)
    if number > 1:
        name = f"{name}#{number}"
        if any(seen.setdefault(_key(f"{name}{part}"), -1) != -1 for part in parts):
            raise _twice(where, name)
    return [(name, part) for part in parts]


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()[:16]


def _count(seen: dict[bytes, int], text: str) -> int:
    """Count how often this text was given, including this time."""
    key = _key(f"count {text}")
    seen[key] = seen.get(key, 0) + 1
    return seen[key]


def _twice(where: str, name: str) -> CorpusError:
    return CorpusError(
        f"{where}: the id '{name}' occurs twice",
        "ids must be unique; if the column holds no ids, rename it in the file",
    )


def _side(dataset: Dataset, row: Mapping[str, object], turn: Turns, split: Split) -> str:
    """The split that the row's group determines. The group is the value in the group column, or else the user's
    question.
    """
    group = row.get(dataset.source.group) if dataset.source.group else None
    if not is_blank(group):
        return side(str(group), split)
    asked = [message for message in turn.prompt if message["role"] == "user"] or turn.prompt or turn.completion
    return side(mask("\n".join(str(message.get("content") or "") for message in asked)), split)


def _record(dataset: Dataset, row: Mapping[str, object], turn: Turns, name: str, task: str) -> Record:
    source = dataset.source

    def text(column: str) -> str | None:
        value = row.get(column) if column in dataset.taken else None
        return None if is_null(value) else text_of(value)

    reference = source.reference or ("reference" if "reference" in dataset.taken else None)
    tools = tool_list(row.get("tools")) if "tools" in dataset.taken else None
    return Record(
        id=name,
        seed_id=text("seed_id") or name,
        split=text("split"),
        task=task,
        strategy=None,
        prompt_version=None,
        prompt=turn.prompt,
        completion=turn.completion,
        teacher=None,
        group_id=text("group_id"),
        pair_role=turn.pair_role or text("pair_role"),
        tools=turn.tools or tools,
        teaches=turn.teaches,
        rationale=text("rationale"),
        answer=None if reference == "answer" else text("answer"),
        reference=accepted(row.get(reference)) if reference else None,
        # a row of another corpus keeps its sources: the data set's own license does not replace their licenses
        sources=[
            *stated_sources(source, source.source, "dataset", own_license(row)),
            *given_sources(row.get("sources")),
        ],
    )
