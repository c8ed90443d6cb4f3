"""A large Parquet file is read a few rows at a time, and the memory never holds all of it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthgen import corpus, parquet
from synthgen.datasets import open_dataset, records, source_of

GROUPS, ROWS = 12, 1000  # number of row groups, and rows in each group; a row has 2 kB of random text


def largest(rows) -> int:
    """The peak of the bytes that Arrow used while the rows were read, minus the bytes in use before."""
    before, most = pa.total_allocated_bytes(), 0
    for _ in rows:
        most = max(most, pa.total_allocated_bytes() - before)
    return most


def test_files_of_many_row_groups(tmp_path):
    path = tmp_path / "rows.parquet"
    draw = np.random.default_rng(0)
    with pq.ParquetWriter(path, pa.schema([("prompt", pa.string()), ("completion", pa.string())])) as file:
        for _ in range(GROUPS):
            texts = [draw.bytes(1000).hex() for _ in range(ROWS)]
            file.write_table(pa.table({"prompt": ["p"] * ROWS, "completion": texts}))
    group = path.stat().st_size // GROUPS
    assert group > 800_000
    dataset = open_dataset(source_of(path))
    assert dataset.rows == GROUPS * ROWS
    limit = 7 * group
    assert 0 < largest(records(dataset, "t", None)) < limit
    assert 0 < largest(parquet.scan(path)) < limit
    assert 0 < largest(corpus.read_batches(path, ["completion"])) < limit
