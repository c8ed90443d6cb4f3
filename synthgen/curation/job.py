"""The plan of a curation: the enabled rules, the tasks into which the corpus is divided, and the paths of intermediate
results.

A row is identified by its number in the corpus. Rows are numbered from 0 through all shards of the corpus, in the order
in which `corpus.shards` lists the shards. A task is a range of consecutive shards. Each step writes its result as an
Arrow file into `steps/<hash of the inputs>/`. These files stay until the corpus is finished, so a killed curation
resumes from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from synthgen import corpus
from synthgen.curation.columns import CONFIDENCE, stored
from synthgen.curation.lists import Rows
from synthgen.curation.tokens import Tokenizer
from synthgen.errors import RecipeError
from synthgen.manifest import Manifest
from synthgen.recipe import CurateSection
from synthgen.records import SCHEMA
from synthgen.tables.curation import CHECKS, EDITS, SELECTIONS, SWEEPS, TASK_ROWS, Check, Edit, RowRule, Sweep
from synthgen.tables.section import Section

STEPS = "steps"
JUDGED = "judged"  # name of the step that runs edits and checks

Entry = TypeVar("Entry", bound=RowRule)


@dataclass(frozen=True)
class Chosen(Generic[Entry]):
    """An enabled rule: its name, its table entry and its settings."""

    name: str
    entry: Entry
    section: Section

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the rule reads: the columns of its table entry, and the columns that its settings name."""
        more = getattr(self.section, self.entry.more_columns) if self.entry.more_columns else ()
        return (*self.entry.columns, *more)


@dataclass(frozen=True)
class Job:
    """A curation: the folders of the generated and the curated corpus, and the enabled rules in order. Selections come
    last in `sweeps`. `tokenizers` are the tokenizers of teachers, by the teacher's name. `inputs` is the hash of the
    inputs for which `folder` is claimed. `files` are the hashes of the files that the rules read, by path, and `code`
    are the fingerprints of the rules that have one, by the rule's name.
    """

    source: Path
    folder: Path
    inputs: str
    edits: tuple[Chosen[Edit], ...]
    checks: tuple[Chosen[Check], ...]
    sweeps: tuple[Chosen[Sweep], ...]
    tokenizers: Mapping[str, Tokenizer]
    files: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> Path:
        """The folder of the intermediate results."""
        return self.folder / STEPS / self.inputs[:16]

    @property
    def by(self) -> Path:
        """The path of the file with the hash of synthgen's source code. A killed curation is resumed only by the same
        code, because another version could judge other rows otherwise.
        """
        return self.steps / "code.json"

    def step(self, name: str, number: int | None = None) -> Path:
        """The path of the file that the step `name` writes for the task `number`, or for the whole corpus if `number`
        is None.
        """
        return self.steps / (f"{name}.arrow" if number is None else f"{name}-{number:05d}.arrow")

    def signatures(self, sweep: str, task: Task) -> Path:
        """The path of the file with the signatures that one sweep computes for the rows of a task."""
        return self.step(f"{sweep}-signatures", task.number)

    def edited(self, shard: str) -> Path:
        """The path of the file with the columns of a shard that edits changed. The file exists only if a row was
        changed.
        """
        return self.steps / f"edited-{shard}.arrow"


@dataclass(frozen=True)
class Task:
    """A range of consecutive shards, which one process works on. `shards` holds pairs (shard name, count of rows).
    `start` is the number, in the corpus, of the task's first row.
    """

    number: int
    start: int
    shards: tuple[tuple[str, int], ...]

    @property
    def rows(self) -> int:
        """The count of rows in all shards of the task."""
        return sum(rows for _, rows in self.shards)

    @property
    def stop(self) -> int:
        """The number of the last row of the task, plus 1."""
        return self.start + self.rows


def plan(source: Path, folder: Path, section: CurateSection, inputs: str, tokenizers: Mapping[str, Tokenizer]) -> Job:
    """Make the job that curates `source` into `folder`, which is claimed for inputs with the hash `inputs`. Raises
    RecipeError when the corpus does not have a column that a rule reads.
    """
    own = corpus.own_columns(source)
    edits, checks = _chosen(EDITS, section), _chosen(CHECKS, section)
    sweeps = (*_chosen(SWEEPS, section), *_chosen(SELECTIONS, section))
    rules: list[Chosen[Edit] | Chosen[Check] | Chosen[Sweep]] = [*edits, *checks, *sweeps]
    for rule in rules:
        if CONFIDENCE in rule.columns and not (source / "logits").is_dir():
            raise RecipeError(
                f"curate.{rule.name} reads the teacher's distributions, which {source} does not have",
                f"set curate.{rule.name} to false, or curate what `synthgen generate` wrote with a section `logits`",
            )
        for name in stored(rule.columns):
            if name not in SCHEMA.names and name not in own.names:
                raise RecipeError(
                    f"curate.{rule.name} reads the column '{name}', which {source} does not have",
                    f"set curate.{rule.name} to false, or curate rows that have this column",
                )
    return Job(source, folder, inputs, edits, checks, sweeps=sweeps, tokenizers=tokenizers)


def changes_completions(section: CurateSection) -> bool:
    """Whether an edit that may change completions is turned on."""
    return any("completion" in rule.entry.changes for rule in _chosen(EDITS, section))


def _chosen(table: Mapping[str, Entry], section: CurateSection) -> tuple[Chosen[Entry], ...]:
    settings = ((name, entry, section.settings(name)) for name, entry in table.items())
    return tuple(Chosen(name, entry, chosen) for name, entry, chosen in settings if chosen is not None)


def tasks(source: Path, manifest: Manifest) -> list[Task]:
    """Divide a corpus into tasks, which are ranges of shards. Each task except the last has at least `TASK_ROWS`
    rows.
    """
    cut: list[Task] = []
    shards: list[tuple[str, int]] = []
    start = rows = 0
    for name in corpus.shards(source):
        count = manifest["files"][f"data/{name}.parquet"]["rows"]
        shards.append((name, count))
        rows += count
        if rows >= TASK_ROWS:
            cut.append(Task(len(cut), start, tuple(shards)))
            start, rows, shards = start + rows, 0, []
    if shards:
        cut.append(Task(len(cut), start, tuple(shards)))
    return cut


def ids_of(job: Job, tasks: Sequence[Task], rows: Rows) -> pa.Array:
    """The ids of the rows whose numbers are in `rows`, in the order of `rows`. Reads one shard at a time, and only
    shards that hold one of these rows.
    """
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    parts = []
    for name, first, count in located(tasks):
        begin, end = np.searchsorted(ordered, [first, first + count])
        if end > begin:
            ids = corpus.read_columns(job.source / "data" / f"{name}.parquet", ["id"])["id"].combine_chunks()
            parts.append(ids.take(pa.array(ordered[begin:end] - first)))
    ids = pa.concat_arrays(parts) if parts else pa.array([], pa.string())
    return ids.take(pa.array(np.argsort(order)))


def located(tasks: Sequence[Task]) -> Iterator[tuple[str, int, int]]:
    """Yield (name, number of the first row, count of rows) for every shard of the tasks."""
    for task in tasks:
        first = task.start
        for name, count in task.shards:
            yield name, first, count
            first += count
