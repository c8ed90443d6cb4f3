"""Loads seed files into `Seeds`: ids, groups, splits and references, in one pass over the rows."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from pathlib import Path

import numpy as np

from synthgen.errors import RecipeError, nearest, told_in_one_line
from synthgen.recipe import SeedSource, Split
from synthgen.seeds.groups import mask, side
from synthgen.seeds.rows import Row, Where, read_rows
from synthgen.seeds.store import Seed, Seeds, copy_id
from synthgen.values import accepted, is_blank, is_unseen

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


@told_in_one_line()
def load_seeds(
    sources: Sequence[SeedSource], split: Split, text: Callable[[Row], str], *, hashed: bool = True
) -> Seeds:
    """All seeds, in the order of the files and their rows. `text` renders a seed's question from its fields. `hashed`
    is explained at `Seeds`.

    Rows with the same value in the recipe's group column form a group. Without a group column, seeds whose questions
    differ only in names, numbers, spacing and punctuation form a group. The second of two identical rows gets the id of
    the first with the suffix "#2", and so on. An unusable row, or an id that two different rows have, raises
    RecipeError, which names the file and the line.
    """
    seeds = Seeds(sources, hashed=hashed)
    hashes = array("q")  # hashes of the ids; the ids themselves are compared only if their hashes are equal
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
        _number_copies(seeds, hashes)  # report a repeated id before an error in a later row
        raise
    _number_copies(seeds, hashes)
    return seeds


def _name(source: SeedSource, file: str, names: dict[str, str]) -> str:
    """A short name for a seed file: its path without the folders above the recipe's path. If another file has the same
    name, a number is appended. The name is stored in `names` under `file`.
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
    seed_id = _id(row, source.id, where) if source.id else _digest(row)
    try:
        reference = accepted(_column(row, source.reference, where)) if source.reference else None
    except ValueError as error:
        raise RecipeError(
            f"{where}: the reference in column '{source.reference}' is {error}",
            "a reference is a text, a number, or a list of these",
        ) from None
    try:
        question = text(fields)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error.message}", error.hint) from None
    if is_unseen(question):
        raise RecipeError(f"{where}: the question is empty", "leave the row out of the file, or fill it in")
    group = _column(row, source.group, where) if source.group else None
    on = side(mask(question) if group is None or is_blank(group) else str(group), split)
    return Seed(seed_id, on, fields, reference, source, question)


def _id(row: Row, column: str, where: Where) -> str:
    value = _column(row, column, where)
    if type(value) is str and not is_unseen(value):  # by far the most frequent case
        return value
    if is_blank(value):
        raise RecipeError(f"{where}: no id in column '{column}'", "fill it in, or leave out `id` under seeds")
    return str(value)


def _digest(row: Row) -> str:
    return hashlib.sha256(_encode(row).encode()).hexdigest()[:16]


def _column(row: Row, column: str, where: Where) -> object:
    if column not in row:
        raise RecipeError(
            f"{where}: no column '{column}'{nearest(column, row)}", "correct the seed or the recipe's `seeds`"
        )
    return row[column]


def _number_copies(seeds: Seeds, hashes: array[int]) -> None:
    """Number the copies of each seed. Raises RecipeError for the first seed that has the id of a different seed."""
    codes = np.frombuffer(hashes, np.int64) if hashes else np.zeros(0, np.int64)
    order = np.argsort(codes, kind="stable")
    again = np.flatnonzero(codes[order][1:] == codes[order][:-1]) + 1
    copies: list[tuple[int, int]] = []
    clashes: list[tuple[int, int]] = []
    firsts: dict[str, tuple[int, str]] = {}  # id of a seed → its index and content, for ids with the current hash
    count: dict[str, int] = {}
    last = -1
    for spot in again.tolist():
        if spot != last + 1:
            seed = seeds[int(order[spot - 1])]
            firsts, count = {seed.id: (int(order[spot - 1]), _content(seed))}, {seed.id: 1}
        last, place = spot, int(order[spot])
        seed = seeds[place]
        first, content = firsts.setdefault(seed.id, (place, _content(seed)))
        count[seed.id] = count.get(seed.id, 0) + 1
        if content != _content(seed):
            clashes.append((place, first))
        elif first != place:
            copies.append((place, count[seed.id]))
    if copies:
        clashes += _taken(seeds, copies, codes, order)
    if clashes:
        place, first = min(clashes)
        raise RecipeError(
            f"{_where(seeds, place)}: seed id '{seeds[place].id}' is already used at {_where(seeds, first)}",
            "ids must be unique; drop the copy, or name another column with seeds.id",
        )
    for place, number in copies:
        seeds.mark_copy(place, number)


def _content(seed: Seed) -> str:
    return _encode([seed.fields, seed.reference])


def _taken(
    seeds: Seeds, copies: list[tuple[int, int]], codes: np.ndarray, order: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Yield (index of a copy, index of another seed) for each copy whose new id is already the id of another seed."""
    new = [copy_id(seeds[place].id, number) for place, number in copies]
    found = np.searchsorted(codes, np.array([hash(name) for name in new], np.int64), sorter=order)
    for (place, _), name, spot in zip(copies, new, found.tolist(), strict=True):
        while spot < len(order) and codes[order[spot]] == hash(name):
            if seeds[int(order[spot])].id == name:
                yield place, int(order[spot])
            spot += 1


def _where(seeds: Seeds, place: int) -> Where:
    """The file and line of the seed with index `place`. To find the line, the seed files are read again up to this
    seed.
    """
    places = (where for source in seeds.sources for where, _ in islice(read_rows(source), source.limit))
    return next(islice(places, place, None))
