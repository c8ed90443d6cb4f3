"""The student's model card: README.md with corpus hash, licenses and, once evaluated, results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synthgen import durable
from synthgen.cards import environment
from synthgen.recipe import Recipe


def write_model_card(
    folder: Path,
    recipe: Recipe,
    made: dict[str, Any],
    training: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
) -> None:
    """Write README.md from `training` (training.json) and, where there is one, an `evaluation` (evaluation.json)."""
    training = training or json.loads((folder / "training.json").read_text())
    measured = folder / "evaluation.json"
    if evaluation is None and measured.exists():
        evaluation = json.loads(measured.read_text())
    text = (
        environment()
        .get_template("model_card.md.j2")
        .render(
            recipe=recipe,
            made=made,
            corpus_sha256=durable.digest(made["files"]),
            training=training,
            evaluation=evaluation,
        )
    )
    durable.write_text(folder / "README.md", text)
