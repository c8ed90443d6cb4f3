"""Trains the student of a recipe on a corpus, unless it is already trained or the audit forbids it.

from distill import train
student = train(recipe, "runs/demo")
student.folder, student.training.steps          # runs/demo/student, …
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.adopted import adopt, is_dataset
from distill.card import write_model_card
from distill.finished import made_from
from distill.job import Job
from distill.outputs import student_files, trained
from synthgen import corpus, durable, outputs
from synthgen.errors import GateDenied, UserError
from synthgen.lineage import student_sources
from synthgen.lm.model import LanguageModel
from synthgen.manifest import SourceTerms
from synthgen.recipe import Recipe, TrainSection, check_recipe, dump_recipe
from synthgen.recipe.load import is_resolved
from synthgen.results.audit import read_audit
from synthgen.results.training import FILE, Training, read_training
from synthgen.tables.reference import resolve
from synthgen.tables.students import KINDS
from synthgen.tally import tally
from synthgen.ui import UI


@dataclass(frozen=True)
class TrainedStudent:
    """The result of `train`: the student's folder, and the facts of its training."""

    folder: Path
    training: Training

    def text(self) -> str:
        """The text that the command line prints."""
        return str(self.folder)

    def to_dict(self) -> dict[str, Any]:
        """The value that `--json` prints: the folder and the fields of training.json, except `train` and `metrics`."""
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
    """Train the recipe's student on the curated corpus of `run`. `out` is the student's folder, by default the folder
    `student` of the run.

    `run` may also be a dataset of rows with `prompt` and `completion`. Its rows are written as a corpus to
    `out`/corpus. `teacher` is the recipe's teacher, if the caller has already opened it. With `train.baseline`, the
    same student is also trained on the same batches by cross-entropy alone, and saved in `baseline` inside the
    student's folder.

    Raises GateDenied when the corpus has no kept rows. Also raises it when the audit does not pass, unless
    `override_audit` is true. Raises RunChanged when the folder
    was started with another corpus or other settings. Also raises UserError when the recipe has no `train` section, and
    the errors of `places`.
    """
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    section = recipe.train
    if section is None:
        raise UserError("the recipe has no `train` section", "add the section; prompts/README.md describes its keys")
    _check_processes(section)
    job = Job(recipe, section, *places(run, out, fresh=fresh), ui, (), teacher)
    overridden = _gate(job, Path(run), override_audit)
    kind = KINDS[section.student.kind]
    if kind.check and not kind.needs_teacher(section.student) and not (job.folder / FILE).exists():
        _ = job.tokens  # a checkpoint that cannot be opened is reported before anything is written
    # of several processes, only the one that writes files takes the lock
    with outputs.locked(job.folder, job.source) if durable.writes() else nullcontext():
        return _train(job, Path(run), fresh, overridden)


def _train(job: Job, run: Path, fresh: bool, overridden: bool) -> TrainedStudent:
    """`train` in a folder that is locked."""
    recipe, section, ui = job.recipe, job.section, job.ui
    if is_dataset(run):
        _keep_recipe(job)
        _adopt(run, job, fresh)
    manifest = corpus.verify(job.source)
    tally(job.source).check(job.source)
    inputs = made_from(section, job.source, manifest)
    if durable.writes():
        if fresh:
            outputs.discard(job.folder, trained())  # keeps hidden states, and the corpus of a dataset
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
        write_model_card(job.folder, recipe, manifest, training, source=job.source)
        training = replace(training, files=student_files(job.folder))
        durable.write_json(job.folder / FILE, training.to_dict())  # last, because it marks the student as finished
    return TrainedStudent(job.folder, training)


def places(run: str | Path, out: str | Path | None = None, *, fresh: bool = False) -> tuple[Path, Path]:
    """Return (curated corpus, student's folder) for a call of `train`. Writes nothing.

    The corpus of a dataset is made in the student's folder. Raises UserError when a dataset has no `out`, or when the
    student's folder overlaps the corpus, the dataset or another stage's folder. Raises RunChanged when the student's
    folder holds files that training did not write.
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


def _adopt(rows: Path, job: Job, fresh: bool) -> None:
    """Write a dataset's rows as a corpus, or wait until the process that writes files has done so."""
    if durable.writes():
        adopt(rows, job.recipe, job.source, job.ui, fresh=fresh)
    while not (job.source / "manifest.json").exists():
        time.sleep(0.1)


def _keep_recipe(job: Job) -> None:
    """Write the recipe into the folder of a student that is trained on a data set, so that its evaluation finds it.

    Raises UserError when the folder has another file of this name.
    """
    path = job.folder / "recipe.yaml"
    if path.exists() and not is_resolved(path):
        raise UserError(f"{path} is not a file that `distill train` wrote", "name another folder with -o")
    if durable.writes():
        durable.write_text(path, dump_recipe(job.recipe))


def _check_processes(section: TrainSection) -> None:
    """Raise UserError when several processes were started for a kind of student that only one process can train."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and not KINDS[section.student.kind].distributed:
        raise UserError(
            f"a student of kind '{section.student.kind}' can be trained by only one process, but {count} were started",
            "start `distill train` without `accelerate launch`",
        )


def _gate(job: Job, run: Path, override: bool) -> bool:
    """Apply the audit of the job's corpus. See `check_audit`."""
    # A dataset may be a folder inside a run. The run's audit then applies to the dataset's rows too.
    near = (job.source.parent, run, *run.resolve().parents[:2])
    audited = next((f for f in near if (f / "audit").is_dir()), job.source.parent)
    teacher = job.recipe.teacher.model if job.recipe.teacher else None
    own = [one for one in student_sources(job.recipe) if one["source"] != teacher]
    return check_audit(audited, override, own)


def check_audit(run: Path, override: bool, sources: Sequence[SourceTerms] = ()) -> bool:
    """Return True when the run's audit does not pass and is overridden. Returns False when the audit passes or does not
    exist.

    Raises GateDenied when `override` is false and the audit does not pass, or did not judge one of `sources`, the
    student's own sources, because it was made with another recipe.
    """
    report = run / "audit" / "report.json"
    if not report.exists():
        return False
    audit = read_audit(report)
    if not audit.passed and not override:
        raise GateDenied(
            f"the audit status of {run} is {audit.status} for {audit.intent.use} use",
            f"read {run}/audit/report.md; --override-audit starts training anyway, and the model card will say so",
        )
    judged = {(one.source, one.role) for one in audit.findings}
    unjudged = [one for one in sources if (one["source"], one["role"]) not in judged]
    if audit.passed and unjudged and not override:
        one = unjudged[0]
        raise GateDenied(
            f"the audit of {run} did not judge '{one['source']}' ({one['role']}), a source of this student",
            f"audit the student's recipe: `synthgen audit {run} --recipe RECIPE`; --override-audit trains anyway",
        )
    return not audit.passed or bool(unjudged)
