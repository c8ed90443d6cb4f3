"""Reads the rows of a corpus once, computes the counts that the page of a run shows, and picks some rows to display.

Only the needed columns are read, in batches, so the memory use does not grow with the corpus.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from synthgen import corpus
from synthgen.manifest import Manifest
from synthgen.records import Record, from_rows

_ROWS = 6  # number of displayed rows of each part of the corpus, such as data/
_KINDS = 20  # the page shows no table of kinds if there are more kinds than this
_COLUMNS = ["seed_id", "split", "token_ids", "reference", "scores"]


@dataclass
class Seen:
    """The rows of one part of a corpus (data/ or rejected/) that the page displays, and counts over all rows of this
    part.
    """

    few: list[Record] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)


def look(source: Path, part: str, manifest: Manifest, labels: list[str]) -> Seen:
    """Count the rows of one part of a corpus, and pick some rows. `labels` are the labels of a classification task; for
    other tasks, `labels` is empty.

    Rows whose answers were checked are counted by kind. The kind of a row is its correct label. Without `labels`, the
    kind is the part of the seed's id before the last "-", such as "sum" for "sum-12".
    """
    seen = Seen()
    total = sum(entry["rows"] for name, entry in manifest["files"].items() if name.startswith(f"{part}/"))
    wanted = sorted({total * i // _ROWS for i in range(_ROWS)})  # positions that are spread evenly over the part
    begin = 0
    for name in corpus.shards(source, part):
        path, rows = corpus.check_file(source, manifest, f"{part}/{name}.parquet"), 0
        for batch in corpus.scan(path, _COLUMNS):
            _count(batch, seen, labels)
            rows += batch.num_rows
        seen.few += _rows(path, [place - begin for place in wanted if begin <= place < begin + rows])
        begin += rows
    return seen


def kinds(*sides: Seen) -> list[tuple[str, int, int]]:
    """For each kind: (kind, number of correct rows, number of checked rows). The list is empty when there are more than
    `_KINDS` kinds.
    """
    checked = sum((side.checked for side in sides), Counter[str]())
    right = sum((side.right for side in sides), Counter[str]())
    return [(kind, right[kind], checked[kind]) for kind in sorted(checked)] if len(checked) <= _KINDS else []


def _count(batch: pa.RecordBatch, seen: Seen, labels: list[str]) -> None:
    import pyarrow.compute as pc

    seen.lengths.update(length or 0 for length in pc.list_value_length(batch["token_ids"]).to_pylist())
    seen.splits.update(split or "" for split in batch["split"].to_pylist())
    rows = batch.select(["seed_id", "reference", "scores"]).to_pylist()
    for row in rows:
        score = next((s["value"] for s in row["scores"] or () if s["name"] == "answer"), None)
        kind = (row["reference"] or [None])[0] if labels else row["seed_id"].rpartition("-")[0]
        if score is not None and kind and (kind in seen.checked or len(seen.checked) <= _KINDS):
            seen.checked[kind] += 1
            seen.right[kind] += int(score)


def _rows(path: Path, places: list[int]) -> list[Record]:
    """The records at the positions `places` of a file. The positions are in ascending order."""
    found: list[Record] = []
    begin = 0
    for batch in corpus.scan(path) if places else ():
        inside = [place - begin for place in places if begin <= place < begin + batch.num_rows]
        found += from_rows(row for place in inside for row in batch.slice(place, 1).to_pylist())
        begin += batch.num_rows
    return found
