"""Reads back a run's folder: rows, failures, the manifest, and the bytes of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from synthgen import corpus, logits
from synthgen.records import Reason, Record
from synthgen.results.training import Training


def reason(check: str, text: str, rule: str = "", score: float | None = None) -> Reason:
    """An entry of the column `verdicts`: a reason for which a row was rejected."""
    return Reason(
        check=check,
        rule=rule or check,
        score=score,
        threshold=None,
        matched_id=None,
        span=None,
        reason=text,
        teaches="nothing",
    )


def training_of(kind: str) -> dict[str, Any]:
    """The content of training.json for a student of this kind that was not trained."""
    made = Training(student="made by a test", learns_by="", learned_from="", steps=0, rows=0, metrics={}, kind=kind)
    return made.to_dict()


def rows_of(folder: Path) -> list[Record]:
    """Every row of a corpus, in order."""
    return [record for _, records in corpus.records(folder) for record in records]


def failures_of(folder: Path) -> list[dict[str, Any]]:
    """Every failure of a corpus."""
    return [row for path in sorted(folder.glob("failures/*.parquet")) for row in pq.read_table(path).to_pylist()]


def read(folder: Path) -> tuple[list[Record], list[dict[str, Any]], dict[str, Any]]:
    """(rows, failures, manifest) of a finished corpus."""
    return rows_of(folder), failures_of(folder), corpus.manifest(folder)


def files(folder: Path) -> dict[str, bytes]:
    """The bytes of each file below a folder, by name."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def check_logits(folder: Path, records: list[Record], k: int = 8) -> dict[tuple[str, str], tuple[Path, Any, int]]:
    """Asserts that every row has distributions of its own teacher, aligned with its tokens.

    Returns a map from (teacher, id of a row) to (path, shard, number of the row in the shard).
    """
    where = {}
    for part in sorted(folder.glob("logits/*")):
        for path in sorted(part.glob("*.parquet")):
            shard = logits.read(path)
            where |= {(part.name, i): (path, shard, row) for row, i in enumerate(shard.ids)}
    for record in records:
        path, shard, row = where[record.teacher, record.id]
        logits.check_aligned(shard, row, record.id, record.token_ids, path)
        assert shard.target(row).ids.shape == (len(record.token_ids), k)
    return where
