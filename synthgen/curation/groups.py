"""Rejects incomplete groups. Rows with the same `group_id` form a group, and are kept or rejected together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from synthgen.curation.job import JUDGED, Job, Task, ids_of
from synthgen.curation.late import SCHEMA, Late, alive
from synthgen.curation.lists import Rows, numbers
from synthgen.curation.order import Order
from synthgen.executor.exchange import read_table, write_table

GROUP = "group"  # the value of `check` in the verdicts of rows that are rejected because of their group


def order_of(job: Job, tasks: Sequence[Task]) -> Order:
    """Read which rows form a group from the files that `judge_rows` wrote. Uses 32 bytes of memory for each row that
    has a `group_id`.
    """
    rows, keys = [], bytearray()
    for task in tasks:
        ids = read_table(job.step(JUDGED, task.number))["group_id"].combine_chunks()
        here = np.flatnonzero(numbers(ids.is_valid()))
        rows.append(here + task.start)
        for group in ids.take(pa.array(here)).to_pylist():
            keys += hashlib.blake2b(group.encode(), digest_size=16).digest()
    numbered = np.concatenate(rows).astype(np.int64)
    high, low = np.frombuffer(bytes(keys), np.uint64).reshape(-1, 2).T
    order = np.lexsort((numbered, low, high))
    first = np.ones(len(order), bool)
    first[1:] = (high[order][1:] != high[order][:-1]) | (low[order][1:] != low[order][:-1])
    units = np.empty(len(order), np.int64)
    units[order] = numbered[order][first][np.cumsum(first) - 1] if len(order) else numbered
    return Order(numbered, units)


def drop_broken(job: Job, tasks: Sequence[Task], order: Order, late: Sequence[Late], name: str) -> list[Late]:
    """Reject the remaining rows of every group in which a row was rejected, and write them to a file. Returns a list
    with one `Late`, which describes this file, or an empty list when the corpus has no groups.

    `name` is the name of the file. The reason of each of these rows states the id of the first rejected row of its
    group, and why that first row was rejected.
    """
    if not len(order.rows):
        return []
    step = Late(GROUP, "distribution", job.step(name))
    if step.path.exists():
        return [step]
    living = np.concatenate([_of_groups(order.rows, task, alive(job, task, late)) for task in tasks])
    lost = order.rows[~living]
    units, place = np.unique(order.units_of(lost), return_index=True)
    broken = living & np.isin(order.units, units)
    rows = order.rows[broken]
    causes = lost[place[np.searchsorted(units, order.units[broken])]]
    write_table(step.path, _dropped(job, tasks, rows, causes, late))
    return [step]


def _of_groups(grouped: Rows, task: Task, kept: np.ndarray) -> np.ndarray:
    """From the mask `kept` over all rows of a task, return the entries for the rows that have a group. `grouped` holds
    the numbers of all rows with a group.
    """
    start, stop = np.searchsorted(grouped, [task.start, task.stop])
    return kept[grouped[start:stop] - task.start]


def _dropped(job: Job, tasks: Sequence[Task], rows: Rows, causes: Rows, late: Sequence[Late]) -> pa.Table:
    """The table that `drop_broken` writes. The table holds the rows that are rejected because another row of their
    group is rejected, with the reasons. For each of `rows`, `causes` holds the number of the first rejected row of its
    group.
    """
    different = np.unique(causes)
    ids = dict(zip(different.tolist(), ids_of(job, tasks, different).to_pylist(), strict=True))
    why = _reasons(job, tasks, different, late)
    reasons = [f"its whole group is rejected, because {ids[c]} was rejected by {why[c]}" for c in causes.tolist()]
    nothing = pa.nulls(len(rows), pa.float64())
    matched = pa.array([ids[c] for c in causes.tolist()], pa.string())
    rule = pa.repeat(GROUP, len(rows))
    columns = [pa.array(rows), rule, nothing, nothing, matched, pa.array(reasons, pa.string())]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _reasons(job: Job, tasks: Sequence[Task], rows: Rows, late: Sequence[Late]) -> dict[int, str]:
    """For each of the rejected `rows`: the text 'CHECK: reason' for the first entry of the row's verdicts."""
    reasons: dict[int, str] = {}
    for task in tasks:
        start, stop = np.searchsorted(rows, [task.start, task.stop])
        if start == stop:
            continue
        here = rows[start:stop]
        verdicts = read_table(job.step(JUDGED, task.number))["verdicts"].combine_chunks()
        chosen = verdicts.take(pa.array(here - task.start))
        for row, entries in zip(here.tolist(), chosen.to_pylist(), strict=True):
            if entries:
                reasons[row] = f"{entries[0]['check']}: {entries[0]['reason']}"
        wanted = set(here.tolist())
        for step in late:
            for place, entry in step.entries(task):
                if place + task.start in wanted:
                    reasons.setdefault(place + task.start, f"{entry['check']}: {entry['reason']}")
    return reasons
