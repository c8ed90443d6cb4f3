"""Rows that are dropped after the checks, by a sweep or because their group is incomplete.

Each such step writes one file with the columns `row` (ascending) and the fields of the row's entry in `verdicts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from synthgen.curation.job import JUDGED, Job, Task
from synthgen.curation.lists import Rows, lengths, numbers
from synthgen.executor.exchange import read_table
from synthgen.records import Reason
from synthgen.tables.curation import Teaches

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("rule", pa.string()),
        ("score", pa.float64()),
        ("threshold", pa.float64()),
        ("matched_id", pa.string()),
        ("reason", pa.string()),
    ]
)


@dataclass(frozen=True)
class Late:
    """A step that dropped rows: its name, the value of `teaches` for its rows, and its file."""

    check: str
    teaches: Teaches
    path: Path

    def rows(self) -> Rows:
        """The numbers of all dropped rows, ascending."""
        return numbers(read_table(self.path)["row"].combine_chunks()).astype(np.int64)

    def of(self, task: Task) -> pa.Table:
        """The part of the table that concerns the rows of one task."""
        start, stop = np.searchsorted(self.rows(), [task.start, task.stop])
        return read_table(self.path).slice(start, stop - start)

    def entries(self, task: Task) -> list[tuple[int, Reason]]:
        """(index in the task, entry of `verdicts`) pairs for the dropped rows of one task."""
        return [
            (
                row["row"] - task.start,
                {
                    "check": self.check,
                    "rule": row["rule"] or self.check,
                    "score": row["score"],
                    "threshold": row["threshold"],
                    "matched_id": row["matched_id"],
                    "span": None,
                    "reason": row["reason"],
                    "teaches": self.teaches,
                },
            )
            for row in self.of(task).to_pylist()
        ]


def alive(job: Job, task: Task, late: Sequence[Late]) -> npt.NDArray[np.bool_]:
    """A mask of the rows of a task that no step has dropped so far."""
    kept = lengths(read_table(job.step(JUDGED, task.number))["verdicts"].combine_chunks()) == 0
    for step in late:
        kept[numbers(step.of(task)["row"].combine_chunks()) - task.start] = False
    return kept
