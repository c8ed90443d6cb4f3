"""Measures how close a student is to its teacher, on seeds that neither training nor tuning used.

    evaluate(recipe, "runs/demo")         # → runs/demo/student/evaluation.json

The measures depend on the kind of student; KINDS names the function for each kind. Intervals come from a paired
bootstrap over held-out seeds, because completions of one seed are not independent.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from distill.card import write_model_card
from distill.evaluation.subject import Subject
from distill.finished import settings_of
from distill.held_out import first_rows
from distill.outputs import check_student
from synthgen import corpus, durable
from synthgen.errors import CorpusError, UserError, nearest
from synthgen.files import read_text
from synthgen.recipe import Recipe, TrainSection, check_recipe
from synthgen.results.evaluation import Evaluation, read_evaluation
from synthgen.results.statement import FEWEST, Statement
from synthgen.results.training import FILE, Training, read_training
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

    `run` is a run or corpus, or the student's folder alone. `student` is the student's folder, by default
    `run`/student. The student is measured with the settings of its training, even if the section `train` of the recipe
    has changed. An evaluation of the same student, corpus and settings is not repeated unless `fresh` is true.

    Raises CorpusError when there is no trained student, and UserError when the corpus is unknown or has no held-out
    rows.
    """
    durable.one_process("distill eval")
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    source, folder = _places(Path(run), Path(student) if student else None)
    if not (folder / FILE).exists():
        raise CorpusError(f"there is no trained student at {folder}", f"train one: `distill train {run}`")
    manifest = corpus.verify(source)
    judge = recipe.evaluate.judge
    inputs = {
        "training_sha256": durable.digest(read_text(folder / FILE, _TRAIN)),
        "curated_sha256": durable.digest(manifest["files"]),
        "evaluate": recipe.evaluate.model_dump(mode="json"),
        **({"judge": recipe.teachers[judge].model_dump(mode="json")} if judge else {}),
    }
    path = folder / "evaluation.json"
    if path.exists() and not fresh:
        old = corpus.load_json(path)
        same = {"inputs": inputs, "schema_version": Evaluation.schema_version}
        # an evaluation of an older version has no statement
        if isinstance(old, dict) and {key: old.get(key) for key in same} == same and "statement" in old:
            ui.note(f"{folder} is already evaluated; nothing to do")
            return read_evaluation(path)
    training = read_training(folder / FILE)
    check_student(folder, training.files)
    recipe = _as_trained(recipe, training)
    measure = resolve(_function(training.kind, folder))
    if not first_rows(source, "test", 1):
        raise UserError(f"{source} has no held-out rows", "set split.test in the recipe")
    found: Evaluation = measure(Subject(recipe, training, source, folder, teacher, ui))
    statement = found.statement.completed(training.kind, "the evaluation of this kind of student does not measure it")
    headline = " ".join(filter(None, [found.headline, _doubt(statement)]))
    result = replace(found, kind=training.kind, headline=headline, inputs=inputs, statement=statement)
    # the model card describes the training corpus, so it is written only after an evaluation on this corpus
    if training.curated_sha256 == inputs["curated_sha256"]:
        write_model_card(folder, recipe, manifest, evaluation=result, source=source)
    durable.write_json(path, result.to_dict())  # this file is written last, because it marks the student as evaluated
    return result


def _doubt(statement: Statement) -> str:
    """A sentence for the headline if there are too few groups of held-out rows for any verdict, and otherwise ''."""
    groups = max((entry.groups for entry in statement.entries), default=FEWEST)
    if groups >= FEWEST:
        return ""
    return (
        f"These rows are of {groups} groups. With fewer than {FEWEST} groups, intervals are too narrow for a verdict."
    )


def _places(run: Path, student: Path | None) -> tuple[Path, Path]:
    """(curated corpus, student's folder) for the arguments of `evaluate`. Raises CorpusError when there is no corpus,
    and UserError when `run` is a student's folder and no corpus lies beside it.
    """
    alone = student is None and (run / FILE).exists()
    folder = run if alone else student
    if folder is not None and (folder / "corpus" / "manifest.json").exists():  # a student of a dataset
        return folder / "corpus", folder
    if not alone:
        source = corpus.resolve(run, prefer=("curated",))
        return source, folder or source.parent / "student"
    beside = run.resolve().parent / "curated"
    if not (beside / "manifest.json").exists():
        raise UserError(
            f"{run} is a student, but the rows that it was trained on are not beside it",
            f"name its run too: `distill eval RUN --student {run}`",
        )
    return beside, run


def _as_trained(recipe: Recipe, training: Training) -> Recipe:
    """The recipe with the section `train` that the student was trained with. The untrained student is built from this
    section, so another section would give another student.
    """
    given = recipe.train
    if not training.train or (given is not None and settings_of(given) == training.train):
        return recipe
    try:
        return recipe.model_copy(update={"train": TrainSection.model_validate(training.train)})
    except ValidationError as error:
        key = ".".join(map(str, error.errors()[0]["loc"]))
        raise CorpusError(f"{FILE} has settings that this version does not know: 'train.{key}'", _TRAIN) from None


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
