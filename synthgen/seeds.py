"""Seeds: what the teacher is asked about. JSONL, CSV, Parquet, a folder of them, or a Hugging Face dataset.

Every seed knows its source and license, and its side of the split: a function of its group alone, decided
before anything is generated, and the same however many seeds are added later.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import hashlib
import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthgen.durable import digest
from synthgen.errors import RecipeError, nearest
from synthgen.recipe import SeedSource, Split

SUFFIXES = (".jsonl", ".csv", ".parquet")


@dataclass(frozen=True)
class Seed:
    """`fields` are the template's variables; `reference` the known right answer, if there is one."""

    id: str
    split: str
    fields: dict[str, Any]
    reference: list[str] | None
    source: SeedSource


def load_seeds(sources: Sequence[SeedSource], split: Split, text: Callable[[dict[str, Any]], str]) -> list[Seed]:
    """All seeds in file order. `text` renders what a seed asks; seeds that ask the same but for names and
    numbers form a group, unless the recipe names a column for it. Raises RecipeError naming file and line."""
    seeds: list[Seed] = []
    seen: dict[str, str] = {}
    for source in sources:
        count = 0
        for where, row in itertools.islice(read_rows(source), source.limit):
            seed = _seed(row, where, source, split, text)
            if seed.id in seen:
                raise RecipeError(
                    f"{where}: seed id '{seed.id}' is already used at {seen[seed.id]}",
                    "ids must be unique; drop the copy, or name another column with seeds.id",
                )
            seen[seed.id] = where
            seeds.append(seed)
            count += 1
        if not count:
            raise RecipeError(f"{source.path or source.dataset}: no seeds in it", "give a file with at least one row")
    return seeds


def fingerprint(seeds: Sequence[Seed]) -> str:
    """Hash of all seeds with their sides: a changed row changes it."""
    return digest([[s.id, s.split, s.fields, s.reference] for s in seeds])


_NUMBERS = re.compile(
    r"\d[\d,.]*|\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|"
    r"hundred|thousand)\b",
    re.IGNORECASE,
)


def mask(text: str) -> str:
    """The text with capitalized words as N and numbers as 0: its structure.

    The first word of a sentence is masked too: it may be a name, and a group too wide never leaks.
    """
    return " ".join(_NUMBERS.sub("0", re.sub(r"\b[A-Z][\w'-]*", "N", text)).split())


def _seed(
    row: dict[str, Any], where: str, source: SeedSource, split: Split, text: Callable[[dict[str, Any]], str]
) -> Seed:
    fields = dict(row)
    for variable, column in source.fields.items():
        fields[variable] = _column(row, column, where)
    seed_id = str(_column(row, source.id, where)) if source.id else digest(row)[:16]
    reference = _column(row, source.reference, where) if source.reference else None
    try:
        question = text(fields)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error.message}", error.hint) from None
    group = str(_column(row, source.group, where)) if source.group else mask(question)
    return Seed(seed_id, side(group, split), fields, accepted(reference), source)


def accepted(value: Any) -> list[str] | None:
    """The accepted answers of a reference: one value, or a list of them. None stays None."""
    if value is None:
        return None
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _column(row: dict[str, Any], column: str, where: str) -> Any:
    if column not in row:
        raise RecipeError(
            f"{where}: no column '{column}'{nearest(column, row)}", "mend the seed or the recipe's `seeds`"
        )
    return row[column]


def side(group: str, split: Split) -> str:
    """'train', 'validation' or 'test': a function of the group and the split's seed."""
    key = hashlib.blake2b(f"{split.seed}\0{group}".encode(), digest_size=8).digest()
    point = int.from_bytes(key, "big") / 2**64
    if point < split.test:
        return "test"
    return "validation" if point < split.test + split.validation else "train"


def read_rows(source: SeedSource) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) for every row of a source, streamed. Raises RecipeError naming file and line."""
    if source.dataset:
        yield from _stream(source)
        return
    path = Path(source.path or "")
    if not path.exists():
        raise RecipeError(f"seed file '{path}' does not exist", "mend seeds.path in the recipe")
    files = [path]
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
        if not files:
            raise RecipeError(f"no seeds in folder '{path}'", f"it must hold files of {', '.join(SUFFIXES)}")
    for file in files:
        readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
        if file.suffix not in readers:
            raise RecipeError(f"seed file '{file}' is of no known kind", f"use one of {', '.join(SUFFIXES)}")
        yield from readers[file.suffix](file, source.on_bad_lines == "skip")


def _jsonl(path: Path, skip: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                row = json.loads(line.decode("utf-8-sig"))
                if not isinstance(row, dict):
                    raise ValueError("not a JSON object")
            except (ValueError, RecursionError) as error:
                if skip:
                    continue
                raise _bad_line(where, str(error)) from None
            yield where, row


def _csv(path: Path, skip: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        try:
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    if skip:
                        continue
                    raise _bad_line(where, "more or fewer cells than the header has")
                yield where, dict(row)
        except (csv.Error, UnicodeDecodeError) as error:  # nothing can be read after it
            raise RecipeError(f"{path}, after line {reader.line_num}: {error}", "mend the file") from None


def _bad_line(where: str, what: str) -> RecipeError:
    return RecipeError(f"{where}: {what}", "mend the line, or keep the others with `on_bad_lines: skip` under seeds")


def _parquet(path: Path, skip: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", _plain(row)
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(f"{path}: not a readable Parquet file ({error})", "check the file") from None


def _stream(source: SeedSource) -> Iterator[tuple[str, dict[str, Any]]]:
    import datasets
    from huggingface_hub.utils import logging as hub_logging

    datasets.disable_progress_bars()
    for talker in (datasets.logging, hub_logging):
        talker.set_verbosity_error()
    try:
        stream = datasets.load_dataset(
            source.dataset, source.config, split=source.dataset_split, revision=source.revision, streaming=True
        )
        for number, row in enumerate(stream, 1):
            yield f"{source.dataset}, row {number}", _plain(row)
    except Exception as error:  # the hub client, its HTTP library and every file format raise their own kinds
        lines = str(error).splitlines() or [type(error).__name__]
        raise RecipeError(
            f"dataset '{source.dataset}' cannot be read: {lines[0]}",
            "check the id, the config, the split and the network; a local file works with seeds.path",
        ) from None


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The row as JSON has it: times and decimals as text; columns that are no text (bytes, images) left out."""
    kept = {}
    for name, value in row.items():
        try:
            kept[name] = json.loads(json.dumps(value, default=_as_text))
        except TypeError:
            continue
    return kept


def _as_text(value: Any) -> str:
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta | decimal.Decimal | uuid.UUID):
        return str(value)
    raise TypeError(f"no text: {type(value)}")
