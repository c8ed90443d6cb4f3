"""Finds the personal data in the completions of a corpus, and where each value comes from.

Each value is compared with the prompt of its own row, with the prompts of all rows, and with all seeds. The result
holds kinds, classes and ids of rows, and never a value. Memory grows with the number of values that were found in
completions, not with the number of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus
from synthgen.curation.lists import lengths, numbers
from synthgen.curation.privacy.find import hits_in
from synthgen.curation.privacy.likely import hint_bits, hint_names
from synthgen.curation.privacy.texts import all_texts
from synthgen.privacy.seeds import Known, parts_of, texts_of, texts_of_files
from synthgen.privacy.spellings import given, stands_in, tokens_in
from synthgen.recipe.privacy import PrivacySection
from synthgen.records import Source
from synthgen.tables.curation_settings import Entity

Origin = Literal["own", "other", "fabricated", "unknown"]
"""The origin of a value in a completion. The value is in the row's own prompt or seed, or in another prompt, seed or
private text, or in none of these places. If it is in none of them, and the seeds are not known, the origin is unknown.
"""
TITLES: dict[Origin, str] = {
    "own": "copied from its own prompt or seed",
    "other": "copied from another prompt, seed or private text",
    "fabricated": "fabricated: in no prompt and no seed",
    "unknown": "of unknown origin",
}
"""The classes of origin in words, in the order in which they are shown."""

_TEXT_ROLES = pa.array(["seed", "dataset"])  # roles of sources whose texts are in a row
_ASKED = ("prompt", "teacher_prompt")
_ROWS = 1024
MOST_IDS = 5
"""Maximum number of row ids that are kept for a group of values."""


@dataclass(frozen=True)
class Value:
    """One value in a completion. `row` is the number of its row among the kept rows. `id` and `seed_id` are the ids of
    the row and of its seed. `private_row` is true if the row was made from a private source. `tokens` are the tokens by
    which the value is looked for; see `spellings`. `own` is true if the value is in the row's own prompt.
    """

    entity: Entity
    row: int
    id: str
    seed_id: str
    private_row: bool
    tokens: frozenset[str]
    own: bool


@dataclass
class Group:
    """The values of one kind and class: the number of values, the number of rows with such a value, the number of
    values from a private source, and the ids of the first rows.
    """

    values: int = 0
    rows: int = 0
    private: int = 0
    ids: list[str] = field(default_factory=list)
    last: int = -1

    def add(self, row: int, row_id: str, private: bool) -> None:
        """Count one value. Call this with rows in ascending order."""
        self.values += 1
        self.private += private
        if row != self.last:
            self.rows += 1
            self.last = row
            if len(self.ids) < MOST_IDS:
                self.ids.append(shown_id(row_id))


@dataclass
class Origins:
    """The values of a corpus by kind and class. `rows` is the number of kept rows with a completion, and `units` is the
    number of their seeds. `made_from` maps a private source to the number of rows that were made from it. `leaks` are
    the values that were copied from elsewhere or from a private source, and `kinds` has the number of leaks of each
    kind.
    """

    rows: int
    units: int
    made_from: Counter[str]
    groups: dict[tuple[Entity, Origin], Group] = field(default_factory=dict)
    leaks: Group = field(default_factory=Group)
    unknown: Group = field(default_factory=Group)
    kinds: Counter[Entity] = field(default_factory=Counter)


@dataclass
class _Search:
    """The tokens that are looked for, and where they were found. `own` holds pairs (seed, token)."""

    wanted: frozenset[str]
    of_seeds: dict[str, set[str]]
    anywhere: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    own: set[tuple[str, str]] = field(default_factory=set)


def origins(folder: Path, known: Known, section: PrivacySection) -> Origins:
    """Find the values in the completions of the kept rows of the corpus `folder`, and class them. Raises CorpusError
    when a file is damaged or lacks a column.
    """
    values, result = _values(folder, known, frozenset(section.entities))
    search = _Search(frozenset(token for one in values for token in one.tokens), _by_seed(values))
    if values:
        for part in ("data", "rejected"):
            for _, batch in corpus.batches(folder, part, _ASKED, rows=_ROWS):
                _look(search, all_texts(batch, _ASKED)[0])
        for seeds in parts_of(known.seeds or (), _ROWS):
            for private in (False, True):
                some = [(seed.id, text) for seed in seeds if seed.source.private == private for text in texts_of(seed)]
                _look(search, pa.array([text for _, text in some], pa.string()), [one for one, _ in some], private)
        for texts in parts_of(texts_of_files(section.private), _ROWS):
            _look(search, pa.array([one.text for one in texts], pa.string()), (), True)
    for one in values:
        _count(result, one, _origin(one, search, known), bool(one.tokens & search.private))
    return result


def _values(folder: Path, known: Known, entities: Collection[Entity]) -> tuple[list[Value], Origins]:
    """The values in the completions, and the result in which they will be counted."""
    found: list[Value] = []
    seeds: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]  # hashes of ids
    made_from: Counter[str] = Counter()
    start = 0
    for _, batch in corpus.batches(folder, "data", ("id", "seed_id", "completion", "sources", *_ASKED), rows=_ROWS):
        batch = batch.filter(pa.array(lengths(batch["completion"]) > 0))
        seeds.append(np.fromiter(map(hash, batch["seed_id"].to_pylist()), np.int64))
        for name in known.of_rows:
            made_from[name] += _made_from(batch["sources"], name)
        for number, hits in _hits(batch, entities).items():
            row = batch.slice(number, 1)
            asked = [text for text in all_texts(row, _ASKED)[0].to_pylist() if text]
            hints = [hint_names(int(bits)) for bits in hint_bits(pa.array(asked, pa.string()))]
            tokens = set().union(*(tokens_in(text, some) for text, some in zip(asked, hints, strict=True)))
            ids = row.select(["id", "seed_id"]).to_pylist()[0]
            private = _is_private(row["sources"][0].as_py() or (), known)
            for entity, value in hits:
                same = frozenset(given(entity, value))
                own = bool(same & tokens) or any(stands_in(entity, value, text) for text in asked)
                found.append(Value(entity, start + number, ids["id"], ids["seed_id"], private, same, own=own))
        start += batch.num_rows
    return found, Origins(start, len(np.unique(np.concatenate(seeds))), made_from)


def _hits(batch: pa.RecordBatch, entities: Collection[Entity]) -> dict[int, list[tuple[Entity, str]]]:
    """The values in the completions of a batch, by row. If a row has the same value twice, it counts once."""
    texts, owners = all_texts(batch, ("completion",))
    bits = hint_bits(texts)
    likely = np.flatnonzero(bits)
    found: dict[int, dict[tuple[Entity, str], tuple[Entity, str]]] = {}
    for text, row, some in zip(texts.take(pa.array(likely)).to_pylist(), owners[likely], bits[likely], strict=True):
        for hit in hits_in(text, hint_names(int(some))):
            if hit.entity in entities:
                value = hit.entity, text[hit.start : hit.stop]
                found.setdefault(int(row), {}).setdefault((hit.entity, hit.same), value)
    return {row: [*found[row].values()] for row in sorted(found)}


def _made_from(sources: pa.Array, name: str) -> int:
    """The number of rows that were made from a text of the source `name`. `sources` is the column with the sources of
    each row.
    """
    each = np.repeat(np.arange(len(sources)), lengths(sources))
    flat = sources.flatten()
    fits = pc.and_(pc.equal(pc.struct_field(flat, "id"), name), pc.is_in(pc.struct_field(flat, "role"), _TEXT_ROLES))
    return len(np.unique(each[numbers(pc.fill_null(fits, False)).astype(bool)]))


def _is_private(sources: Iterable[Source], known: Known) -> bool:
    return any(one["id"] in known.private and one["role"] in _TEXT_ROLES.to_pylist() for one in sources)


def _by_seed(values: Sequence[Value]) -> dict[str, set[str]]:
    """The tokens of the values that are not in their own prompts, by the ids of their rows' seeds."""
    tokens: dict[str, set[str]] = {}
    for one in values:
        if not one.own:
            tokens.setdefault(one.seed_id, set()).update(one.tokens)
    return tokens


def _look(search: _Search, texts: pa.Array, seeds: Sequence[str] = (), private: bool = False) -> None:
    """Look for the wanted tokens in texts. If the texts are fields of seeds, `seeds` has the id of each text's seed."""
    bits = hint_bits(texts)
    for place in np.flatnonzero(bits).tolist():
        tokens = tokens_in(texts[place].as_py(), hint_names(int(bits[place]))) & search.wanted
        search.anywhere |= tokens
        if private:
            search.private |= tokens
        if seeds and (asked := search.of_seeds.get(seeds[place])):
            search.own |= {(seeds[place], token) for token in tokens & asked}


def _origin(one: Value, search: _Search, known: Known) -> Origin:
    if one.own or any((one.seed_id, token) in search.own for token in one.tokens):
        return "own"
    if one.tokens & search.anywhere:
        return "other"
    return "unknown" if known.why_not else "fabricated"


def _count(result: Origins, one: Value, origin: Origin, in_private: bool) -> None:
    private = one.private_row if origin == "own" else in_private
    result.groups.setdefault((one.entity, origin), Group()).add(one.row, one.id, private)
    if private or origin == "other":
        result.leaks.add(one.row, one.id, private)
        result.kinds[one.entity] += 1
    if origin == "unknown":
        result.unknown.add(one.row, one.id, private)


def shown_id(row_id: str) -> str:
    """The id of a row for a report. If the id itself holds personal data, a remark is returned instead."""
    hints: Iterator[int] = iter(hint_bits(pa.array([row_id])).tolist())
    return "(an id with personal data)" if hits_in(row_id, hint_names(next(hints))) else row_id
