"""Trains the student of a recipe on a corpus, unless it is already trained or the audit forbids it.

from distill import train
student = train(recipe, "runs/demo")
student.folder, student.training.steps          # runs/demo/student, …
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill import processes
from distill.adopted import adopt, is_dataset
from distill.card import write_model_card
from distill.finished import Inputs, made_from
from distill.job import Job, device_of
from distill.outputs import student_files, trained
from synthgen import corpus, durable, outputs
from synthgen.auditing.gate import audit_and_check, check_above, notice
from synthgen.auditing.gate import check as check_gate
from synthgen.auditing.notices import carry
from synthgen.errors import UserError
from synthgen.files import is_regular
from synthgen.lm.model import LanguageModel
from synthgen.manifest import Manifest
from synthgen.recipe import Recipe, TrainSection, check_recipe, deciding, dump_recipe
from synthgen.recipe.load import is_resolved
from synthgen.results.training import FILE, Passage, Training, read_training
from synthgen.stores.address import url_of
from synthgen.tables.reference import resolve
from synthgen.tables.students import KINDS
from synthgen.tally import tally
from synthgen.ui import UI
from synthgen.version import code


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

    `run` may also be a dataset of rows with `prompt` and `completion`. The rows of a dataset are written as a corpus to
    `out`/corpus. `teacher` is the recipe's teacher, if the caller has already opened it. With `train.baseline`, the
    same student is also trained on the same batches by cross-entropy alone, and saved in `baseline` inside the
    student's folder.

    Raises GateDenied when the corpus has no kept rows. Unless `override_audit` is true, also raises GateDenied when no
    audit of this corpus passed for the recipe's intended use. The rows of a dataset are audited by this call, and the
    report is in `out`/audit. Raises RunChanged when the folder was started with another corpus or other settings. Also
    raises UserError when the recipe has no `train` section, and the errors of `places`.
    """
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    section = recipe.train
    if section is None:
        raise UserError("the recipe has no `train` section", "add the section; prompts/README.md describes its keys")
    _join_processes(section, device_of(recipe))
    processes.agree((code(), deciding(recipe)), "recipe or version of synthgen")
    job = Job(recipe, section, *places(run, out, fresh=fresh), ui, (), teacher)
    if not is_dataset(Path(run)):
        check_gate(recipe, job.source, override=override_audit)  # this call raises errors before anything is written
    kind = KINDS[section.student.kind]
    if kind.check and not kind.needs_teacher(section.student) and not (job.folder / FILE).exists():
        _ = job.tokens  # a checkpoint that cannot be opened is reported before anything is written
    # if there are several processes, only the process that writes files takes the lock
    with outputs.locked(job.folder, job.source) if durable.writes() else nullcontext():
        return _train(job, Path(run), fresh, override_audit)


def _train(job: Job, run: Path, fresh: bool, override: bool) -> TrainedStudent:
    """Do the work of `train` while the student's folder is locked."""
    begun = processes.once(lambda: _begin(job, run, fresh, override))
    manifest = job.source / "manifest.json"
    processes.agree(durable.sha256(manifest) if is_regular(manifest) else "", f"corpus at {job.source}")
    if begun.finished:
        job.ui.note(f"{job.folder} is already trained; nothing to do")
        return TrainedStudent(job.folder, read_training(job.folder / FILE))
    kind = KINDS[job.section.student.kind]
    training: Training = resolve(kind.train)(replace(job, labels=tuple(begun.manifest["labels"])))
    processes.once(lambda: _finish(job, begun, training))
    return TrainedStudent(job.folder, read_training(job.folder / FILE))


@dataclass(frozen=True)
class _Begun:
    """What process 0 found before training: the corpus's manifest, how the gate of the audit was passed, and what the
    student is made from. `finished` says that the student is already trained.
    """

    manifest: Manifest
    passage: Passage
    inputs: Inputs
    finished: bool


def _begin(job: Job, run: Path, fresh: bool, override: bool) -> _Begun:
    """Check the corpus, pass the gate and claim the student's folder."""
    if is_dataset(run):
        _keep_recipe(job)
        adopt(run, job.recipe, job.source, job.ui, fresh=fresh)
    manifest = corpus.verify(job.source)
    tally(job.source).check(job.source)
    passage = _gate(job, run, override)
    inputs = made_from(job.section, job.source, manifest)
    if fresh:
        outputs.discard(job.folder, trained())  # stored hidden states stay, and so does the corpus of a data set
    outputs.sweep(job.folder, trained())
    corpus.claim(job.folder, dict(inputs), "train")
    return _Begun(manifest, passage, inputs, (job.folder / FILE).exists())


def _finish(job: Job, begun: _Begun, training: Training) -> None:
    """Write the card and training.json."""
    kind = KINDS[job.section.student.kind]
    training = replace(
        training,
        kind=job.section.student.kind,
        how_to_run=kind.how_to_run,
        library_name=kind.library_name,
        loss_unit=training.loss_unit or kind.loss_unit,
        loss_note=training.loss_note or kind.loss_note,
        audit=begun.passage,
        **begun.inputs,
    )
    if text := notice(job.recipe, job.source):
        carry(job.folder, text)
    write_model_card(job.folder, job.recipe, begun.manifest, training, source=job.source)
    training = replace(training, files=student_files(job.folder))
    # this file is written last, because it marks the student as finished
    durable.write_json(job.folder / FILE, training.to_dict())


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


def _keep_recipe(job: Job) -> None:
    """Write the recipe into the folder of a student that is trained on a data set, so that the student's evaluation
    finds the recipe.

    Raises UserError when the folder has another file of this name.
    """
    path = job.folder / "recipe.yaml"
    if path.exists() and not is_resolved(path):
        raise UserError(f"{path} is not a file that `distill train` wrote", "name another folder with -o")
    seeds = tuple(one.model_copy(update={"path": one.path and url_of(one.path)}) for one in job.recipe.seeds)
    durable.write_text(path, dump_recipe(job.recipe.model_copy(update={"seeds": seeds})))


def _join_processes(section: TrainSection, device: torch.device) -> None:
    """Connect the processes that a launcher started. Raises UserError when they cannot train this student together."""
    count = processes.started()
    if count > 1 and not KINDS[section.student.kind].distributed:
        raise UserError(
            f"a student of kind '{section.student.kind}' can be trained by only one process, but {count} were started",
            "start `distill train` without `torchrun` or `accelerate launch`",
        )
    processes.check(section.batch_size, device)
    processes.join(device)


def _gate(job: Job, run: Path, override: bool) -> Passage:
    """Pass the gate of the audit; see `synthgen.auditing.gate`. The rows of a data set are audited here, using their
    stated license and the sources that the rows name. The report is in the student's folder.
    """
    if not is_dataset(run):
        return check_gate(job.recipe, job.source, override=override)
    above = check_above(run, override=override)
    passage = audit_and_check(job.recipe, job.source, override=override)
    return replace(passage, status=above, overridden=True) if above else passage
