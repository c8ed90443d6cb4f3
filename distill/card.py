"""Writes the student's model card, README.md: the corpus, the licenses, how to run the student, evaluation results.

Evaluation results are included only if the student has been evaluated.
"""

from __future__ import annotations

from pathlib import Path

from synthgen import durable
from synthgen.cards import environment, markdown_table
from synthgen.lineage import sources_of
from synthgen.manifest import Manifest
from synthgen.recipe import Recipe
from synthgen.results.evaluation import Evaluation, read_evaluation
from synthgen.results.measures import columns
from synthgen.results.training import Training, read_training


def write_model_card(
    folder: Path,
    recipe: Recipe,
    manifest: Manifest,
    training: Training | None = None,
    evaluation: Evaluation | None = None,
) -> None:
    """Write README.md of the student in `folder`.

    `manifest` is the manifest of the student's corpus. When `training` or `evaluation` is left out, it is read from
    `folder`.
    """
    if training is None:
        training = read_training(folder / "training.json")
    measured = folder / "evaluation.json"
    if evaluation is None and measured.exists():
        evaluation = read_evaluation(measured)
    tables = {"quality": "", "cost": ""}
    if evaluation is not None:
        for about in tables:
            shown = columns(evaluation.measures, evaluation.table.values(), about)
            rows = {name: row for name, row in evaluation.table.items() if any(key in row for key in shown)}
            tables[about] = markdown_table(shown, rows) if shown else ""
    text = (
        environment()
        .get_template("model_card.md.j2")
        .render(
            recipe=recipe,
            manifest=manifest,
            sources=sources_of(recipe, manifest),
            corpus_sha256=durable.digest(manifest["files"]),
            training=training,
            evaluation=evaluation,
            **tables,
        )
    )
    durable.write_text(folder / "README.md", text)
