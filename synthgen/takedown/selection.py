"""Finds what the user means by the id of a source, and the rows that were derived from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from synthgen import corpus
from synthgen.errors import UserError, close, one_line
from synthgen.generation.inputs import Inputs
from synthgen.records import Source
from synthgen.removed import Removed, Tombstone

_LINEAGE = ["id", "seed_id", "parents", "group_id", "sources"]
_SUGGESTED = 10_000  # maximum number of seeds among which a similar id is searched
_COPY = re.compile(r"(.+)#\d+", re.DOTALL)


@dataclass
class _Known:
    """What a run knows about a name. `sources` are the ids of whole sources, and `files` are the ids of the sources
    that hold seeds. `seeds` are the ids of the seeds that the name may mean. `is_row` says whether a row has the name,
    and `others` are ids of other seeds, among which a similar id is searched.
    """

    sources: dict[str, None] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    seeds: set[str] = field(default_factory=set)
    is_row: bool = False
    others: dict[str, None] = field(default_factory=dict)


def meant(folder: Path, name: str, inputs: Inputs | None, date: str) -> tuple[str, Tombstone]:
    """What `name` means in the generated corpus `folder`, as (description in words, tombstone without counts).

    A name is tried as the id of a source, then of a seed (also as "SOURCE#SEED"), then of a row. `inputs` are the seeds
    of the run, if they are known. These seeds are searched too, because a seed may have no row yet. Raises UserError
    when no source, seed or row has the name.
    """
    known = _look(folder, name)
    if inputs is not None:
        known.sources |= dict.fromkeys(one.source for one in inputs.recipe.seeds)
        known.files |= {one.source for one in inputs.recipe.seeds}
        if name not in known.sources and not known.seeds and not known.is_row:
            for seed in inputs.seeds:
                _note_seed(known, seed.id, _candidates(name), {seed.source.source})
    if name in known.sources:
        return f"the source '{name}'", Tombstone(name, date, sources=(name,))
    if known.seeds:
        copies = {one for one in known.seeds if (copy := _COPY.fullmatch(one)) and copy[1] in known.seeds}
        seeds = tuple(sorted(known.seeds - copies))
        examples = tuple(f"{file}#{seed}" for seed in seeds for file in sorted(known.files))
        return f"the seed '{seeds[0]}'", Tombstone(name, date, sources=examples, seeds=seeds)
    if known.is_row:
        return f"the row '{name}'", Tombstone(name, date, rows=(name,))
    raise _unknown(name, known, folder.parent)


def _candidates(name: str) -> dict[str, str | None]:
    """The ids of seeds that a name may mean. The value of each id is the source that the seed must have, or None if
    the name states no source.
    """
    found: dict[str, str | None] = {name: None}
    for place, letter in enumerate(name):
        if letter == "#":
            found.setdefault(name[place + 1 :], name[:place])
    if copy := _COPY.fullmatch(name):
        found[copy[1]] = None
    return found


def _look(folder: Path, name: str) -> _Known:
    known, wanted = _Known(), _candidates(name)
    for _, batch in corpus.batches(folder, "data", _LINEAGE):
        columns = (batch[column].to_pylist() for column in ("id", "seed_id", "sources"))
        for row_id, seed_id, sources in zip(*columns, strict=True):
            known.is_row |= row_id == name
            files = {one["id"] for one in sources if one["role"] in ("seed", "dataset")}
            known.files |= files
            for one in sources:
                if one["role"] != "few_shot" or one["id"].endswith("#examples"):
                    known.sources[one["id"]] = None
                elif one["id"] == name:  # this seed itself may have no row
                    known.seeds |= {seed for seed, file in wanted.items() if file in known.files}
            _note_seed(known, seed_id, wanted, files)
    for _, batch in corpus.batches(folder, "failures", ["id", "seed_id"]):
        for seed_id in batch["seed_id"].to_pylist():
            _note_seed(known, seed_id, wanted, known.files)
    return known


def _note_seed(known: _Known, seed_id: str, wanted: dict[str, str | None], files: set[str]) -> None:
    if seed_id in wanted and (wanted[seed_id] is None or wanted[seed_id] in files):
        known.seeds.add(seed_id)
    elif len(known.others) < _SUGGESTED:
        known.others[seed_id] = None


def _unknown(name: str, known: _Known, run: Path) -> UserError:
    near = [one for one in known.sources if name.lower() in one.lower()][:3]
    near = near or close(name, [*known.sources, *known.others])
    hint = f"did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
    listed = ", ".join(list(known.sources)[:10])
    return UserError(
        one_line(f"{run} has no source, seed or row with the id '{name}'"),
        one_line(hint or f"its sources: {listed}; `synthgen show {run}` shows ids of seeds and rows"),
    )


@dataclass
class Selected:
    """The rows to remove: their `ids` and the `seeds` from which they were made. `others` are the rows that are removed
    only because they are in the group of a removed row, were made from a removed row, or share a reply with it.
    """

    ids: set[str] = field(default_factory=set)
    seeds: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)


def select(folder: Path, removed: Removed, *, generated: bool) -> Selected:
    """Find the rows of the corpus `folder` that were derived from something in `removed`. Rows of one group are removed
    together. The ids of the removed rows are held in memory.

    If a teacher `generated` the rows, the rows of a seed that share a reply are removed together too. For example, all
    questions about a document are in one reply. This reply must be deleted, so no command could make the other rows
    again.
    """
    found, groups, replies = Selected(), set[str](), set[tuple[str, str]]()

    def take(row_id: str, seed_id: str, parents: Sequence[str], group: str | None) -> None:
        found.ids.add(row_id)
        found.seeds.add(seed_id)
        if group is not None:
            groups.add(group)
        if generated:
            replies.update((seed_id, one) for one in parents)

    for row_id, seed_id, parents, group, sources in _lineages(folder):
        if removed.has_row(row_id, seed_id, sources, parents):
            take(row_id, seed_id, parents, group)
    before = 0
    while before != len(found.ids):
        before = len(found.ids)
        for row_id, seed_id, parents, group, _ in _lineages(folder):
            shares = group in groups or any((seed_id, one) in replies for one in parents)
            if row_id not in found.ids and (shares or not found.ids.isdisjoint(parents)):
                take(row_id, seed_id, parents, group)
                found.others.add(row_id)
    return found


def _lineages(folder: Path) -> Iterator[tuple[str, str, Sequence[str], str | None, Iterable[Source]]]:
    for _, batch in corpus.batches(folder, "data", _LINEAGE):
        columns = (batch[column].to_pylist() for column in _LINEAGE)
        for row_id, seed_id, parents, group, sources in zip(*columns, strict=True):
            yield row_id, seed_id, parents or [], group, sources or []
