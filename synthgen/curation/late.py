"""Reads the files with the rows that were rejected after the checks: by a sweep, or because another row of their group
was rejected.

Each sweep, and each step that rejects incomplete groups, writes one Arrow file with a line for each row that it
rejected. The columns are the row's number in the corpus (`row`, ascending), and the fields of an entry in `verdicts`.
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
    """A step after the checks that may reject rows: the values of `check` and `teaches` in the verdicts of these rows,
    and the path of the step's file.
    """

    check: str
    teaches: Teaches
    path: Path

    def rows(self) -> Rows:
        """The numbers, in the corpus, of all rows that this step rejected, ascending."""
        return numbers(read_table(self.path)["row"].combine_chunks()).astype(np.int64, copy=False)

    def of(self, task: Task) -> pa.Table:
        """The part of the step's file that is about the rows of one task."""
        start, stop = np.searchsorted(self.rows(), [task.start, task.stop])
        return read_table(self.path).slice(start, stop - start)

    def entries(self, task: Task) -> list[tuple[int, Reason]]:
        """For each row of a task that this step rejected: (the row's index in the task, its entry for `verdicts`)."""
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
    """A mask over the rows of a task. The mask is True for rows that neither the checks nor the steps `late`
    rejected.
    """
    kept = lengths(read_table(job.step(JUDGED, task.number))["verdicts"].combine_chunks()) == 0
    for step in late:
        kept[numbers(step.of(task)["row"].combine_chunks()) - task.start] = False
    return kept
