"""The order in which the files of a run are sent to a store, so that a store never holds a commit without its parts.

A stage comes after the stages that it reads. Inside a stage, the inputs come first, then the companions of shards and
the weights, then the data files, then cards, then the files that mark weights or the stage as finished, and last the
results of measurements. Files are deleted in the opposite order.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from synthgen import durable
from synthgen.outputs import STAGES
from synthgen.stores.lease import FOLDER

INPUTS, PARTS, DATA, CARDS, ARMS, MARKS, RESULTS = range(7)

_KINDS = (
    (INPUTS, r"(.+/)?(inputs\.json|recipe\.yaml|\.run-id|\.seed-rows|batches\.json)|ledger/.+"),
    (DATA, r"(.+/)?data/[^/]+\.parquet"),
    (CARDS, r"(.+/)?(README|NOTICE)\.md"),
    (ARMS, r"(.+/)?metrics\.jsonl"),  # marks the weights beside it as complete
    (MARKS, r"(.+/)?(manifest|training)\.json"),
    (RESULTS, r"(.+/)?(evaluation|curve|report|export|export-[^/]+)\.json"),
)
_LOCAL = re.compile(r"(.+/)?(cache/.+|\.lock)")
"""Files that stay on the disk of a machine: locks, and the cache of tokenized training rows, which can be made again.
"""
REMOVAL = (".removing.json", "removed.jsonl")
"""The journal and the tombstones of `synthgen remove`. They are sent before anything is deleted, and the journal is
deleted last."""


def rank(name: str) -> tuple[int, int]:
    """The place of a file in the order: (number of its stage, kind of the file)."""
    stage = name.partition("/")[0]
    kind = next((kind for kind, pattern in _KINDS if re.fullmatch(pattern, name)), PARTS)
    if name in REMOVAL:
        return -1, INPUTS
    return STAGES.index(stage) if stage in STAGES else -1, kind


def is_sent(name: str) -> bool:
    """Whether a file of a run belongs in the store."""
    parts = name.split("/")
    return not (_LOCAL.fullmatch(name) or parts[0] == FOLDER or any(p.startswith(durable.TEMPORARY) for p in parts))


def rebuilds(name: str) -> bool:
    """Whether a change of this file makes the card and the mark of its stage untrue."""
    weights = name.endswith(".safetensors") and "checkpoints/" not in name
    return weights or name.endswith(".parquet") or name.rpartition("/")[2] == "inputs.json"


def speaks_of_others(name: str) -> bool:
    """Whether a file is untrue when another file of its stage changes: a card, or a mark."""
    return name.rpartition("/")[2] == "README.md" or rank(name)[1] in (ARMS, MARKS)


def stage_of(name: str) -> str:
    """The folder of a corpus or student to which a file belongs, as a prefix: 'curated/', or '' at the top."""
    first = name.partition("/")[0]
    return f"{first}/" if first in STAGES else ""


Stat = tuple[int, int, int]


def scan(folder: Path) -> dict[str, Stat]:
    """The files of a working folder that belong in the store: name → (inode, size, time of the last change).

    A command may write while the folder is read. Files are therefore listed in the opposite of their order: when a file
    is seen, all files on which it builds are on the disk, and they are listed later.
    """
    seen: dict[str, Stat] = {}
    tops = [name for name in reversed(STAGES) if (folder / name).is_dir()]
    for top in [*tops, ""]:
        for kind in reversed(range(RESULTS + 1)):
            for name, stat in _walk(folder, top):
                if is_sent(name) and rank(name)[1] == kind:
                    seen.setdefault(name, stat)
    return seen


def _walk(folder: Path, top: str) -> list[tuple[str, Stat]]:
    """The files below the folder of a stage, or the files of a run that lie in no stage's folder."""
    found = []
    for where, folders, files in os.walk(folder / top):
        if not top and Path(where) == folder:
            folders[:] = [name for name in folders if name not in STAGES]
        folders[:] = [name for name in folders if name != "cache" and not name.startswith(durable.TEMPORARY)]
        for file in files:
            path = Path(where) / file
            if (stat := stat_of(path)) is not None:
                found.append((path.relative_to(folder).as_posix(), stat))
    return found


def stat_of(path: Path) -> Stat | None:
    """What changes when a file is written again; None when the file is gone."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
