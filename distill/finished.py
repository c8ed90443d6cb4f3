"""Finds out whether a student is already trained, without importing torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from synthgen import corpus, durable
from synthgen.manifest import FileEntry, Manifest
from synthgen.recipe import TRAIN_MAY_CHANGE, TrainSection, differences
from synthgen.results.training import FILE
from synthgen.tables.students import KINDS


class Inputs(TypedDict):
    """The content of a student's inputs.json: its settings, and hashes of the corpora that it learns from."""

    train: dict[str, Any]
    curated_sha256: str
    logits_sha256: NotRequired[str]
    across_sha256: NotRequired[str]


def made_from(section: TrainSection, source: Path, manifest: Manifest) -> Inputs:
    """The content of inputs.json for a student that is trained with these settings on the corpus `source`, which has
    this manifest.

    The hash of the stored distributions is taken from the manifest of the corpus that has them. The files of the
    distributions are compared with this manifest only when the files are read. If `train.across` names another run,
    this function verifies the files of that run.
    """
    inputs: Inputs = {
        "train": settings_of(section),
        "curated_sha256": durable.digest(manifest["files"]),
    }
    if reads_logits(section):
        beside = source.parent / "generated"
        files = dict(manifest["files"])
        if not _logits(files) and (beside / "manifest.json").exists():
            files = corpus.manifest(beside)["files"]
        inputs["logits_sha256"] = durable.digest(_logits(files))
    if section.across and section.across.run:
        other = corpus.resolve(Path(section.across.run), prefer=("generated", "curated"))
        inputs["across_sha256"] = durable.digest(corpus.verify(other)["files"])
    return inputs


def settings_of(section: TrainSection) -> dict[str, Any]:
    """The settings of the section `train` on which the student depends, as JSON."""
    return section.model_dump(mode="json", exclude={**dict.fromkeys(TRAIN_MAY_CHANGE, True), "student": {"license"}})


def _logits(files: Mapping[str, FileEntry]) -> dict[str, FileEntry]:
    """The files of a manifest that hold stored distributions."""
    return {name: entry for name, entry in files.items() if name.startswith("logits/")}


def reads_logits(section: TrainSection) -> bool:
    """Whether a student with these settings learns from distributions that are stored beside its corpus."""
    dropped = section.rationale is not None and section.rationale.mode == "dropped"
    elsewhere = section.across is not None and section.across.run is not None
    alone = section.kd_weight == 0 or dropped or section.online is not None or elsewhere
    return KINDS[section.student.kind].learns_from_distributions and not alone


def is_trained(section: TrainSection, source: Path, folder: Path) -> bool:
    """Whether `folder` holds a finished student that was trained with these settings on the curated corpus `source`."""
    if not ((folder / FILE).exists() and (folder / "inputs.json").exists()):
        return False
    return not differences(
        corpus.load_json(folder / "inputs.json"), dict(made_from(section, source, corpus.verify(source)))
    )
