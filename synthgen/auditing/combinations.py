"""The sets of sources that occur in the rows of a corpus. Python code runs once for each set, not for each row.

found = occurring(folder)
found.kept                        # Counter: set of sources → number of kept rows with exactly these sources
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus

EXAMPLES = "#examples"
"""If a source is the examples in a task's folder, its id ends with this text."""
CHECK = "license"
"""The value of `check` in the verdict of a row that may not be used as intended; see `withheld`."""
COLUMNS = ("sources",)
REJECTED_COLUMNS = ("sources", "verdicts", "prompt", "completion")
_BATCH = 65536


class Term(NamedTuple):
    """The facts about a source that are judged: its id, role and license. If a model wrote the source, there are
    further facts: whose account was used (`ours` or `third_party`), the model's name, its tools, and the day of the
    terms. An unknown account or day is "".
    """

    source: str
    role: str
    license: str
    account: str = ""
    made_by: str = ""
    tools: tuple[str, ...] = ()
    day: str = ""


Combination = tuple[Term, ...]
"""The sources of a row, sorted."""


@dataclass(frozen=True)
class Occurring:
    """The number of kept rows and of rejected rows with each set of sources. Rows that are withheld are not counted."""

    kept: Counter[Combination]
    rejected: Counter[Combination]

    @property
    def every(self) -> Counter[Combination]:
        """The number of kept and rejected rows with each set of sources."""
        return self.kept + self.rejected


def occurring(folder: Path) -> Occurring:
    """Count the sets of sources of a corpus. Rejected rows count too, because a student may still learn from their
    distributions, and because they are shared with the corpus. Reads only the columns that it needs, in batches.
    """
    kept: Counter[Combination] = Counter()
    for _, batch in corpus.batches(folder, "data", COLUMNS, rows=_BATCH):
        _count(kept, batch["sources"])
    rejected: Counter[Combination] = Counter()
    columns = REJECTED_COLUMNS if CHECK in corpus.manifest(folder).get("rejected_by", {}) else COLUMNS
    for _, batch in corpus.batches(folder, "rejected", columns, rows=_BATCH):
        judged = batch["sources"]
        _count(rejected, judged.filter(pa.array(~withheld(batch))) if columns is REJECTED_COLUMNS else judged)
    return Occurring(kept, rejected)


def withheld(rows: pa.RecordBatch | pa.Table) -> npt.NDArray[np.bool_]:
    """Whether each of these rejected rows holds only the reason why it was left out. The audit rejected such a row,
    nothing may be learned from it, and its text is gone. `rows` has the columns `REJECTED_COLUMNS`.
    """
    verdicts = _array(rows["verdicts"])
    entries = verdicts.flatten()
    ours = pc.and_(
        pc.equal(pc.struct_field(entries, "check"), CHECK), pc.equal(pc.struct_field(entries, "teaches"), "nothing")
    )
    found = np.zeros(rows.num_rows, bool)
    found[_numpy(pc.list_parent_indices(verdicts))[_numpy(pc.fill_null(ours, False))]] = True
    for name in ("prompt", "completion"):
        found &= _lengths(_array(rows[name])) == 0
    return found


def coded(sources: pa.Array) -> tuple[list[Combination], npt.NDArray[np.int64]]:
    """The sets of sources of a column `sources`, and for each row the index of its set."""
    terms, codes = _terms(sources.flatten())
    lengths = _lengths(sources)
    starts = np.cumsum(lengths) - lengths
    sets: list[Combination] = []
    index = np.zeros(len(sources), np.int64)
    for length in np.unique(lengths).tolist():
        rows = np.flatnonzero(lengths == length)
        inside = np.sort(codes[starts[rows][:, None] + np.arange(length)], axis=1)
        different, place = _different(inside)
        index[rows] = place + len(sets)
        sets += [tuple(sorted(terms[code] for code in one)) for one in different.tolist()]
    return sets, index


def _different(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The distinct rows of a table of codes, and for each row its index among the distinct rows. Pairs of codes get new
    codes, column by column, because this is faster than a comparison of whole rows.
    """
    key = np.zeros(len(rows), np.int64)
    for column in rows.T:
        _, key = np.unique(key * (int(column.max(initial=0)) + 1) + column, return_inverse=True)
    _, first, place = np.unique(key, return_index=True, return_inverse=True)
    return rows[first], place


def _terms(flat: pa.Array) -> tuple[Sequence[Term], npt.NDArray[np.int64]]:
    """The different sources in a column of sources, and for each source its index among them."""
    names = [_sources(flat), *(pc.struct_field(flat, name) for name in ("role", "license", "account", "made_by"))]
    names.append(pc.struct_field(flat, "terms_date"))
    names.append(pc.binary_join(pc.struct_field(flat, "tools"), "\1"))
    coded = pc.binary_join_element_wise(*(pc.fill_null(name, "") for name in names), "\0").dictionary_encode()
    return [_term(text) for text in coded.dictionary.to_pylist()], _numpy(coded.indices).astype(np.int64)


def _count(counter: Counter[Combination], sources: pa.Array) -> None:
    sets, index = coded(sources)
    for one, count in zip(sets, np.bincount(index, minlength=len(sets)).tolist(), strict=True):
        counter[one] += count


def _sources(flat: pa.Array) -> pa.Array:
    """The ids of the sources. A seed that served as an example has the id `SOURCE#ID`. Only SOURCE is kept, because all
    seeds of one source have the same terms. If the seed's id were kept, almost every row would have its own set of
    sources.
    """
    ids, role = pc.struct_field(flat, "id"), pc.struct_field(flat, "role")
    seed = pc.and_(pc.equal(role, "few_shot"), pc.invert(pc.ends_with(ids, EXAMPLES)))
    return pc.if_else(pc.fill_null(seed, False), pc.replace_substring_regex(ids, "#[^#]*$", ""), ids)


def _term(text: str) -> Term:
    source, role, license, account, made_by, day, tools = text.split("\0")
    return Term(source, role, license, account, made_by, tools=tuple(tools.split("\1")) if tools else (), day=day)


def _lengths(lists: pa.Array) -> npt.NDArray[np.int64]:
    return _numpy(pc.fill_null(pc.list_value_length(lists), 0)).astype(np.int64)


def _array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _numpy(array: pa.Array) -> npt.NDArray[np.generic]:
    return np.asarray(array.to_numpy(zero_copy_only=False))
