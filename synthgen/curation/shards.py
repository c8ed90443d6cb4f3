"""Writes the shards of the curated corpus. Kept rows go to data/, rejected rows with their reasons to rejected/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus
from synthgen.curation.job import JUDGED, Job, Task
from synthgen.curation.late import Late
from synthgen.curation.lists import joined, lengths, numbers
from synthgen.curation.tokens import distributions
from synthgen.curation.verdicts import verdict_column
from synthgen.executor import Services
from synthgen.executor.exchange import read_table

COUNTED = ("token_ids", "usage", "verdicts", "scores", "edits")
"""The columns that `counted` reads."""


@dataclass
class Tally:
    """Numbers about a curated corpus: its counts by name and, for each check or sweep, the number of its verdicts and
    the number of rows that it was the first to reject.
    """

    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def __iadd__(self, other: Tally) -> Tally:
        self.counts.update(other.counts)
        self.reasons.update(other.reasons)
        self.dropped.update(other.dropped)
        return self


@dataclass(frozen=True)
class Writing:
    """The input of `write_shards`: one task, and `done`, the names of the shards that exist already and only have to be
    counted. `logits` says whether the curated corpus gets its own files of distributions.
    """

    job: Job
    task: Task
    late: tuple[Late, ...]
    done: frozenset[str]
    logits: bool


def write_shards(piece: Writing, services: Services) -> Tally:
    """Write the shards of one task that do not exist yet. Returns counts over all shards of the task."""
    job, task, tally = piece.job, piece.task, Tally()
    missing = [name for name, _ in task.shards if name not in piece.done]
    judged = _judged(piece) if missing else None
    start = 0
    for name, rows in task.shards:
        if judged is None or name in piece.done:
            for part in ("data", "rejected"):
                tally += counted(part, corpus.read_columns(job.folder / part / f"{name}.parquet", COUNTED))
        else:
            before = corpus.read_shard(job.source / "data" / f"{name}.parquet")
            table = _with(before, job.edited(name))
            verdicts = judged["verdicts"].slice(start, rows)
            scores = joined(table["scores"].combine_chunks(), judged["scores"].slice(start, rows))
            table = _set(_set(table, "verdicts", verdicts), "scores", scores)
            kept = pc.equal(pc.list_value_length(verdicts), 0)
            parts = {"rejected": table.filter(pc.invert(kept)), "data": table.filter(kept)}
            stored = dict(distributions(job.source, name, before, table)) if piece.logits else {}
            corpus.commit(job.folder, name, {**parts, **stored}, job.inputs)
            for part, part_rows in parts.items():
                tally += counted(part, part_rows)
        start += rows
    return tally


def _judged(piece: Writing) -> pa.RecordBatch:
    """The columns `verdicts` and `scores` of a task's rows. The verdicts that the later steps (`piece.late`) gave to
    these rows are appended.
    """
    table = read_table(piece.job.step(JUDGED, piece.task.number)).combine_chunks()
    verdicts, scores = (table[name].combine_chunks() for name in ("verdicts", "scores"))
    entries = [pair for step in piece.late for pair in step.entries(piece.task)]
    if entries:
        verdicts = joined(verdicts, verdict_column(piece.task.rows, entries))
    return pa.RecordBatch.from_arrays([verdicts, scores], names=["verdicts", "scores"])


def _with(table: pa.Table, edited: Path) -> pa.Table:
    """Return `table` with some columns replaced by the columns in the file `edited`, which are the columns that edits
    changed. If the file does not exist, `table` is returned unchanged.
    """
    if edited.exists():
        for name, column in zip((changed := read_table(edited)).column_names, changed.columns, strict=True):
            table = _set(table, name, column)
    return table


def _set(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), column)


def counted(part: str, table: pa.Table) -> Tally:
    """Count the rows, tokens, answers and reasons in one shard; `part` is "data" or "rejected"."""
    kind = "kept" if part == "data" else "rejected"
    counts = Counter({kind: table.num_rows})
    # Rows from a server have no token ids, unless the server returns them. For rows without token ids, the server's
    # count of tokens is used.
    counted = pc.struct_field(table["usage"], "completion_tokens")
    ids = pc.list_value_length(table["token_ids"])
    ids = pc.if_else(pc.greater(ids, 0), ids, None)
    # The server counted the tokens before the edits, so its count is not used for an edited text.
    edited = lengths(table["edits"].combine_chunks()) > 0
    tokens = pc.if_else(pa.array(edited), ids, pc.max_element_wise(ids, counted))
    counts[f"tokens_{kind}"] = pc.sum(tokens).as_py() or 0
    counts["rows_without_tokens"] = tokens.null_count
    counts["edited"] = int(edited.sum())
    scores = table["scores"].combine_chunks().flatten()
    answers = numbers(pc.filter(pc.struct_field(scores, "value"), pc.equal(pc.struct_field(scores, "name"), "answer")))
    counts["answers_checked"], counts["answers_correct"] = len(answers), int(np.count_nonzero(answers))
    verdicts = table["verdicts"].combine_chunks()
    checks = pc.struct_field(verdicts.flatten(), "check")
    sizes = lengths(verdicts)
    first = checks.take(pa.array((np.cumsum(sizes) - sizes)[sizes > 0]))
    return Tally(counts, _number_of_each(checks), _number_of_each(first))


def _number_of_each(names: pa.Array) -> Counter[str]:
    return Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(names).to_pylist()})


def facts_of(total: Tally) -> tuple[dict[str, int], dict[str, int]]:
    """Return (`counts`, `rejected_by`) for the manifest. The count of edited rows is left out when no row was edited.
    The counts of answers are left out when no answer was checked. The counts of tokens are left out when no row has a
    count of tokens, as in a corpus that was made from a data set. `rows_without_tokens` is the number of rows without a
    count of tokens, if only some rows have none.
    """
    tokens = total.counts["tokens_kept"] + total.counts["tokens_rejected"] > 0
    names = ["kept", "rejected"]
    names += ["tokens_kept", "tokens_rejected"] if tokens else []
    names += ["rows_without_tokens"] if tokens and total.counts["rows_without_tokens"] else []
    names += ["answers_checked", "answers_correct"] if total.counts["answers_checked"] else []
    names += ["edited"] if total.counts["edited"] else []
    return {name: total.counts[name] for name in sorted(names)}, dict(sorted(total.reasons.items()))


def sizes(tasks: Sequence[Task]) -> int:
    """The number of rows of all tasks."""
    return sum(task.rows for task in tasks)
