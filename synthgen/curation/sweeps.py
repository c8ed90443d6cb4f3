"""Sweeps compare rows with each other. A sweep gets only rows that no earlier step rejected.

A sweep consists of four functions. Each function gets the sweep's settings and the services as its last two arguments:

    signature(batch, …)         a batch of the declared columns and `row`    →  a table of `key` and `row`
    candidates(signatures, …)   all rows of some keys, in corpus order       →  a table of `row` and `twin`
    verify(pairs, texts, …)     pairs of rows, and a function from row numbers to a table of the declared columns
                                →  the confirmed pairs, with the column `score` if a score was measured
    resolve(pairs, order, …)    all pairs of the corpus, and the order of rows (`Order`)
                                →  a table of `row` (rejected) and `twin` (kept), optionally with `score`,
                                `threshold` and `rule`

A sweep that would have too many pairs has two other functions instead: `signature`, whose tables have `row` and any
other columns, and

    decide(paths, lost, order, settings, executor)   the files with the signatures of each task in corpus order, and the
                                numbers of the rows that an earlier step rejected  →  the same table as `resolve`;
                                `twin` may be null, and a column `reason` may hold the reason of each row

`decide` may write further files beside the files of the signatures. A selection is a sweep of this form that runs last.

`row` and `twin` identify rows by their position in the corpus (int64, counted from 0). `key` is a uint64 or a binary of
fixed size. A row may have several keys. `signature` is called on each batch right after the checks, for the rows that
passed them. The signatures of all rows are then partitioned by key. `candidates` and `verify` are called for each
partition. Rows that earlier sweeps rejected, or that are in an incomplete group, are left out. `resolve` gets all pairs
in one call. The texts of rows are read by row number when they are needed, so the memory never holds all texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from synthgen.curation.job import Chosen, Job, Task, ids_of, located
from synthgen.curation.judge import read
from synthgen.curation.late import SCHEMA, Late
from synthgen.curation.lists import Rows, numbers
from synthgen.curation.order import Order
from synthgen.errors import SynthgenError
from synthgen.executor import Executor, Partition, Services
from synthgen.executor.exchange import read_table, write_table
from synthgen.tables.curation import Sweep
from synthgen.tables.reference import Reference, resolve

_PART_ROWS = 1 << 19  # approximate number of signatures in each partition


@dataclass(frozen=True)
class _Pairing:
    """The input of `_pair`, which finds and verifies the pairs of one partition. Rows that the steps `late` rejected
    are left out.
    """

    job: Job
    rule: Chosen[Sweep]
    tasks: tuple[Task, ...]
    late: tuple[Late, ...]
    partition: Partition
    number: int

    @property
    def path(self) -> Path:
        return self.job.step(f"{self.rule.name}-pairs", self.number)


def sweep(
    job: Job, rule: Chosen[Sweep], tasks: Sequence[Task], late: Sequence[Late], order: Order, executor: Executor
) -> Late:
    """Run one sweep over the rows that are not yet rejected. Results of an earlier call that was killed are reused."""
    step = Late(rule.name, rule.entry.teaches, job.step(rule.name))
    if step.path.exists():
        return step
    made = _by_itself if rule.entry.decide else _by_pairs
    drops = made(job, rule, tasks, late, order, executor)
    write_table(step.path, _dropped(job, rule.entry, tasks, drops.sort_by("row")))
    return step


def _given(rule: Chosen[Sweep], name: str) -> Reference:
    """One of the functions of a sweep. Raises SynthgenError when the sweep's table entry does not have the function."""
    found: Reference | None = getattr(rule.entry, name)
    if found is None:
        raise SynthgenError(f"the sweep '{rule.name}' has neither 'decide' nor '{name}'")
    return found


def _by_itself(
    job: Job, rule: Chosen[Sweep], tasks: Sequence[Task], late: Sequence[Late], order: Order, executor: Executor
) -> pa.Table:
    """The rows that `decide` rejects."""
    paths = [job.signatures(rule.name, task) for task in tasks]
    lost = np.concatenate([step.rows() for step in late]) if late else np.array([], np.int64)
    drops: pa.Table = resolve(_given(rule, "decide"))(paths, lost, order, rule.section, executor)
    return drops


def _by_pairs(
    job: Job, rule: Chosen[Sweep], tasks: Sequence[Task], late: Sequence[Late], order: Order, executor: Executor
) -> pa.Table:
    """The rows that `resolve` rejects because of the pairs that `candidates` and `verify` found."""
    parts = -(-sum(task.rows for task in tasks) // _PART_ROWS)
    partitions = executor.exchange([job.signatures(rule.name, task) for task in tasks], "key", max(1, parts))
    pairing = [_Pairing(job, rule, tuple(tasks), tuple(late), part, number) for number, part in enumerate(partitions)]
    for _ in executor.map(_pair, [piece for piece in pairing if not piece.path.exists()]):
        pass
    pairs = pa.concat_tables([read_table(piece.path) for piece in pairing])
    pairs = pairs.sort_by([("row", "ascending"), ("twin", "ascending")])
    drops: pa.Table = resolve(_given(rule, "resolve"))(pairs, order, rule.section, executor.services)
    return drops


def _pair(piece: _Pairing, services: Services) -> None:
    rule, signatures = piece.rule, piece.partition.read()
    for step in piece.late:
        rows = numbers(signatures["row"].combine_chunks())
        signatures = signatures.filter(pa.array(~np.isin(rows, step.rows())))
    pairs = resolve(_given(rule, "candidates"))(signatures, rule.section, services)
    if rule.entry.verify is not None:
        pairs = resolve(rule.entry.verify)(pairs, _texts(piece), rule.section, services)
    if not {"row", "twin"} <= set(pairs.column_names):
        raise SynthgenError(f"the sweep '{rule.name}' returned pairs without 'row' and 'twin'")
    write_table(piece.path, pairs.combine_chunks())


def _texts(piece: _Pairing) -> Callable[[Rows], pa.Table]:
    """Return a function that takes row numbers and reads the declared columns of these rows, in the given order."""
    names = list(piece.rule.entry.columns)

    def fetch(rows: Rows) -> pa.Table:
        order = np.argsort(rows, kind="stable")
        ordered, batches = rows[order], []
        for shard, first, count in located(piece.tasks):
            start, stop = np.searchsorted(ordered, [first, first + count])
            wanted = ordered[start:stop] - first
            for columns in read(piece.job, shard, names) if stop > start else ():
                here = wanted[(wanted >= 0) & (wanted < columns.rows)]
                batches.append(columns.select(names).take(pa.array(here)))
                wanted = wanted - columns.rows
        return pa.Table.from_batches(batches).take(pa.array(np.argsort(order)))

    return fetch


def _dropped(job: Job, entry: Sweep, tasks: Sequence[Task], drops: pa.Table) -> pa.Table:
    """The table of rejected rows that the sweep writes to its file, made from the result of the sweep's `resolve`
    (`drops`).
    """
    matched = _matched(job, tasks, drops["twin"].combine_chunks())
    columns = {
        name: drops[name] if name in drops.column_names else pa.nulls(len(drops), kind)
        for name, kind in [("rule", pa.string()), ("score", pa.float64()), ("threshold", pa.float64())]
    }
    if "reason" in drops.column_names:
        reasons = drops["reason"].to_pylist()
    else:
        pieces = zip(matched.to_pylist(), columns["score"].to_pylist(), columns["threshold"].to_pylist(), strict=True)
        reasons = [entry.reason.format(matched_id=m, score=s, threshold=t) for m, s, t in pieces]
    return (
        pa.table({"row": drops["row"], **columns, "matched_id": matched, "reason": pa.array(reasons, pa.string())})
        .cast(SCHEMA)
        .combine_chunks()
    )


def _matched(job: Job, tasks: Sequence[Task], twins: pa.Array) -> pa.Array:
    """The ids of the rows with the numbers `twins`; null where `twins` is null."""
    known = np.flatnonzero(numbers(twins.is_valid()))
    ids = ids_of(job, tasks, numbers(twins.drop_null()).astype(np.int64))
    place = np.full(len(twins), -1)
    place[known] = np.arange(len(known))
    return ids.take(pa.array(place, mask=place < 0))
