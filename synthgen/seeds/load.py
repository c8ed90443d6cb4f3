"""Loads seed files into `Seeds`: ids, groups, splits and references, in one pass over the rows."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np

from synthgen.errors import RecipeError, nearest
from synthgen.recipe import SeedSource, Split
from synthgen.seeds.groups import accepted, mask, side
from synthgen.seeds.rows import Row, Where, read_rows
from synthgen.seeds.store import Seed, Seeds

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


def load_seeds(
    sources: Sequence[SeedSource], split: Split, text: Callable[[Row], str], *, hashed: bool = True
) -> Seeds:
    """All seeds, in the order of the files and their rows. `text` renders a seed's question from its fields. `hashed`
    is explained at `Seeds`.

    Rows with the same value in the recipe's group column form a group. Without a group column, seeds whose questions
    differ only in names and numbers form a group. An unusable row or a repeated id raises RecipeError, which names the
    file and the line.
    """
    seeds = Seeds(sources, hashed=hashed)
    hashes = array("q")  # hashes of the ids; only where two hashes are equal are the ids themselves compared
    names: dict[str, str] = {}
    try:
        for number, source in enumerate(sources):
            before = len(seeds)
            for where, row in islice(read_rows(source), source.limit):
                seed = _seed(source, split, text, where, row)
                seeds.add(seed, number, names.get(where.file) or _name(source, where.file, names))
                hashes.append(hash(seed.id))
            if len(seeds) == before:
                raise RecipeError(
                    f"{source.path or source.dataset}: no seeds in it", "give a file with at least one row"
                )
    except RecipeError:
        _refuse_twins(seeds, hashes)  # report a repeated id before an error in a later row
        raise
    _refuse_twins(seeds, hashes)
    return seeds


def _name(source: SeedSource, file: str, names: dict[str, str]) -> str:
    """A short name for a seed file: its path, without the folders above the path that the recipe gives. If another file
    has the same name, a number is appended. The name is stored in `names` under `file`.
    """
    name = str(Path(file).relative_to(Path(source.path).parent)) if source.path else file.removeprefix("/")
    taken = names.values()
    names[file] = name if name not in taken else next(f"{name} ({n})" for n in count(2) if f"{name} ({n})" not in taken)
    return names[file]


def _seed(source: SeedSource, split: Split, text: Callable[[Row], str], where: Where, row: Row) -> Seed:
    """Make the seed of one row."""
    fields = row
    if source.fields:
        fields = {**row, **{variable: _column(row, column, where) for variable, column in source.fields.items()}}
    seed_id = str(_column(row, source.id, where)) if source.id else _digest(row)
    reference = accepted(_column(row, source.reference, where)) if source.reference else None
    try:
        question = text(fields)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error.message}", error.hint) from None
    on = side(str(_column(row, source.group, where)) if source.group else mask(question), split)
    return Seed(seed_id, on, fields, reference, source, question)


def _digest(row: Row) -> str:
    return hashlib.sha256(_encode(row).encode()).hexdigest()[:16]


def _column(row: Row, column: str, where: Where) -> object:
    if column not in row:
        raise RecipeError(
            f"{where}: no column '{column}'{nearest(column, row)}", "correct the seed or the recipe's `seeds`"
        )
    return row[column]


def _refuse_twins(seeds: Seeds, hashes: array[int]) -> None:
    """Raise RecipeError for the first id that occurs twice."""
    codes = np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64)
    order = np.argsort(codes, kind="stable")
    again = codes[order][1:] == codes[order][:-1]
    for place in np.sort(order[1:][again]).tolist():
        seed_id = seeds[place].id
        first = next(n for n in np.flatnonzero(codes == codes[place]).tolist() if seeds[n].id == seed_id)
        if first < place:  # otherwise two different ids have the same hash
            raise RecipeError(
                f"{_where(seeds, place)}: seed id '{seed_id}' is already used at {_where(seeds, first)}",
                "ids must be unique; drop the copy, or name another column with seeds.id",
            )


def _where(seeds: Seeds, place: int) -> Where:
    """The file and line of the seed with index `place`. To find them, the seed files are read again up to this seed."""
    places = (where for source in seeds.sources for where, _ in islice(read_rows(source), source.limit))
    return next(islice(places, place, None))
