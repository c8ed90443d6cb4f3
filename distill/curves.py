"""How much data is worth: the same student on growing shares of the training seeds, each measured.

    curve(recipe, "runs/first")           # → runs/first/student/curve.json

A smaller share is part of a larger one, epochs are the recipe's, and so steps grow with the data. Each point is a
student of its own under student/curve/, made once; the last, all of the data, is the run's student itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill.evaluation.evaluate import evaluate
from distill.training import opened, train
from synthgen import corpus, durable
from synthgen.errors import UserError
from synthgen.recipe import Recipe
from synthgen.ui import UI

SHARES = (0.25, 0.5, 1.0)


def curve(
    recipe: Recipe, run: str | Path, shares: Sequence[float] = SHARES, *, fresh: bool = False, ui: UI | None = None
) -> dict[str, Any]:
    """Train and evaluate at each share; returns and writes student/curve.json.

    A point has `share`, `rows`, `steps`, and an interval a model and measure. Raises UserError for shares that are
    not between 0 and 1, and whatever training raises.
    """
    ui = ui or UI(quiet=True)
    if recipe.train is None:
        raise UserError("the recipe has no `train` section", "add one; prompts/README.md shows what it holds")
    shares = sorted({*shares, 1.0})
    if shares[0] <= 0 or shares[-1] > 1:
        raise UserError(
            f"a share is more than 0 and at most 1, not {shares[0]:g} to {shares[-1]:g}", "give such shares"
        )
    student = corpus.resolve(Path(run), prefer=("curated",)).parent / "student"
    writes = recipe.train.student.kind in ("decoder", "seq2seq")
    teacher = opened(recipe) if writes else None
    points = []
    for share in shares:
        whole = share == 1.0
        folder = student if whole else student / "curve" / f"{share:g}"
        part = recipe.model_copy(update={"train": recipe.train.model_copy(update={"share": share})})
        ui.note(f"curve: {share:.0%} of the training seeds")
        train(part, run, folder, fresh=fresh and not whole, teacher=teacher, ui=ui)
        found = evaluate(part, run, folder, teacher=teacher, ui=ui)
        facts = corpus.load_json(folder / "training.json")
        points.append({"share": share, "rows": facts["rows"], "steps": facts["steps"], "table": _measures(found)})
    result = {"kind": recipe.train.student.kind, "points": points}
    durable.write_json(student / "curve.json", result)
    return result


def _measures(evaluation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every measure that has an interval, of the trained students."""
    wanted = {"mean", "low", "high"}
    return {
        name: {key: value for key, value in row.items() if isinstance(value, dict) and wanted <= set(value)}
        for name, row in evaluation["table"].items()
        if name in ("distilled", "cross-entropy")
    }
