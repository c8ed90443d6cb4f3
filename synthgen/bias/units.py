"""Units: sets of rows that are not independent. Intervals treat a unit as one observation.

Two rows belong to the same unit if a chain of these pairs joins them:

- rows with the same seed or the same group,
- rows that share a sentence of at least `LONG` words that mentions a group of people, in prompts or in answers,
- rows whose answers are near duplicates and have at least `LONG_ANSWER` words.

So a copied passage is one observation, however many seeds it came from. A sentence that more than a fifth of all rows
have counts as part of a template, and joins no rows. Refusals do not join rows either, because the teacher refuses in
the same words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen.bias.words import Hashes, Places, Words, or_of, sequences

LONG = 8
"""A sentence joins the rows that share it only if it has at least this many words."""
COMMON = 0.2
"""The share of rows above which a sentence counts as part of a template."""
SIMILAR = 0.7
"""The Jaccard similarity of near duplicates, for sets of sequences of `WORDS` words."""
WORDS = 3
LONG_ANSWER = 20
_MARKS = 64  # number of slots that are compared in the sketches of two rows before the rows are joined


class Signatures:
    """The features of each row that `units` compares. Rows are added batch by batch."""

    def __init__(self) -> None:
        self.count = 0
        self.ids: list[Hashes] = []
        self.names: dict[str, list[Hashes]] = {"seed_id": [], "group_id": []}
        self.sentences: list[tuple[Places, Hashes]] = []
        self.keys: list[Hashes] = []
        self.marks: list[npt.NDArray[np.uint8]] = []
        self.alive: list[npt.NDArray[np.bool_]] = []

    def add(self, batch: pa.RecordBatch, found: Sequence[tuple[Words, Hashes]], refused: npt.NDArray[np.bool_]) -> None:
        """Add the rows of a batch. `found` are the words of the batch's prompts and answers, with the mask of the
        groups that each word names. `refused` says which answers are refusals.
        """
        self.ids.append(_text_hashes(batch["id"]))
        for name, parts in self.names.items():
            parts.append(_text_hashes(batch[name]))
        for (one, masks), left_out in zip(found, (np.zeros_like(refused), refused), strict=True):
            first, stop = one.by_sentence()
            chosen = (stop - first >= LONG) & (or_of(masks, first) != 0) & ~left_out[one.rows[first]]
            hashes = sequences(one.hashes, first[chosen], stop[chosen])
            self.sentences.append((self.count + one.rows[first[chosen]], hashes))
        keys, marks, sizes = _sketched(found[1][0].hashes, found[1][0].rows, batch.num_rows)
        self.keys.append(keys)
        self.marks.append(marks)
        self.alive.append((sizes > LONG_ANSWER - WORDS) & ~refused)
        self.count += batch.num_rows

    def order(self) -> Places:
        """The rows in the order of the hashes of their ids."""
        return np.argsort(np.concatenate([np.zeros(0, np.uint64), *self.ids]), kind="stable")


def _text_hashes(texts: pa.Array) -> Hashes:
    """A hash of each text; 0 for null."""
    import pandas as pd

    return np.asarray(pd.util.hash_array(texts.fill_null("").to_numpy(zero_copy_only=False).astype(object))) * (
        ~np.asarray(texts.is_null().to_numpy(zero_copy_only=False))
    ).astype(np.uint64)


def _sketched(hashes: Hashes, rows: Places, count: int) -> tuple[Hashes, npt.NDArray[np.uint8], Places]:
    """For each answer: the keys of its bands (bands, rows), 8 bits of each of the first `_MARKS` slots, and the number
    of its shingles.
    """
    from synthgen.curation.near import kernels
    from synthgen.curation.near.sketch import SLOTS, bands

    first = np.flatnonzero(rows[WORDS - 1 :] == rows[: len(rows) - WORDS + 1])
    lists = sequences(hashes, first, first + WORDS)
    sizes = np.bincount(rows[first], minlength=count)
    sketches = np.zeros((count, SLOTS), np.uint32)
    kernels.sketches(lists, sizes, sketches)
    keys = np.empty((bands(SIMILAR)[0], count), np.uint64)
    kernels.band_keys(sketches, keys)
    return keys, sketches[:, :_MARKS].astype(np.uint8), sizes


def units(rows: Signatures) -> Places:
    """The unit of each row: numbers from 0, which do not depend on the order of the rows."""
    from scipy import sparse

    if not rows.count:
        return np.zeros(0, np.int64)
    edges = [_same(hashes) for parts in rows.names.values() for hashes in [np.concatenate(parts)]]
    edges.append(_sharing(rows))
    near = _near(rows)
    edges.append((np.arange(rows.count), near))
    first, second = (np.concatenate([edge[side] for edge in edges]) for side in (0, 1))
    graph = sparse.coo_array((np.ones(len(first), np.int8), (first, second)), shape=(rows.count, rows.count))
    _, found = sparse.csgraph.connected_components(graph, directed=False)
    ids = np.concatenate(rows.ids)
    lowest = np.full(int(found.max()) + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, found, ids)
    return np.argsort(np.argsort(lowest, kind="stable"))[found].astype(np.int64)


def _chained(keys: Hashes, rows: Places) -> tuple[Places, Places]:
    """Pairs of rows that join all rows with the same key."""
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    return rows[order[same]], rows[order[same + 1]]


def _same(names: Hashes) -> tuple[Places, Places]:
    rows = np.flatnonzero(names != 0)
    return _chained(names[rows], rows)


def _sharing(rows: Signatures) -> tuple[Places, Places]:
    """Pairs of rows that share a long sentence that is not part of a template."""
    owners = np.concatenate([one for one, _ in rows.sentences])
    hashes = np.concatenate([one for _, one in rows.sentences])
    order = np.lexsort((owners, hashes))
    owners, hashes = owners[order], hashes[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])  # a row that repeats a sentence counts once
    owners, hashes = owners[new], hashes[new]
    _, place, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    rare = counts[place] <= max(COMMON * rows.count, 1)
    return _chained(hashes[rare], owners[rare])


def _near(rows: Signatures) -> Places:
    """For each row, an earlier row of its component of near duplicates, or itself."""
    from synthgen.curation.near import components
    from synthgen.curation.near.sketch import bands, least_agreement

    parents = np.arange(rows.count, dtype=np.int32)
    alive = np.concatenate(rows.alive)
    marks = np.concatenate(rows.marks)
    for band in range(bands(SIMILAR)[0]):
        keys = np.concatenate([part[band] for part in rows.keys])
        components.connect(keys, alive, marks, least_agreement(SIMILAR, _MARKS), parents)
    components.roots(parents)
    return parents.astype(np.int64)
