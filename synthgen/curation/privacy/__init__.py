"""Personal data and secrets in rows: the check `personal_data` rejects such rows, and the edit `redact` replaces the
values with pseudonyms.

The tables in `patterns` say what is searched. A value that a pattern cannot describe, such as the name of a person, is
not found.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pyarrow as pa

from synthgen.curation.lists import appended
from synthgen.curation.privacy.find import Hit, hits_in
from synthgen.curation.privacy.patterns import ENTITIES
from synthgen.curation.privacy.texts import COLUMNS, Place, Row, completion_starts, rows_with, texts_of
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.records import Edit, Span
from synthgen.tables.curation_settings import Entity, PersonalData

_LABEL = re.compile(r"\[([A-Z]+)_(\d+)\]")


def personal_data(batch: pa.RecordBatch, section: PersonalData, services: Services) -> Verdicts:
    """Reject a row with personal data or a secret. The reason names the kind of the value and its place, but never the
    value itself.
    """
    rejected = {}
    for number, row, hints in rows_with(batch, section.entities):
        hits = [(place, hit) for place, text, _ in texts_of(row) for hit in hits_in(text, hints)]
        rejected[number] = _rejection(row, [pair for pair in hits if pair[1].entity in section.entities])
    return Verdicts(rejected)


def _rejection(row: Row, hits: list[tuple[Place, Hit]]) -> Rejection:
    """The rejection of a row because of one value: the first value in the completion or, if it has none, in the row."""
    starts = completion_starts(row)
    place, hit = min(hits, key=lambda pair: pair[0] not in starts)
    offset = starts.get(place, 0)
    start, stop = hit.start + offset, hit.stop + offset
    reason = f"{ENTITIES[hit.entity].title} at characters {start + 1}–{stop} of {place.title(row)}"
    if len(hits) > 1:
        reason += f", and {len(hits) - 1} more"
    span: Span | None = {"start": start, "stop": stop} if place in starts else None
    return Rejection(reason, score=len(hits), rule=hit.entity, span=span)


def redact(batch: pa.RecordBatch, section: PersonalData, services: Services) -> pa.RecordBatch:
    """Replace each value with a pseudonym such as [EMAIL_1]. Within a row, the same value has the same pseudonym, and
    pseudonyms are numbered in the order in which their values appear.

    `edits` gets an entry for each place in the completion's text, and one entry without a range if other texts of the
    row changed. The entries have no hash of the text before the edit, because the hash of a short text would reveal the
    text.
    """
    changed_rows, rows, entries = [], [], []
    for number, row, hints in rows_with(batch, section.entities):
        edits = _redact_row(row, hints, frozenset(section.entities))
        changed_rows.append(row)
        rows += [number] * len(edits)
        entries += edits
    if not rows:
        return batch
    numbers = np.unique(np.array(rows, np.int64))
    order = np.arange(batch.num_rows)
    order[numbers] = batch.num_rows + np.arange(len(numbers))
    columns = {}
    for name in COLUMNS:
        new = pa.array([row[name] for row in changed_rows], batch[name].type)
        columns[name] = pa.concat_arrays([batch[name], new]).take(pa.array(order))
    kind = batch["edits"].type
    columns["edits"] = appended(batch["edits"], [(np.array(rows, np.int64), pa.array(entries, kind.value_type))])
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _redact_row(row: Row, hints: frozenset[str], entities: frozenset[Entity]) -> list[Edit]:
    """Replace the values in the texts of a row. Returns the entries for `edits`."""
    names, starts = _Names(row), completion_starts(row)
    edits: list[Edit] = []
    elsewhere = False
    for place, text, put in texts_of(row):
        start = starts.get(place)
        while hits := [hit for hit in hits_in(text, hints) if hit.entity in entities]:
            if start is None:
                elsewhere = True
            else:
                edits += [_entry(hit.start + start, hit.stop + start) for hit in hits]
            text = names.replace(text, hits)
            start = None  # from here on, places refer to the edited text, not to the text before the edit
            put(text)
    return [*edits, _entry(None, None)] if elsewhere else edits


def _entry(start: int | None, end: int | None) -> Edit:
    return {"edit": "redact", "start": start, "end": end, "before_sha256": None}


class _Names:
    """The pseudonyms of the values in one row."""

    def __init__(self, row: Row) -> None:
        self._labels: dict[tuple[Entity, str], str] = {}
        self._last: Counter[str] = Counter()  # the highest number of each label; the row may have labels of other tools
        for _, text, _ in texts_of(row):
            for found in _LABEL.finditer(text):
                self._last[found[1]] = max(self._last[found[1]], int(found[2]))

    def replace(self, text: str, hits: list[Hit]) -> str:
        """The text with a pseudonym in the place of each hit. Hits are in order and do not overlap."""
        parts, position = [], 0
        for hit in hits:
            parts += [text[position : hit.start], hit.quote, self._label(hit), hit.quote]
            position = hit.stop
        return "".join([*parts, text[position:]])

    def _label(self, hit: Hit) -> str:
        key = (hit.entity, hit.same)
        if key not in self._labels:
            name = ENTITIES[hit.entity].label
            self._last[name] += 1
            self._labels[key] = f"[{name}_{self._last[name]}]"
        return self._labels[key]
