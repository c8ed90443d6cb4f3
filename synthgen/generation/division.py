"""Divides the jobs of a run into shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synthgen.errors import RecipeError
from synthgen.files import LARGEST
from synthgen.records import SPLITS

_ENTRY = 170  # at most so many bytes of a manifest describe a file, without the name of its folder


@dataclass(frozen=True)
class Shard:
    """The jobs from index `start` up to, but not including, `stop` in the list of all jobs of the run. All these jobs
    belong to one split. `name` is the name of the shard's files without suffix.
    """

    name: str
    split: str
    start: int
    stop: int


def check_manifest(shards: int, speakers: Sequence[str]) -> None:
    """Raise RecipeError when the manifest of so many shards would be larger than the largest file that can be read.
    `speakers` are the teachers whose distributions are stored.
    """
    parts = ("data", "rejected", *(f"logits/{name}" for name in speakers))  # the curated corpus has rejected rows
    size = shards * sum(_ENTRY + len(part) for part in parts)
    if size > LARGEST:
        raise RecipeError(
            f"the manifest of {shards:,} shards would have {size >> 20:,} MiB, and at most {LARGEST >> 20} can be read",
            "raise generate.shard_size",
        )


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
