"""A corpus is read by column: rows come in training order, and columns that were not asked for are not read."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.streams import (
    made,
    reference_rows,
    run,
)

from distill.data import rows
from distill.streaming import columns
from synthgen import corpus
from synthgen.errors import CorpusError

__all__ = ["made", "run"]  # fixtures


def test_rows_by_column_are_in_training_order(run):
    for split, share in (("train", 1.0), ("train", 0.4), ("test", 0.1)):
        wanted = [
            (r.id, r.prompt, r.token_ids, r.seed_id, kept) for r, kept in reference_rows(run / "curated", split, share)
        ]
        names = [columns.PROMPT, columns.TOKENS, columns.SEED_ID]
        found = list(columns.teaching_rows(run / "curated", split, names, share))
        assert [(*(row[name] for name in ("id", *names)), kept) for row, kept in found] == wanted
        assert all(set(row) == {"id", *names} for row, _ in found)
        listed = [(r.id, r.prompt, r.token_ids, r.seed_id, kept) for r, kept in rows(run / "curated", split, share)]
        assert listed == wanted
    assert rows(run / "curated", "train") == rows(run / "curated", "train", 1.0)


def test_tokens_are_counted_by_column(run):
    wanted = np.zeros(300, np.int64)
    for record, _ in reference_rows(run / "curated", "train"):
        np.add.at(wanted, np.asarray(record.token_ids), 1)
    assert columns.token_counts(run / "curated", "train", 300).tolist() == wanted.tolist()
    assert columns.token_counts(run / "curated", "validation", 300).sum() == 0


def test_only_the_columns_asked_for_are_read(run):
    """Damages a Parquet page of a column that was not asked for. As this page is not read, there is no error."""
    path = next((run / "curated" / "data").glob("train-*.parquet"))
    chunk = next(
        group.column(c)
        for group in [pq.read_metadata(path).row_group(0)]
        for c in range(group.num_columns)
        if group.column(c).path_in_schema.startswith("completion")
        and "content" in group.column(c).path_in_schema.split(".")
    )
    with path.open("r+b") as file:
        file.seek(chunk.data_page_offset + chunk.total_compressed_size - 5)
        file.write(b"damaged"[:4])
    rows = sum(batch.num_rows for _, batch in columns.columns(run / "curated", "data", "train", ["sources"], 3))
    assert rows == sum(len(some) for _, some in corpus.records(run / "generated", "data", "train")) - sum(
        len(some) for _, some in corpus.records(run / "curated", "rejected", "train")
    )
    with pytest.raises(CorpusError, match="is damaged"):
        list(columns.columns(run / "curated", "data", "train", ["completion"]))


def test_a_shard_without_learnable_rows_is_empty(run):
    found = columns.teaching(run / "curated", "train-99999", [columns.TOKENS])
    assert [len(part) for part in (found, found.table, found.kept, found.places)] == [0] * 4
    assert (found.degenerate, found.rejected_side) == (0, 0)
