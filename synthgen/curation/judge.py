"""Runs edits and checks, and computes the signatures that the sweeps need, while it reads the rows of a task once.

Each task writes several Arrow files. For each shard in which an edit changed a row, the task writes a file with the
changed columns. For each sweep, the task writes a file with the signatures of the rows that passed all checks. At the
end, the task writes a file with the `verdicts`, the `scores` and the `group_id` of every row. When this last file
exists, the task is done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus
from synthgen.curation import confidence
from synthgen.curation.columns import CONFIDENCE, Columns, stored
from synthgen.curation.job import JUDGED, Chosen, Job, Task
from synthgen.curation.lists import Rows, joined, lengths
from synthgen.curation.tokens import CUT, shortened
from synthgen.curation.verdicts import Verdicts, score_column, verdict_column
from synthgen.datasets.adopting import content_hash
from synthgen.errors import SynthgenError, UserError
from synthgen.executor import Services
from synthgen.executor.exchange import read_table, write_table
from synthgen.files import is_regular
from synthgen.tables.curation import Check, Edit, Sweep
from synthgen.tables.reference import resolve

_VISIBLE = 60.0
"""A file that one node has written may become visible on another node only after so many seconds."""
# Maps a column to the columns that become invalid when an edit changes the first column. A column that the edit itself
# changes stays valid.
_INVALID = {
    "completion": ("token_ids", "label_probs"),
    "prompt": ("prompt_token_ids",),
    "teacher_prompt": ("prompt_token_ids",),
}


def judge_rows(work: tuple[Job, Task], services: Services) -> None:
    """Run edits and checks on the rows of one task, and compute the signatures for sweeps."""
    job, task = work
    _check_node(job)
    rules: list[Chosen[Check] | Chosen[Sweep]] = [*job.checks, *job.sweeps]
    names = [name for rule in rules for name in rule.columns]
    judged: list[pa.RecordBatch] = []
    signed: dict[str, list[pa.Table]] = {rule.name: [] for rule in job.sweeps}
    start = task.start
    for shard, _ in task.shards:
        if job.edits:
            _edit(job, shard, services)
        for columns in read(job, shard, [*names, "group_id"]):
            judged.append(_checked(job, columns, services))
            kept = np.flatnonzero(lengths(judged[-1]["verdicts"]) == 0)
            if "scores" in names:  # a sweep reads the scores, including the scores of the checks
                columns.replace({"scores": joined(columns.column("scores"), judged[-1]["scores"])})
            for rule in job.sweeps:
                signed[rule.name].append(_signed(rule, columns, kept, start, services))
            start += columns.rows
    for name, tables in signed.items():
        write_table(job.signatures(name, task), pa.concat_tables(tables).combine_chunks())
    write_table(job.step(JUDGED, task.number), pa.Table.from_batches(judged))


def _check_node(job: Job) -> None:
    """Raise UserError when this process sees another folder, other files or other code than the command, which may run
    on another machine.
    """
    end = time.monotonic() + _VISIBLE
    while not is_regular(job.folder / "inputs.json") or corpus.inputs_hash(job.folder) != job.inputs:
        if time.monotonic() > end:
            raise UserError(
                f"{job.folder} is not the same folder on every node of the cluster",
                "every node must see the folder of the run under the same path (see docs/scale.md)",
            )
        time.sleep(0.1)
    for path, expected in job.files.items():
        _check_file(path, expected)
    rules: list[Chosen[Edit] | Chosen[Check] | Chosen[Sweep]] = [*job.edits, *job.checks, *job.sweeps]
    for rule in rules:
        if rule.entry.fingerprint and resolve(rule.entry.fingerprint)(rule.section) != job.code[rule.name]:
            raise UserError(
                f"curate.{rule.name}: this process imports other code than the command",
                "every node must have the same modules",
            )


@cache
def _check_file(path: str, expected: str) -> None:
    if content_hash(Path(path)) != expected:
        raise UserError(
            f"{path} is not the file that the command has read",
            "every node must see the same files under the same paths",
        )


def _signed(rule: Chosen[Sweep], columns: Columns, kept: Rows, start: int, services: Services) -> pa.Table:
    """Compute the signatures of the rows of a batch whose indexes are in `kept`. `start` is the number, in the corpus,
    of the batch's first row.
    """
    batch = columns.select(rule.columns)
    batch = batch if len(kept) == columns.rows else batch.take(pa.array(kept))
    batch = batch.append_column("row", pa.array(kept + start, pa.int64()))
    signatures: pa.Table = resolve(rule.entry.signature)(batch, rule.section, services)
    needed = {"row"} if rule.entry.decide else {"key", "row"}
    if not needed <= set(signatures.column_names):
        raise SynthgenError(f"the sweep '{rule.name}' returned signatures without {' and '.join(sorted(needed))}")
    return signatures


def read(job: Job, shard: str, names: list[str]) -> Iterator[Columns]:
    """Yield the rows of a shard in batches. The batches have the stored columns that are needed for the columns
    `names`, with the changes of all edits.
    """
    wanted = stored(names)
    edited = read_table(job.edited(shard)) if job.edited(shard).exists() else None
    measured = confidence.of_shard(job.source, shard, edited) if CONFIDENCE in names else None
    start = 0
    for batch in corpus.read_batches(job.source / "data" / f"{shard}.parquet", wanted):
        columns = Columns(batch)
        if edited is not None:
            changed = edited.slice(start, batch.num_rows)
            columns.replace({n: changed[n].combine_chunks() for n in changed.column_names if n in wanted})
        if measured is not None:
            columns.replace({CONFIDENCE: measured.slice(start, batch.num_rows)})
        start += batch.num_rows
        yield columns


def _checked(job: Job, columns: Columns, services: Services) -> pa.RecordBatch:
    rejections, scores = [], []
    for rule in job.checks:
        outcome = _verdicts(rule, columns, services)
        for row, rejection in outcome.rejected.items():
            rejections.append((row, rejection.entry(rule.name, rule.entry.teaches)))
        scores += list(outcome.scores.items())
    verdicts, measured = verdict_column(columns.rows, rejections), score_column(columns.rows, scores)
    return pa.RecordBatch.from_arrays(
        [verdicts, measured, columns.column("group_id")], names=["verdicts", "scores", "group_id"]
    )


def _verdicts(rule: Chosen[Check], columns: Columns, services: Services) -> Verdicts:
    outcome: Verdicts = resolve(rule.entry.run)(columns.select(rule.columns), rule.section, services)
    right = all(0 <= row < columns.rows for row in outcome.rejected)
    if not right or any(len(values) != columns.rows for values in outcome.scores.values()):
        raise SynthgenError(f"the check '{rule.name}' returned verdicts for rows that are not in its batch")
    return outcome


def _edit(job: Job, shard: str, services: Services) -> None:
    """Run the edits on a shard, and write the columns that they change. Writes nothing when no row changed."""
    names = [name for rule in job.edits for name in (*rule.entry.columns, *rule.entry.changes)]
    changed = list(dict.fromkeys(name for rule in job.edits for name in (*rule.entry.changes, *_spoilt(rule.entry))))
    read_too = ["edits", *(["teacher"] if job.tokenizers else [])]
    batches, any_row, cut = [], False, 0
    for batch in corpus.read_batches(job.source / "data" / f"{shard}.parquet", stored([*names, *changed, *read_too])):
        columns = Columns(batch)
        touched = np.zeros(batch.num_rows, bool)
        prompts = np.zeros(batch.num_rows, bool)
        for rule in job.edits:
            rows = _apply(rule, columns, services)
            touched |= rows
            prompts |= rows & ("prompt" in rule.entry.changes)
        any_row |= bool(touched.any())
        if job.tokenizers and "token_ids" in changed:
            after = columns.select(["completion", "token_ids"])
            ids, count = shortened(batch, after, np.flatnonzero(touched & ~prompts), job.tokenizers)
            columns.replace({"token_ids": ids})
            cut += count
        batches.append(columns.select([*changed, "edits"]))
    if any_row:
        table = pa.Table.from_batches(batches)
        write_table(job.edited(shard), table.replace_schema_metadata({CUT: b"1"} if cut else None))


def _spoilt(entry: Edit) -> list[str]:
    """The columns that become invalid in each row that this edit changes."""
    return [name for column in entry.changes for name in _INVALID.get(column, ()) if name not in entry.changes]


def _apply(rule: Chosen[Edit], columns: Columns, services: Services) -> npt.NDArray[np.bool_]:
    """Apply one edit to the columns of a batch. Returns a mask of the rows that the edit changed."""
    entry = rule.entry
    given = columns.select([*entry.columns, *entry.changes, "edits"])
    edited: pa.RecordBatch = resolve(entry.run)(given, rule.section, services)
    for name in (*entry.changes, "edits"):
        if edited.num_rows != columns.rows or edited[name].type != given[name].type:
            raise SynthgenError(f"the edit '{rule.name}' returned different rows, or changed the type of '{name}'")
    mask = lengths(edited["edits"]) > lengths(given["edits"])
    touched = pa.array(mask)
    columns.replace({name: edited[name] for name in (*entry.changes, "edits")})
    columns.replace(
        {
            name: pc.if_else(touched, pa.nulls(columns.rows, columns.column(name).type), columns.column(name))
            for name in _spoilt(entry)
        }
    )
    return mask
