"""Training a student on a corpus: what is there already, what may not be trained on, and where the work goes.

from distill import train
student = train(recipe, "runs/demo")
student.folder, student.training.steps          # runs/demo/student, …
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.adopted import adopt, is_dataset
from distill.card import write_model_card
from distill.finished import made_from
from distill.job import Job
from distill.outputs import trained
from synthgen import corpus, durable, outputs
from synthgen.errors import GateDenied, UserError
from synthgen.lm.model import LanguageModel
from synthgen.recipe import Recipe, TrainSection, check_recipe
from synthgen.results.training import FILE, Training, read_training
from synthgen.tables.reference import resolve
from synthgen.tables.students import KINDS
from synthgen.ui import UI


@dataclass(frozen=True)
class TrainedStudent:
    """What `train` did: the student's folder, and how it was trained."""

    folder: Path
    training: Training

    def text(self) -> str:
        """For the command line."""
        return str(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: the folder, and the figures of training.json without the metrics of each step."""
        figures = self.training.to_dict()
        del figures["metrics"], figures["train"]
        return {"folder": str(self.folder), **figures}


def train(
    recipe: Recipe,
    run: str | Path,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    override_audit: bool = False,
    teacher: LanguageModel | None = None,
    ui: UI | None = None,
) -> TrainedStudent:
    """Train the recipe's student on the curated corpus of `run`, into `out` (the run's folder `student`).

    `run` may also be a folder of rows with `prompt` and `completion`, which are written as a corpus to `out`/corpus.
    `teacher` is the recipe's teacher, where the caller has it open.

    With `train.baseline`, the same student is also trained by cross-entropy alone on the same batches, into the folder
    `baseline` of the student's. Refuses a corpus whose audit says no, unless `override_audit`. Raises RunChanged when
    the folder was begun with another corpus or other settings, and what `places` raises.
    """
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    section = recipe.train
    if section is None:
        raise UserError("the recipe has no `train` section", "add one; prompts/README.md shows what it holds")
    _check_processes(section)
    job = Job(recipe, section, *places(run, out, fresh=fresh), ui, (), teacher)
    if is_dataset(Path(run)):
        _adopt(Path(run), job)
    manifest = corpus.verify(job.source)
    # A dataset may be a part of a run: the run's audit holds for its rows too.
    near = (job.source.parent, Path(run), *Path(run).resolve().parents[:2])
    overridden = check_audit(next((f for f in near if (f / "audit").is_dir()), job.source.parent), override_audit)
    inputs = made_from(section, manifest)
    if durable.writes():
        if fresh:
            outputs.discard(job.folder, trained())  # a dataset's rows, and the teacher's states of them, stay
        outputs.sweep(job.folder, trained())
        corpus.claim(job.folder, dict(inputs), "train")
    if (job.folder / FILE).exists() and not fresh:
        ui.note(f"{job.folder} is already trained; nothing to do")
        return TrainedStudent(job.folder, read_training(job.folder / FILE))
    kind = KINDS[section.student.kind]
    training: Training = resolve(kind.train)(replace(job, labels=tuple(manifest["labels"])))
    training = replace(
        training,
        kind=section.student.kind,
        how_to_run=kind.how_to_run,
        library_name=kind.library_name,
        loss_unit=training.loss_unit or kind.loss_unit,
        loss_note=training.loss_note or kind.loss_note,
        audit_overridden=overridden,
        **inputs,
    )
    if durable.writes():
        write_model_card(job.folder, recipe, manifest, training)
        durable.write_json(job.folder / FILE, training.to_dict())  # last: it says that the student is finished
    return TrainedStudent(job.folder, training)


def places(run: str | Path, out: str | Path | None = None, *, fresh: bool = False) -> tuple[Path, Path]:
    """(the curated corpus, the student's folder) of a call of `train`; nothing is written.

    The corpus of a dataset is made in the student's folder. Raises UserError for a dataset without `out`, and when
    the folder overlaps the corpus, the dataset or another stage's folder; RunChanged when it holds files that
    training did not make.
    """
    if is_dataset(Path(run)):
        if out is None:
            raise UserError(f"'{run}' is a dataset, not a run", "name the student's folder with -o FOLDER")
        folder = Path(out)
        source = folder / "corpus"
        outputs.apart(folder, Path(run))
    else:
        source = corpus.resolve(Path(run), prefer=("curated",))
        folder = Path(out) if out else source.parent / "student"
        outputs.apart(folder, source, "student", nested=True)
    if durable.writes():
        outputs.check(folder, trained(), fresh)
    return source, folder


def _adopt(rows: Path, job: Job) -> None:
    """Have the corpus of a dataset's rows: this process writes it, or waits for the one that does."""
    if durable.writes():
        adopt(rows, job.recipe, job.source, job.teacher.tokens)
    while not (job.source / "manifest.json").exists():
        time.sleep(0.1)


def _check_processes(section: TrainSection) -> None:
    """Raises UserError for a kind of student that several processes cannot train together."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and not KINDS[section.student.kind].distributed:
        raise UserError(
            f"a student of kind '{section.student.kind}' is trained by one process, and {count} were started",
            "start `distill train` by itself",
        )


def check_audit(run: Path, override: bool) -> bool:
    """Whether the run's audit said no and is overridden (no audit is no denial). Raises GateDenied if it is not."""
    report = run / "audit" / "report.json"
    audit: dict[str, Any] = corpus.load_json(report) if report.exists() else {"passed": True}
    if not audit["passed"] and not override:
        raise GateDenied(
            f"the audit status of {run} is {audit['status']} for {audit['intent']['use']} use",
            f"read {run}/audit/report.md; with --override-audit training starts, and the model card will say so",
        )
    return not audit["passed"]
