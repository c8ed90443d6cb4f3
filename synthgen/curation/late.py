"""Rows that are dropped after the checks: by a sweep, or since their group is not whole.

Each such step writes one file: `row` (ascending) and what the row's entry in `verdicts` says.
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
    """A step that dropped rows: its name, what its rejects teach, and its file."""

    check: str
    teaches: Teaches
    path: Path

    def rows(self) -> Rows:
        """The numbers of all rows that it dropped, ascending."""
        return numbers(read_table(self.path)["row"].combine_chunks()).astype(np.int64)

    def of(self, task: Task) -> pa.Table:
        """What it says of the rows of one task that it dropped."""
        start, stop = np.searchsorted(self.rows(), [task.start, task.stop])
        return read_table(self.path).slice(start, stop - start)

    def entries(self, task: Task) -> list[tuple[int, Reason]]:
        """(place in the task, entry of `verdicts`) of the rows of one task that it dropped."""
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
    """Which rows of a task nothing has dropped so far."""
    kept = lengths(read_table(job.step(JUDGED, task.number))["verdicts"].combine_chunks()) == 0
    for step in late:
        kept[numbers(step.of(task)["row"].combine_chunks()) - task.start] = False
    return kept
