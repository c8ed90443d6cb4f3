"""Compares the completions of a corpus with private texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from synthgen import corpus
from synthgen.curation.lists import lengths
from synthgen.curation.privacy.texts import all_texts
from synthgen.privacy.origins import MOST_IDS, shown_id
from synthgen.privacy.seeds import Known, private_texts
from synthgen.privacy.spans import Spans
from synthgen.recipe.privacy import PrivacySection

_ROWS = 1024


@dataclass
class Copies:
    """The copies from one private source. `rows` is the number of rows that have a span of words in common with a text
    of the source. `own` is the number of these rows whose longest span is from their own seed. `longest` is the number
    of words of the longest span, and `ids` are the ids of the first rows. `searched` is the number of texts that were
    searched, and `short` is the number of texts that are too short for the search.
    """

    source: str
    searched: int = 0
    short: int = 0
    rows: int = 0
    own: int = 0
    longest: int = 0
    ids: list[str] = field(default_factory=list)


def copies(folder: Path, known: Known, section: PrivacySection) -> list[Copies]:
    """The copies from each private source that has texts, and from each file in `private`. The completions of the corpus
    `folder` are searched. Raises RecipeError when a private file cannot be read, and CorpusError when a file of the
    corpus is damaged.
    """
    names: dict[str, int] = {}
    owners: list[int] = []
    seeds: list[str] = []
    texts: list[str] = []
    for one in private_texts(known, section):
        owners.append(names.setdefault(one.source, len(names)))
        seeds.append(one.seed_id)
        texts.append(one.text)
    for path in section.private:  # a file without any text is reported too
        names.setdefault(Path(path).name, len(names))
    if not texts:
        return [Copies(name) for name in names]
    index = Spans(texts, owners, min_words=section.min_words, min_share=section.min_share, shortest=section.shortest)
    owner = np.array(owners)
    searched = np.bincount(owner, index.long_enough, len(names)).astype(int)
    whole = np.bincount(owner, minlength=len(names))
    found = [Copies(name, int(searched[n]), int(whole[n] - searched[n])) for name, n in names.items()]
    for row_id, seed_id, private, words in _spans(folder, index):
        copied = found[owners[private]]
        copied.rows += 1
        copied.own += seeds[private] != "" and seeds[private] == seed_id
        copied.longest = max(copied.longest, words)
        if len(copied.ids) < MOST_IDS:
            copied.ids.append(shown_id(row_id))
    return found


def _spans(folder: Path, index: Spans) -> Iterator[tuple[str, str, int, int]]:
    """Yield (row's id, its seed's id, number of the private text, words of the span) for the longest span of each row
    and each source.
    """
    for _, batch in corpus.batches(folder, "data", ("id", "seed_id", "completion"), rows=_ROWS):
        batch = batch.filter(pa.array(lengths(batch["completion"]) > 0))
        texts, rows = all_texts(batch, ("completion",))
        best: dict[tuple[int, int], tuple[int, int]] = {}
        for span in index.find(texts):
            key = int(rows[span.text]), span.source
            if span.words > best.get(key, (0, 0))[1]:
                best[key] = span.private, span.words
        for row, source in sorted(best):
            yield (batch["id"][row].as_py(), batch["seed_id"][row].as_py(), *best[row, source])
