"""The student's model card: README.md with corpus hash, licences and, once evaluated, results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synthgen import durable
from synthgen.card import environment
from synthgen.recipe import Recipe


def write_model_card(
    folder: Path, recipe: Recipe, made: dict[str, Any], training: dict[str, Any] | None = None
) -> None:
    """Write README.md from `training` (training.json, if that is there) and, where it is there, evaluation.json."""
    training = training or json.loads((folder / "training.json").read_text())
    evaluation = folder / "evaluation.json"
    text = (
        environment()
        .get_template("model_card.md.j2")
        .render(
            recipe=recipe,
            made=made,
            corpus_sha256=durable.digest(made["files"]),
            training=training,
            evaluation=json.loads(evaluation.read_text()) if evaluation.exists() else None,
        )
    )
    durable.write_text(folder / "README.md", text)
