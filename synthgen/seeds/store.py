"""Stores all seeds of a recipe in little memory.

The split, the source and the file offset of each seed are in arrays in memory, 11 bytes a seed. Ids, fields, references
and questions are in an unnamed temporary file in the cache folder. The operating system deletes this file when the
process ends for any reason. A requested seed is read from the temporary file. A run therefore uses the rows that were
checked at its start, even when the seed files change later.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import marshal
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, overload

import numpy as np

from synthgen import durable
from synthgen.recipe import SeedSource
from synthgen.records import SPLITS
from synthgen.seeds.changes import RowHashes
from synthgen.sources import own_license

_BUFFER = 1 << 20
_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode


class Seed(NamedTuple):  # creating a named tuple is four times as fast as creating a frozen data class
    """One seed. `fields` are the variables for templates. `reference` lists the accepted answers, or is None when none
    is known. `question` is the seed's question, rendered with the template that the strategy uses for questions.
    """

    id: str
    split: str
    fields: dict[str, object]
    reference: list[str] | None
    source: SeedSource
    question: str


def copy_id(seed_id: str, number: int) -> str:
    """The id of a copy of a seed. The copies of a seed are numbered from 2 on."""
    return f"{seed_id}#{number}"


class Seeds(Sequence[Seed]):
    """The seeds of a recipe, in the order of their files.

    `counts` is the number of seeds in each split. `fingerprint` is a hash of ids, splits, fields and references, so it
    changes when any row changes. `rows` holds hashes of the rows, with which a later run can find out which rows have
    changed. `fingerprint` and `rows` are available only if `hashed` is true. `licenses` holds the licenses that rows
    state themselves, each with the index of the rows' source in `sources`.
    """

    def __init__(self, sources: Sequence[SeedSource], *, hashed: bool = True) -> None:
        self.sources, self.hashed = tuple(sources), hashed
        folder = durable.cache_folder()
        durable.make_folder(folder)
        self._file = tempfile.TemporaryFile(dir=folder, buffering=_BUFFER)  # noqa: SIM115 - lives as long as this
        self._number = self._file.fileno()
        self._ends = array("q", [0])
        self._splits = bytearray()
        self._sources = array("H")
        self._hash = hashlib.sha256(b"[")
        self._written = True
        self._ids: dict[str, list[tuple[str, int]]] = {}
        self._copies = array("I")
        self.rows = RowHashes()
        self.licenses: dict[tuple[int, str], None] = {}

    def add(self, seed: Seed, source: int, file: str) -> None:
        """Append a seed. `source` is the index of the seed's source in `sources`. `file` is the name of the file that
        contains the seed's row.
        """
        data = marshal.dumps((seed.id, seed.fields, seed.reference, seed.question))
        self._file.write(data)
        self._written = False
        if self.hashed:
            content = _encode([seed.fields, seed.reference])[1:].encode()
            self._hash.update(f'{"," if self._splits else ""}[{_encode(seed.id)},"{seed.split}",'.encode())
            self._hash.update(content)
            self.rows.add(file, seed.id.encode() if seed.source.id else b"", content)
        if (own := own_license(seed.fields)) is not None:
            self.licenses[source, own] = None
        self._ends.append(self._ends[-1] + len(data))
        self._splits.append(SPLITS.index(seed.split))
        self._sources.append(source)

    def mark_copy(self, place: int, number: int) -> None:
        """Record that the seed with index `place` is a copy of an identical earlier seed. The copies of a seed get the
        numbers 2, 3 and so on. The `number` becomes a part of the copy's id. No seed may be added afterwards.
        """
        if not self._copies:
            self._copies.frombytes(bytes(self._copies.itemsize * len(self)))
        self._copies[place] = number

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON list of all seeds (id, split, fields, reference)."""
        assert self.hashed
        whole = self._hash.copy()
        whole.update(b"]")
        return whole.hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """The number of seeds in each split."""
        return {split: self._splits.count(number) for number, split in enumerate(SPLITS)}

    def places(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The indices of all seeds, ordered by split. Within a split, the indices are in the order of the files."""
        return np.argsort(np.frombuffer(self._splits, np.uint8), kind="stable")

    def nearest(self, split: str, count: int, distance: Callable[[str], float], *, without: str) -> list[Seed]:
        """From one split, the `count` seeds whose ids have the smallest `distance`. The seed whose id is `without` is
        left out.

        The first call for a split reads the ids of all its seeds and keeps them in memory. Every call computes the
        distance of each id.
        """
        if split not in self._ids:
            code = SPLITS.index(split)
            places = np.flatnonzero(np.frombuffer(self._splits, np.uint8) == code).tolist()
            self._ids[split] = [(self[place].id, place) for place in places]
        others = ((distance(seed_id), place) for seed_id, place in self._ids[split] if seed_id != without)
        return [self[place] for _, place in heapq.nsmallest(count, others)]

    def __len__(self) -> int:
        return len(self._splits)

    @overload
    def __getitem__(self, place: int) -> Seed: ...
    @overload
    def __getitem__(self, place: slice) -> list[Seed]: ...
    def __getitem__(self, place: int | slice) -> Seed | list[Seed]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        if place < 0:
            place += len(self)
        split, source = SPLITS[self._splits[place]], self.sources[self._sources[place]]
        if not self._written:
            self._file.flush()
            self._written = True
        start, end = self._ends[place], self._ends[place + 1]
        seed_id, fields, reference, question = marshal.loads(os.pread(self._number, end - start, start))
        if self._copies and self._copies[place]:
            seed_id = copy_id(seed_id, self._copies[place])
        return Seed(seed_id, split, fields, reference, source, question)

    def __iter__(self) -> Iterator[Seed]:
        for number in range(len(self)):
            yield self[number]
