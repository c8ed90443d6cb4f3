"""The work that is given to an engine's Batch API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.generation.division import Shard
from synthgen.generation.jobs import Jobs
from synthgen.ui import UI


@dataclass(frozen=True)
class Batching:
    """The shards whose requests are sent as batches. `folder` is the folder of the corpus. It may hold a journal of
    batches.
    """

    jobs: Jobs
    shards: Sequence[Shard]
    folder: Path
    ui: UI
