"""What a student was made from, and whether it is there already: asked without loading torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthgen import corpus, durable
from synthgen.recipe import TRAIN_MAY_CHANGE, TrainSection, differences


def made_from(section: TrainSection, made: dict[str, Any]) -> dict[str, Any]:
    """What decides a student: its settings, and the corpus whose manifest is `made`. A student's inputs.json."""
    train = section.model_dump(mode="json", exclude=set(TRAIN_MAY_CHANGE))
    found = {"train": train, "curated_sha256": durable.digest(made["files"])}
    if section.across:
        other = corpus.resolve(Path(section.across.run), prefer=("generated", "curated"))
        found["across_sha256"] = durable.digest(corpus.manifest(other)["files"])
    return found


def is_trained(section: TrainSection, source: Path, folder: Path) -> bool:
    """Does `folder` hold the finished student of these settings and of the curated corpus `source`?"""
    if not ((folder / "training.json").exists() and (folder / "inputs.json").exists()):
        return False
    return not differences(corpus.load_json(folder / "inputs.json"), made_from(section, corpus.verify(source)))
