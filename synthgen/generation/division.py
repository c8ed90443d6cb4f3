"""Divides the jobs of a run into shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthgen.records import SPLITS


@dataclass(frozen=True)
class Shard:
    """The jobs from index `start` up to, but not including, `stop` in the list of all jobs of the run. All these jobs
    belong to one split. `name` is the name of the shard's files without suffix.
    """

    name: str
    split: str
    start: int
    stop: int


def plan_shards(counts: Mapping[str, int], size: int) -> list[Shard]:
    """Divide the list of all jobs into shards of at most `size` jobs. The list is ordered by split, and `counts` is the
    number of jobs of each split.
    """
    shards: list[Shard] = []
    start = 0
    for split in SPLITS:
        total = counts.get(split, 0)
        for number, begin in enumerate(range(start, start + total, size)):
            shards.append(Shard(f"{split}-{number:05d}", split, begin, min(begin + size, start + total)))
        start += total
    return shards
