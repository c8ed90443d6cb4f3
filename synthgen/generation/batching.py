"""The description of the work that is sent through an engine's Batch API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from synthgen.generation.division import Shard
from synthgen.generation.jobs import Jobs
from synthgen.ui import UI


@dataclass(frozen=True)
class Batching:
    """The shards whose requests are sent as batches. `folder` is the folder of the corpus, which contains the journal
    of batches if an earlier process sent some.
    """

    jobs: Jobs
    shards: Sequence[Shard]
    folder: Path
    ui: UI
