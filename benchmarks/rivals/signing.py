"""A task of `near_synthgen.py` on Ray. The workers import it from this module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synthgen.curation.near import signature
from synthgen.executor import Services
from synthgen.executor.exchange import write_table
from synthgen.tables.curation_settings import NearDuplicates


@dataclass(frozen=True)
class Signing:
    """A row group of a Parquet file. `start` is the number of its first row, and `path` the file to write."""

    source: Path
    group: int
    start: int
    section: NearDuplicates
    path: Path


def sign(work: Signing, services: Services) -> Path:
    """Writes the signatures of the rows of a row group."""
    with pq.ParquetFile(work.source, pre_buffer=False) as file:
        texts = file.read_row_group(work.group, ["text"], use_threads=False)["text"].combine_chunks()
    row = pa.array(np.arange(work.start, work.start + len(texts)))
    batch = pa.record_batch({"completion.said": texts, "split": pa.repeat("train", len(texts)), "row": row})
    write_table(work.path, signature(batch, work.section, services))
    return work.path


def signings(source: Path, section: NearDuplicates, folder: Path) -> list[Signing]:
    """One task for each row group."""
    with pq.ParquetFile(source, pre_buffer=False) as file:
        counts = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    starts = np.cumsum([0, *counts]).tolist()
    return [
        Signing(source.resolve(), number, starts[number], section, folder / f"{number:05d}.arrow")
        for number in range(len(counts))
    ]
