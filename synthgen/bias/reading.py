"""Reads a corpus twice. The first time, it collects the facts about each row that the tests need. The second time, it
counts which words occur in sentences that mention which group. No text is kept in memory.

The order of the rows does not change the result, not even by rounding: facts and units are in the order of the hashes
of the rows' ids, and words in the order of the words' hashes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus
from synthgen.auditing.combinations import withheld
from synthgen.bias.association import LEAST_USES, Uses
from synthgen.bias.groups import Lexicon
from synthgen.bias.units import Signatures, units
from synthgen.bias.words import Hashes, Places, Words, filled, or_of, sequences, words
from synthgen.curation.lists import lengths, numbers
from synthgen.curation.plain import completion_text, contents
from synthgen.curation.refusals import refusal
from synthgen.executor import Services
from synthgen.tables.section import Section

ROWS = 1024  # number of rows in a batch
_COLUMNS = ("id", "seed_id", "group_id", "prompt", "completion", "finish_reason", "scores", "verdicts")
_MERGED = 1 << 22  # maximum number of counts in memory; beyond it, counts of the same word are added up


@dataclass(frozen=True)
class Facts:
    """The facts about the N rows that the tests need, in the order of a hash of the rows' ids. `kept` is true for kept
    rows, and false for rows that curation rejected.

    `in_prompt` and `in_answer` are the masks of the groups that a row's prompt and answer mention. `masked` has a line
    for each dimension, with one hash for each prompt. In this hash, all words for groups of the dimension count as the
    same word. `length` is the number of the answer's words. `scores` maps a name to the values of all rows, NaN where a
    row has none. `rejected_by` maps a rule of curation to the rows that it rejected. `unit` is the number of the row's
    unit (see `synthgen.bias.units`).
    """

    in_prompt: Hashes
    in_answer: Hashes
    masked: Hashes
    length: npt.NDArray[np.int64]
    refused: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]
    scores: dict[str, npt.NDArray[np.float64]]
    rejected_by: dict[str, npt.NDArray[np.bool_]]
    unit: Places

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.unit)

    @property
    def units(self) -> int:
        """The number of units."""
        return int(self.unit.max(initial=-1)) + 1


@dataclass(frozen=True)
class Reading:
    """The facts of all rows, the hashes of the tested words in ascending order, and the unit of each row in the order
    in which the rows were read.
    """

    facts: Facts
    vocabulary: Hashes
    unit: Places

    def places(self, hashes: Hashes) -> Places:
        """The place of each hash in the vocabulary, or -1."""
        if not len(self.vocabulary):
            return np.full(len(hashes), -1)
        place = np.minimum(np.searchsorted(self.vocabulary, hashes), len(self.vocabulary) - 1)
        return np.where(self.vocabulary[place] == hashes, place, -1)

    def spell(self, found: Words, place: Places, spelled: dict[int, str]) -> None:
        """Add to `spelled` the words of a batch that are not in it yet; the keys are places in the vocabulary."""
        unique, first = np.unique(place, return_index=True)
        for number, where in zip(unique.tolist(), first.tolist(), strict=True):
            if number >= 0 and number not in spelled:
                spelled[number] = found.spelled(where)


def read(folder: Path, book: Lexicon, *, repaired: bool = False) -> Reading:
    """Read the corpus `folder` for the first time. In a `repaired` corpus, the rows whose text is gone are left out:
    nobody knows whom they mention.
    """
    parts: list[dict[str, npt.NDArray[Any]]] = []
    named: tuple[_Named, _Named] = (_Named(), _Named())
    signatures, counts = Signatures(), _Counts()
    total = 0
    for kept, batch in _batches(folder):
        if repaired and not kept:
            batch = batch.filter(pa.array(~withheld(batch)))
        prompts, answers = _texts(batch)
        asked, answered = words(prompts), words(answers)
        masks, found = book.masks(asked), book.masks(answered)
        refused = filled_rows(batch.num_rows, refusal(_with_text(batch, answers), Section(), Services()).rejected)
        refused |= numbers(
            pc.fill_null(pc.is_in(batch["finish_reason"], pa.array(["refusal", "content_filter"])), False)
        ).astype(bool)
        parts.append(
            {
                "in_prompt": _of_rows(asked, masks),
                "in_answer": _of_rows(answered, found),
                "masked": np.stack([_masked(asked, masks & one.mask) for one in book.dimensions], 1),
                "length": np.bincount(answered.rows, minlength=answered.count),
                "refused": refused,
                "kept": np.full(batch.num_rows, kept),
            }
        )
        signatures.add(batch, ((asked, masks), (answered, found)), refused)
        named[0].add(total, batch["scores"], "name", "value")
        named[1].add(total, batch["verdicts"], "check", None)
        if kept:
            counts.add(answered.hashes[near_groups(answered, found) & (found == 0)])
        total += batch.num_rows
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else _none(book)
    columns |= {f"score {name}": _values(total, *found) for name, found in named[0].joined().items()}
    columns |= {f"rule {name}": _marked(total, rows) for name, (rows, _) in named[1].joined().items()}
    unit = units(signatures)
    order = signatures.order()
    sorted_ = {name: column[order] for name, column in columns.items()}
    facts = Facts(
        in_prompt=sorted_["in_prompt"],
        in_answer=sorted_["in_answer"],
        masked=np.ascontiguousarray(sorted_["masked"].T),
        length=sorted_["length"],
        refused=sorted_["refused"],
        kept=sorted_["kept"],
        scores={name[6:]: column for name, column in sorted_.items() if name.startswith("score ")},
        rejected_by={name[5:]: column for name, column in sorted_.items() if name.startswith("rule ")},
        unit=unit[order],
    )
    return Reading(facts, counts.often(), unit)


def uses_of(folder: Path, book: Lexicon, reading: Reading) -> tuple[list[Uses], dict[int, str]]:
    """Read the answers of the kept rows again, and count their words. Returns (the uses in each dimension, the word at
    each place of the vocabulary).
    """
    facts, spelled = reading.facts, dict[int, str]()
    uses = [Uses(dimension, len(reading.vocabulary), facts.units) for dimension in book.dimensions]
    total = 0
    for kept, batch in _batches(folder, ("prompt", "completion")):
        if kept:
            found = words(_texts(batch)[1])
            masks, place = book.masks(found), reading.places(found.hashes)
            for one in uses:
                one.add(found, masks, place, reading.unit[total : total + batch.num_rows])
            reading.spell(found, place, spelled)
        total += batch.num_rows
    return uses, spelled


def near_groups(found: Words, masks: Hashes) -> npt.NDArray[np.bool_]:
    """For each word: whether its sentence mentions any group."""
    first, stop = found.by_sentence()
    return np.repeat(or_of(masks, first) != 0, stop - first)


def _batches(folder: Path, columns: tuple[str, ...] = _COLUMNS) -> Iterator[tuple[bool, pa.RecordBatch]]:
    """Pairs (whether the rows were kept, a batch of rows)."""
    for part in ("data", "rejected"):
        for _, batch in corpus.batches(folder, part, columns, rows=ROWS):
            if batch.num_rows:
                yield part == "data", batch


def _texts(batch: pa.RecordBatch) -> tuple[pa.Array, pa.Array]:
    """(the prompts without their system messages, the answers)."""
    prompts, answers = batch["prompt"], batch["completion"]
    flat = prompts.flatten()
    said = pc.if_else(pc.equal(pc.struct_field(flat, "role"), "system"), "", pc.struct_field(flat, "content"))
    spoken = pa.StructArray.from_arrays([pc.fill_null(said, "")], ["content"])
    offsets = np.concatenate([[0], np.cumsum(lengths(prompts))]).astype(np.int32)
    asked = contents(pa.ListArray.from_arrays(pa.array(offsets), spoken), "\n")
    return asked, pc.fill_null(completion_text(answers, prompts), "")


def _with_text(batch: pa.RecordBatch, answers: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([answers, batch["prompt"]], names=["completion.text", "prompt"])


def filled_rows(count: int, rows: object) -> npt.NDArray[np.bool_]:
    """An array of `count` booleans that are true at the indexes `rows`."""
    return _marked(count, np.fromiter(rows, np.int64))  # type: ignore[call-overload]


def _marked(count: int, rows: Places) -> npt.NDArray[np.bool_]:
    marked = np.zeros(count, bool)
    marked[rows] = True
    return marked


def _values(count: int, rows: Places, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    filled_ = np.full(count, np.nan)
    filled_[rows] = values
    return filled_


def _of_rows(found: Words, masks: Hashes) -> Hashes:
    rows, first, _ = found.by_row()
    return filled(found.count, rows, or_of(masks, first))


def _masked(found: Words, masks: Hashes) -> Hashes:
    """A hash of each text, in which all words that name groups count as the same word. 0 for a text that mentions no
    group.
    """
    rows, first, stop = found.by_row()
    alike = np.where(masks != 0, np.uint64(1), found.hashes)
    hashes = np.maximum(sequences(alike, first, stop), np.uint64(1))
    return filled(found.count, rows, np.where(or_of(masks, first) != 0, hashes, np.uint64(0)))


def _none(book: Lexicon) -> dict[str, npt.NDArray[Any]]:
    """The facts of a corpus without rows."""
    kinds = {"in_prompt": np.uint64, "in_answer": np.uint64, "length": np.int64, "refused": bool, "kept": bool}
    empty: dict[str, npt.NDArray[Any]] = {name: np.zeros(0, kind) for name, kind in kinds.items()}
    return {**empty, "masked": np.zeros((0, len(book.dimensions)), np.uint64)}


class _Named:
    """The entries of a column of lists, by the names of the entries: for each name, the rows that have such an entry,
    and the values of these entries.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[Places, npt.NDArray[np.float64]]]] = {}

    def add(self, start: int, lists: pa.Array, name: str, value: str | None) -> None:
        flat = lists.flatten()
        if not len(flat):
            return
        rows = start + np.repeat(np.arange(len(lists)), lengths(lists))
        names = pc.struct_field(flat, name).dictionary_encode()
        codes = numbers(names.indices)
        values = numbers(pc.struct_field(flat, value)).astype(float) if value else np.ones(len(rows))
        for code, each in enumerate(names.dictionary.to_pylist()):
            here = codes == code
            self._parts.setdefault(each, []).append((rows[here], values[here]))

    def joined(self) -> dict[str, tuple[Places, npt.NDArray[np.float64]]]:
        joined = {}
        for name, parts in sorted(self._parts.items()):
            joined[name] = np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
        return joined


class _Counts:
    """How often words occur."""

    def __init__(self) -> None:
        self._parts: list[tuple[Hashes, Places]] = []
        self._held = 0

    def add(self, hashes: Hashes) -> None:
        unique, counts = np.unique(hashes, return_counts=True)
        self._parts.append((unique, counts))
        self._held += len(unique)
        if self._held > _MERGED:
            self._merge()

    def _merge(self) -> None:
        if self._parts:
            hashes, place = np.unique(np.concatenate([one for one, _ in self._parts]), return_inverse=True)
            counts = np.bincount(place, np.concatenate([one for _, one in self._parts])).astype(np.int64)
            self._parts = [(hashes, counts)]
        self._held = 0

    def often(self) -> Hashes:
        """The hashes of the words with at least `LEAST_USES` uses, ascending."""
        self._merge()
        return self._parts[0][0][self._parts[0][1] >= LEAST_USES] if self._parts else np.zeros(0, np.uint64)
