"""The check for rows that hold a question or an answer of an evaluation set.

A row of the split `train` is rejected when one of its messages has sequences of words in common with a question or a
long answer of an evaluation set. These sequences must hold at least a stated share of the words of the question or
answer. Reasoning and tool calls are not searched.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from unicodedata import is_normalized, normalize

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus
from synthgen.curation.decontamination.index import Hit, Index, index_of
from synthgen.curation.decontamination.sets import items_of
from synthgen.curation.decontamination.words import pieces, words_of
from synthgen.curation.held_out import is_held_out
from synthgen.curation.lists import Rows, lengths, numbers
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.records import Span
from synthgen.seeds.files import walk
from synthgen.tables.curation_settings import Decontamination

NAME = "decontamination"
_FIELDS = ("prompt", "completion")


def files(section: Decontamination) -> list[Path]:
    """The files and folders of the evaluation sets."""
    return [Path(one.path) for one in section.sets]


def decontamination(batch: pa.RecordBatch, section: Decontamination, services: Services) -> Verdicts:
    """Reject rows of `train` that hold a question or a long answer of an evaluation set. The score is the share of the
    words of this question or answer that were found. `matched_id` is the id of the row of the evaluation set that holds
    the question or answer, and `rule` is the name of the set.
    """
    index = _index(section, _state(section))
    learned = np.flatnonzero(~numbers(is_held_out(batch["split"])).astype(bool))
    chosen = batch.take(pa.array(learned))
    rejected: dict[int, Rejection] = {}
    for field in _FIELDS:
        rows, texts = _messages(chosen[field])
        for message, hit in _hits(index, texts, section.min_share):
            row = int(learned[rows[message]])
            if row not in rejected or hit.share > (rejected[row].score or 0):
                first = int(np.searchsorted(rows, rows[message]))
                messages = [text or "" for text in texts.slice(first, message - first + 1).to_pylist()]
                rejected[row] = _rejection(field, messages, hit, section.min_share)
    return Verdicts(rejected)


def _messages(conversations: pa.Array) -> tuple[Rows, pa.Array]:
    """Return (index of its conversation, content) for each message."""
    rows = np.repeat(np.arange(len(conversations)), lengths(conversations))
    return rows, pc.struct_field(conversations.flatten(), "content")


def _hits(index: Index, texts: pa.Array, min_share: float) -> Iterator[tuple[int, Hit]]:
    """Yield (index of the message, hit) for the messages `texts`."""
    for start, part in pieces(texts):
        for message, hit in index.find(words_of(part), min_share):
            yield start + message, hit


def _span(text: str, start: int, stop: int) -> Span:
    """The characters of `text` from place `start` up to place `stop` in the text's Unicode form NFC."""
    if is_normalized("NFC", text):
        return {"start": start, "stop": stop}
    places = range(len(text) + 1)
    start, stop = (bisect_right(places, p, key=lambda k: len(normalize("NFC", text[:k]))) - 1 for p in (start, stop))
    return {"start": start, "stop": stop}


def _rejection(field: str, messages: list[str], hit: Hit, limit: float) -> Rejection:
    """The rejection for a hit. `messages` are the messages of the prompt or completion (`field`) up to the message with
    the hit.
    """
    span = _span(messages[-1], hit.start, hit.stop)
    where = f"in the {field}" if len(messages) == 1 else f"in message {len(messages)} of the {field}"
    characters = f"characters {span['start']} to {span['stop']}"
    before = sum(len(message) + 1 for message in messages[:-1])  # a line feed ends each message in `completion.text`
    whole: Span = {"start": before + span["start"], "stop": before + span["stop"]}
    source = hit.source
    return Rejection(
        f"holds {hit.share:.0%} of the words of {source.part} of {source.set} ({source.id}): {where}, {characters}",
        score=hit.share,
        rule=source.set,
        threshold=limit,
        matched_id=source.id,
        span=whole if field == "completion" else None,
    )


def summary(section: Decontamination, folder: Path) -> dict[str, dict[str, int]]:
    """For each evaluation set: the number of its rows (`rows`), the number of its rows that a verdict names (`found`),
    and the number of rows of the corpus that were rejected because of this set (`rejected`).
    """
    rejected: Counter[tuple[str, str]] = Counter()
    for _, batch in corpus.batches(folder, "rejected", ["verdicts"]):
        entries = batch["verdicts"].flatten()
        ours = entries.filter(pc.equal(pc.struct_field(entries, "check"), NAME))
        names = (pc.struct_field(ours, name).to_pylist() for name in ("rule", "matched_id"))
        rejected.update(zip(*names, strict=True))
    return {
        one.name: {
            "rows": len(items_of(one)),
            "found": sum(name == one.name for name, _ in rejected),
            "rejected": sum(count for (name, _), count in rejected.items() if name == one.name),
        }
        for one in section.sets
    }


def _state(section: Decontamination) -> tuple[tuple[str, int, int], ...]:
    """The name, size and time of each file of the evaluation sets. The result changes when a file changes."""
    paths = [path for one in files(section) for path in ([one] if one.is_file() else walk(one))]
    return tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(paths))


@lru_cache(maxsize=1)
def _index(section: Decontamination, state: tuple[tuple[str, int, int], ...]) -> Index:
    """The index of the evaluation sets. Each process makes the index once, and again only when a file changes."""
    return index_of([(one.name, items_of(one)) for one in section.sets], section.ngram)
