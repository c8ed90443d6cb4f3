"""Measures how close a student is to its teacher, on seeds that neither training nor tuning used.

    evaluate(recipe, "runs/demo")         # → runs/demo/student/evaluation.json

The measures depend on the kind of student; KINDS names the function for each kind. Intervals come from a paired
bootstrap over held-out seeds, because completions of one seed are not independent.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from distill.card import write_model_card
from distill.evaluation.subject import Subject
from distill.held_out import first_rows
from distill.outputs import check_student
from synthgen import corpus, durable
from synthgen.errors import CorpusError, UserError, nearest
from synthgen.files import read_text
from synthgen.recipe import Recipe, check_recipe
from synthgen.results.evaluation import Evaluation, read_evaluation
from synthgen.results.training import read_training
from synthgen.tables.reference import Reference, resolve
from synthgen.tables.students import KINDS
from synthgen.ui import UI

if TYPE_CHECKING:
    from synthgen.lm.model import LanguageModel


_TRAIN = "train again: `distill train RUN --fresh`"


def evaluate(
    recipe: Recipe,
    run: str | Path,
    student: str | Path | None = None,
    *,
    fresh: bool = False,
    teacher: LanguageModel | None = None,
    ui: UI | None = None,
) -> Evaluation:
    """Measure a student on the held-out rows. Writes evaluation.json, and rewrites the model card.

    `student` is the student's folder, by default `run`/student. An evaluation of the same student, corpus and settings
    is not repeated unless `fresh` is true. Raises CorpusError when there is no trained student, and UserError when the
    corpus has no held-out rows.
    """
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    if student and (Path(student) / "corpus" / "manifest.json").exists():  # the student was trained on a dataset
        source = Path(student) / "corpus"
    else:
        source = corpus.resolve(Path(run), prefer=("curated",))
    folder = Path(student) if student else source.parent / "student"
    if not (folder / "training.json").exists():
        raise CorpusError(f"there is no trained student at {folder}", f"train one: `distill train {run}`")
    manifest = corpus.verify(source)
    inputs = {
        "training_sha256": durable.digest(read_text(folder / "training.json", _TRAIN)),
        "curated_sha256": durable.digest(manifest["files"]),
        "evaluate": recipe.evaluate.model_dump(mode="json"),
    }
    path = folder / "evaluation.json"
    if path.exists() and not fresh:
        old = corpus.load_json(path)
        same = {"inputs": inputs, "schema_version": Evaluation.schema_version}
        if isinstance(old, dict) and {key: old.get(key) for key in same} == same:
            ui.note(f"{folder} is already evaluated; nothing to do")
            return read_evaluation(path)
    training = read_training(folder / "training.json")
    check_student(folder, training.files)
    measure = resolve(_function(training.kind, folder))
    if not first_rows(source, "test", 1):
        raise UserError(f"{source} has no held-out rows", "set split.test in the recipe")
    found: Evaluation = measure(Subject(recipe, training, source, folder, teacher, ui))
    result = replace(found, kind=training.kind, inputs=inputs)
    # the model card describes the training corpus, so it is written only for the same corpus
    if training.curated_sha256 == inputs["curated_sha256"]:
        write_model_card(folder, recipe, manifest, evaluation=result)
    durable.write_json(path, result.to_dict())  # last, because it marks the student as evaluated
    return result


def _function(kind: str, folder: Path) -> Reference:
    """The function that evaluates students of this kind. Raises CorpusError for an unknown kind, and UserError for a
    kind without an evaluation.
    """
    entry = KINDS.get(kind)
    if entry is None:
        raise CorpusError(
            f"{folder}: there is no kind of student '{kind}'{nearest(kind, KINDS)}", "add the kind to KINDS"
        )
    if entry.evaluate is None:
        raise UserError(
            f"students of kind '{kind}' have no evaluation", f"set `evaluate` in the entry of '{kind}' in KINDS"
        )
    return entry.evaluate
