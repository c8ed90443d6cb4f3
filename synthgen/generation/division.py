"""Divides the requests of a run into shards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthgen.records import SPLITS


@dataclass(frozen=True)
class Shard:
    """Requests `start` (included) to `stop` (excluded) of the whole run, all of one split.

    `name` is the name of the shard's files without suffix.
    """

    name: str
    split: str
    start: int
    stop: int


def plan_shards(counts: Mapping[str, int], size: int) -> list[Shard]:
    """Divide the requests, which are ordered by split, into shards of at most `size` requests.

    `counts` is the number of requests of each split.
    """
    shards: list[Shard] = []
    start = 0
    for split in SPLITS:
        total = counts.get(split, 0)
        for number, begin in enumerate(range(start, start + total, size)):
            shards.append(Shard(f"{split}-{number:05d}", split, begin, min(begin + size, start + total)))
        start += total
    return shards
