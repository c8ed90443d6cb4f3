"""The verdicts that a check returns, and the columns `verdicts` and `scores` in which they are stored.

def short(batch, section, services):
    words = np.array([len(text.split()) for text in batch["completion.text"].to_pylist()], float)
    rejected = {row: Rejection(f"{words[row]:.0f} words", score=words[row]) for row in np.flatnonzero(words < 3)}
    return Verdicts(rejected, {"short": words})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen.curation.lists import Rows, appended, as_lists, empty_lists
from synthgen.records import SCORES, VERDICTS, Reason, Span
from synthgen.tables.curation import Teaches

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rejection:
    """Why a check rejects one row.

    `rule` names the rule within the check that rejected the row; "" means the check's own name. `score` is the measured
    value and `threshold` the limit that the value crossed. `matched_id` is the id of the row with which this row was
    compared. `span` is the part of the completion's text that caused the rejection. `teaches`, if set, replaces the
    value in the check's table entry.
    """

    reason: str
    score: float | None = None
    rule: str = ""
    threshold: float | None = None
    matched_id: str | None = None
    span: Span | None = None
    teaches: Teaches | None = None

    def entry(self, check: str, teaches: Teaches) -> Reason:
        """The entry that is stored in the column `verdicts`. `teaches` is the value in the check's table entry, which
        is used if the rejection has no value of its own.
        """
        return {
            "check": check,
            "rule": self.rule or check,
            "score": None if self.score is None else float(self.score),
            "threshold": self.threshold,
            "matched_id": self.matched_id,
            "span": self.span,
            "reason": self.reason,
            "teaches": self.teaches or teaches,
        }


@dataclass(frozen=True)
class Verdicts:
    """The result of one check on the rows of a batch.

    `rejected` maps the index of a row in the batch to a `Rejection`; all other rows pass the check. `scores` maps a
    name to measured values: one float64 for each row of the batch, NaN for a row that was not measured. Scores are
    stored for kept and rejected rows.
    """

    rejected: Mapping[int, Rejection] = field(default_factory=dict)
    scores: Mapping[str, Scores] = field(default_factory=dict)


def verdict_column(count: int, rejections: Iterable[tuple[int, Reason]]) -> pa.Array:
    """Build the column `verdicts` of `count` rows from pairs (index of a row, entry). Entries of the same row keep
    their order.
    """
    pairs = list(rejections)
    if not pairs:
        return empty_lists(count, VERDICTS)
    pairs.sort(key=lambda pair: pair[0])  # the sort is stable, so entries of the same row keep their order
    rows = np.fromiter((row for row, _ in pairs), np.int64, len(pairs))
    entries = pa.array([entry for _, entry in pairs], VERDICTS.value_type)
    return as_lists(np.bincount(rows, minlength=count), entries, VERDICTS)


def score_column(count: int, scores: Sequence[tuple[str, Scores]]) -> pa.Array:
    """Build the column `scores` of `count` rows. `scores` holds pairs (name, one value for each row). A row gets an
    entry for each name whose value is not NaN, in the order of `scores`.
    """
    return appended(empty_lists(count, SCORES), [_measured(name, values) for name, values in scores])


def _measured(name: str, values: Scores) -> tuple[Rows, pa.Array]:
    rows = np.flatnonzero(~np.isnan(values))
    entries = pa.StructArray.from_arrays(
        [pa.repeat(name, len(rows)), pa.array(values[rows], pa.float64())], fields=list(SCORES.value_type)
    )
    return rows, entries
