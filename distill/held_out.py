"""Reads the rows of a curated corpus for evaluations and exports: only a few columns, one shard at a time.

    first_rows(run / "curated", "test", 100)     # list[HeldOut]

Rows are ordered by shard and, within a shard, by record id. Rejected rows are included unless one of their reasons
forbids learning from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from distill.intervals import Array
from synthgen import corpus
from synthgen.records import Message, Score, Usage


@dataclass(frozen=True)
class HeldOut:
    """The columns of a held-out row that evaluations read; see `synthgen.records`."""

    id: str
    seed_id: str
    split: str
    strategy: str | None
    prompt: list[Message]
    teacher_prompt: list[Message] | None
    prompt_token_ids: Sequence[int] | None
    token_ids: Sequence[int] | None
    label_probs: Sequence[float] | None
    reference: list[str] | None
    scores: list[Score]
    group_id: str | None = None
    completion: list[Message] = field(default_factory=list)
    answer: str | None = None
    teacher: str | None = None
    served_model: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None

    @property
    def text(self) -> str:
        """The last user message of the prompt. A student that reads a single text gets this message as its input."""
        return str(next(m["content"] for m in reversed(self.prompt) if m["role"] == "user"))


_READ = [f.name for f in fields(HeldOut)]
PARTS = ("data", "rejected")


def first_rows(source: Path, split: str, most: int | None = None) -> list[HeldOut]:
    """The first `most` rows of a split, ordered by shard and id. If `most` is None, all rows are returned. The
    docstring of the module says which rejected rows are included.
    """
    return list(islice(_in_order(source, split), most))


def groups(rows: Sequence[HeldOut]) -> list[str]:
    """The name of each row's group. Two rows are in one group if they have the same seed or the same `group_id`, or if
    a chain of such rows joins them. Rows of different groups are independent, so the bootstrap draws whole groups.
    """
    first: dict[str, str] = {}

    def root(name: str) -> str:
        while first.setdefault(name, name) != name:
            first[name] = name = first[first[name]]
        return name

    for row in rows:
        if row.group_id is not None:
            first[root(f"group {row.group_id}")] = root(f"seed {row.seed_id}")
    return [root(f"seed {row.seed_id}") for row in rows]


def training_tokens(source: Path) -> Iterator[Array]:
    """Yield the completion tokens of the training rows, as one array for each batch of rows."""
    for name in _shards(source, "train"):
        for batch in _teaching(source, name, ["token_ids"]):
            yield np.asarray(batch["token_ids"].flatten(), np.int64)


def _in_order(source: Path, split: str) -> Iterator[HeldOut]:
    for name in _shards(source, split):
        rows = [HeldOut(**row) for batch in _teaching(source, name, _READ) for row in batch.to_pylist()]
        yield from sorted(rows, key=lambda row: row.id)


def _shards(source: Path, split: str) -> list[str]:
    """The names of the shards of a split."""
    return sorted({name for part in PARTS for name in corpus.shards(source, part, split)})


def _teaching(source: Path, name: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of one shard in batches, kept rows first. Skips rows from which nothing may be learned."""
    for part in PARTS:
        path = source / part / f"{name}.parquet"
        for batch in corpus.scan(path, [*columns, "verdicts.list.element.teaches"]) if path.exists() else ():
            reasons = batch["verdicts"].to_pylist()
            teaches = [all(reason["teaches"] != "nothing" for reason in row or ()) for row in reasons]
            yield batch.drop_columns(["verdicts"]).filter(pa.array(teaches, pa.bool_()))
