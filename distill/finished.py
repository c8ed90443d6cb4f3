"""Finds out whether a student is already trained, without importing torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from synthgen import corpus, durable
from synthgen.manifest import Manifest
from synthgen.recipe import TRAIN_MAY_CHANGE, TrainSection, differences
from synthgen.results.training import FILE


class Inputs(TypedDict):
    """The content of a student's inputs.json: its settings, and hashes of the corpora that it learns from."""

    train: dict[str, Any]
    curated_sha256: str
    across_sha256: NotRequired[str]


def made_from(section: TrainSection, manifest: Manifest) -> Inputs:
    """The content of inputs.json for a student with these settings, trained on the corpus that has this manifest."""
    inputs: Inputs = {
        "train": section.model_dump(
            mode="json", exclude={**dict.fromkeys(TRAIN_MAY_CHANGE, True), "student": {"license"}}
        ),
        "curated_sha256": durable.digest(manifest["files"]),
    }
    if section.across:
        other = corpus.resolve(Path(section.across.run), prefer=("generated", "curated"))
        inputs["across_sha256"] = durable.digest(corpus.manifest(other)["files"])
    return inputs


def is_trained(section: TrainSection, source: Path, folder: Path) -> bool:
    """Whether `folder` holds a finished student that was trained with these settings on the curated corpus `source`."""
    if not ((folder / FILE).exists() and (folder / "inputs.json").exists()):
        return False
    return not differences(corpus.load_json(folder / "inputs.json"), dict(made_from(section, corpus.verify(source))))
