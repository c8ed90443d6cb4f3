"""What a curation does: which rules are on, the tasks that the corpus is cut into, and where results in between lie.

Rows are known by their number in the corpus: 0 for the first row of the first shard, in the order of
`corpus.shards`. A task is a run of neighboring shards. What a step finds out is kept in an Arrow file of its own
in `steps/<hash of the inputs>/` until the corpus is finished, so that a curation that was killed goes on from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from synthgen import corpus
from synthgen.curation.columns import stored
from synthgen.curation.lists import Rows
from synthgen.errors import RecipeError
from synthgen.manifest import Manifest
from synthgen.recipe import CurateSection
from synthgen.records import SCHEMA
from synthgen.tables.curation import CHECKS, EDITS, SWEEPS, Check, Edit, RowRule, Sweep
from synthgen.tables.section import Section

STEPS = "steps"
JUDGED = "judged"  # the step of edits and checks
_TASK_ROWS = 8192  # of a task at least, but for the last one

Entry = TypeVar("Entry", bound=RowRule)


@dataclass(frozen=True)
class Chosen(Generic[Entry]):
    """A rule that is on: its name, its entry and its settings."""

    name: str
    entry: Entry
    section: Section


@dataclass(frozen=True)
class Job:
    """Where the rows come from and go to, and the rules that are on, in their order."""

    source: Path
    folder: Path
    steps: Path
    edits: tuple[Chosen[Edit], ...]
    checks: tuple[Chosen[Check], ...]
    sweeps: tuple[Chosen[Sweep], ...]

    def step(self, name: str, number: int | None = None) -> Path:
        """The file of a step, or of task `number` of it."""
        return self.steps / (f"{name}.arrow" if number is None else f"{name}-{number:05d}.arrow")

    def signatures(self, sweep: str, task: Task) -> Path:
        """The file with the signatures of the rows of one task for one sweep."""
        return self.step(f"{sweep}-signatures", task.number)

    def edited(self, shard: str) -> Path:
        """The file with the columns of a shard that edits changed. There is none where they changed nothing."""
        return self.steps / f"edited-{shard}.arrow"


@dataclass(frozen=True)
class Task:
    """A run of shards: their names and numbers of rows, and the number of the first row."""

    number: int
    start: int
    shards: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        """Rows of all its shards."""
        return sum(rows for _, rows in self.shards)

    @property
    def stop(self) -> int:
        """The number of the row after the last one."""
        return self.start + self.rows


def plan(source: Path, folder: Path, section: CurateSection, inputs_hash: str) -> Job:
    """The job of curating `source` into `folder`. Raises RecipeError for a rule whose columns the corpus lacks."""
    own = corpus.own_columns(source)
    edits, checks, sweeps = _chosen(EDITS, section), _chosen(CHECKS, section), _chosen(SWEEPS, section)
    rules: list[Chosen[Edit] | Chosen[Check] | Chosen[Sweep]] = [*edits, *checks, *sweeps]
    for rule in rules:
        for name in stored(rule.entry.columns):
            if name not in SCHEMA.names and name not in own.names:
                raise RecipeError(
                    f"curate.{rule.name} reads the column '{name}', which {source} does not have",
                    f"set curate.{rule.name} to false, or curate rows that have it",
                )
    return Job(source, folder, folder / STEPS / inputs_hash[:16], edits, checks, sweeps)


def _chosen(table: Mapping[str, Entry], section: CurateSection) -> tuple[Chosen[Entry], ...]:
    settings = ((name, entry, section.settings(name)) for name, entry in table.items())
    return tuple(Chosen(name, entry, chosen) for name, entry, chosen in settings if chosen is not None)


def tasks(source: Path, manifest: Manifest) -> list[Task]:
    """The tasks of a corpus: runs of shards with at least `_TASK_ROWS` rows each, but for the last."""
    found: list[Task] = []
    shards: list[tuple[str, int]] = []
    start = rows = 0
    for name in corpus.shards(source):
        count = manifest["files"][f"data/{name}.parquet"]["rows"]
        shards.append((name, count))
        rows += count
        if rows >= _TASK_ROWS:
            found.append(Task(len(found), start, tuple(shards)))
            start, rows, shards = start + rows, 0, []
    if shards:
        found.append(Task(len(found), start, tuple(shards)))
    return found


def ids_of(job: Job, tasks: Sequence[Task], rows: Rows) -> pa.Array:
    """The ids of rows, by their numbers, in the order given. Reads the shards that have them, one at a time."""
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    parts = []
    for name, first, count in located(tasks):
        begin, end = np.searchsorted(ordered, [first, first + count])
        if end > begin:
            ids = corpus.read_columns(job.source / "data" / f"{name}.parquet", ["id"])["id"].combine_chunks()
            parts.append(ids.take(pa.array(ordered[begin:end] - first)))
    found = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
    return found.take(pa.array(np.argsort(order)))


def located(tasks: Sequence[Task]) -> Iterator[tuple[str, int, int]]:
    """(name, number of the first row, number of rows) of every shard of the tasks."""
    for task in tasks:
        first = task.start
        for name, count in task.shards:
            yield name, first, count
            first += count
