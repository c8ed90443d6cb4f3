"""Learning curves: train and evaluate the same student on growing shares of the training seeds.

    curve(recipe, "runs/first")           # → runs/first/student/curve.json

The seeds of a smaller share are a subset of those of a larger share. Each share is trained for the recipe's number of
epochs, so the number of steps grows with the data. The last point is the share 1, and its student is the run's own
student. The student of each point before the last is under student/curve/.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distill.evaluation.evaluate import evaluate
from distill.tokenizer import learns_text
from distill.training import train
from synthgen import corpus, durable, outputs
from synthgen.auditing.gate import check
from synthgen.errors import UserError
from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe, has_local_teacher, local_teacher
from synthgen.results.curve import Curve, Point
from synthgen.results.evaluation import Evaluation
from synthgen.results.measures import Interval, Table
from synthgen.tables.students import KINDS
from synthgen.ui import UI

SHARES = (0.25, 0.5, 1.0)
_TRAINED = ("distilled", "cross-entropy")  # names of the models that are trained on each share


def curve(
    recipe: Recipe,
    run: str | Path,
    shares: Sequence[float] = SHARES,
    *,
    fresh: bool = False,
    override_audit: bool = False,
    ui: UI | None = None,
) -> Curve:
    """Train and evaluate a student on each share of the training seeds, and on all of them. Writes student/curve.json.

    `override_audit` has the same meaning as in `train`. Raises UserError when a share is not in (0, 1]. Also raises the
    errors of `train` and `evaluate`.
    """
    durable.one_process("distill curve")
    ui = ui or UI(quiet=True)
    if recipe.train is None:
        raise UserError("the recipe has no `train` section", "add the section; prompts/README.md describes its keys")
    shares = sorted({*shares, 1.0})
    if shares[0] <= 0 or shares[-1] > 1:
        raise UserError(
            f"shares must be more than 0 and at most 1, but they range from {shares[0]:g} to {shares[-1]:g}",
            "correct --share",
        )
    source = corpus.resolve(Path(run), prefer=("curated",))
    check(recipe, source, override=override_audit)  # this call raises its errors before anything is written
    with outputs.locked(source.parent / "student", source):
        return _curve_of(recipe, run, source.parent / "student", shares, ui, fresh=fresh, override=override_audit)


def _curve_of(
    recipe: Recipe, run: str | Path, student: Path, shares: Sequence[float], ui: UI, *, fresh: bool, override: bool
) -> Curve:
    """Do the work of `curve` while the student's folder is locked."""
    assert recipe.train is not None
    section, kind = recipe.train, KINDS[recipe.train.student.kind]
    reads = kind.needs_teacher(section.student) or not learns_text(section)
    # all points share one object for the teacher, so that the teacher's weights are loaded only once
    shared = kind.writes_text and reads and has_local_teacher(recipe)
    teacher = LanguageModel.open(local_teacher(recipe), lazy=True) if shared else None
    points: list[Point] = []
    for share in shares:
        whole = share == 1.0
        folder = student if whole else student / "curve" / f"{share:g}"
        part = recipe.model_copy(update={"train": recipe.train.model_copy(update={"share": share})})
        ui.note(f"curve: {share:.0%} of the training seeds")
        again = fresh and not whole
        trained = train(part, run, folder, fresh=again, override_audit=override, teacher=teacher, ui=ui)
        found = evaluate(part, run, folder, teacher=teacher, ui=ui)
        training = trained.training
        points.append(Point(share, training.rows, training.steps, _with_intervals(found)))
    result = _curve(found, points)
    durable.write_json(student / "curve.json", result.to_dict())
    return result


def _curve(last: Evaluation, points: list[Point]) -> Curve:
    """Build the curve from its points. The plotted measure is the first measure in `last.plotted` for which any point
    has a value.
    """
    there = {name for point in points for row in point.table.values() for name in row}
    measures = {name: measure for name, measure in last.measures.items() if name in there}
    plotted = next((name for name in last.plotted if name in there), next(iter(measures), ""))
    return Curve(last.kind, last.student, plotted, measures, points)


def _with_intervals(evaluation: Evaluation) -> Table:
    """For each trained student, the measures that have an interval."""
    return {
        name: {key: value for key, value in row.items() if isinstance(value, Interval)}
        for name, row in evaluation.table.items()
        if name in (evaluation.student, *_TRAINED)
    }
