"""Trains decoders with a live teacher. The objectives are in `distill.targets.live`."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from transformers import PreTrainedModel

from distill.arms import BASELINE, DISTILLED, Arms, StudentModel, steps_of, train_arms
from distill.data import validation_rows
from distill.fits import check_length
from distill.job import Job
from distill.loop import Objective
from distill.streaming.mapped import Mapped
from distill.streaming.stream import cache_folder
from distill.students.completions import Make
from distill.targets.live import LiveTeacher, Mutual, OnPolicy, Text, check_teacher, read_texts
from distill.targets.stored import FromTokens
from synthgen.recipe import OnlineSection, TrainSection
from synthgen.results.training import Targets, Training

LEARNED_FROM = {
    "teacher": "the live teacher's distributions",
    "on_policy": "the live teacher's distributions, also on texts that the student wrote",
    "mutual": "a teacher that learned from the student at the same time and is saved in teacher/",
}


def train(job: Job, make: Make, origin: str) -> Training:
    """Train the student that `make` returns, and its baseline, on the same batches.

    `origin` is a description of what the student is made from.
    """
    section, online = job.section, _section(job)
    check_teacher(job.source, job.teacher)
    rows = _texts(job, "train")
    validation = validation_rows(section, job.source, lambda: _texts(job, "validation"))
    steps = steps_of(len(rows), section)
    curves = train_arms(
        Arms(
            lambda: _able_to_write(make(0), rows, online),
            _objectives(job, steps),
            rows,
            validation,
            job.teacher.tokens.tokenizer,
            job.teacher.weights.device,
            ends=job.teacher.tokens.eos,
        ),
        job,
    )
    return Training(
        student=origin,
        learns_by=_learns_by(section),
        learned_from=LEARNED_FROM[online.mode],
        steps=steps,
        rows=len(rows),
        rows_kept=rows.stream.kept_count,
        left_out=rows.stream.left_out,
        tokens=int(sum(row["tokens"] for row in curves[DISTILLED])),
        targets=Targets(kind="dense", temperature=online.loss_temperature, vocab_size=job.teacher.weights.vocab_size),
        metrics=curves,
    )


def _able_to_write(student: StudentModel, rows: Mapped[Text], online: OnlineSection) -> StudentModel:
    """Return the student. Raises RecipeError when the student has too few positions for the completions that it will
    write.
    """
    if online.mode == "on_policy":
        row, length = rows.stream.longest_row(online.max_new_tokens)
        check_length(student.model, length, f"row {row} has {length} tokens with those that the student writes")
    return student


def _section(job: Job) -> OnlineSection:
    assert job.section.online is not None
    return job.section.online


def _texts(job: Job, split: str) -> Mapped[Text]:
    """Open the rows of a split."""
    teacher, cache = job.teacher, cache_folder(job.source, job.folder)
    return read_texts(job.source, teacher.tokens, teacher.context, job.section, cache, split)


def _objectives(job: Job, steps: int) -> dict[str, Callable[[nn.Module], Objective[Text]]]:
    section, teacher = job.section, job.teacher

    def distilled(model: PreTrainedModel) -> Objective[Text]:
        mode = _section(job).mode
        if mode == "on_policy":
            return OnPolicy(model, teacher, section, steps)
        return Mutual(model, teacher, section) if mode == "mutual" else LiveTeacher(model, teacher, section)

    arms: dict[str, Callable[[nn.Module], Objective[Text]]] = {DISTILLED: distilled}
    if section.baseline:
        arms[BASELINE] = lambda model: FromTokens(model, section)
    return arms


def _learns_by(section: TrainSection) -> str:
    """Describe the objective in one line, for the model card."""
    line = f"{section.kd_weight:g} · {section.loss} from the live teacher"
    return line + (f" + {1 - section.kd_weight:g} · cross-entropy" if section.kd_weight < 1 else "")
