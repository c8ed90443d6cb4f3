"""Trains the same student once for each objective, on the same batches. Each of these trainings is an arm.

Each arm is saved when it is finished.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator
from pydantic import TypeAdapter
from torch import nn
from transformers import PreTrainedTokenizerBase

from distill.job import Job
from distill.loop import Checkpoints, Objective, accelerator_of, fit
from distill.outputs import CHECKPOINTS
from distill.streaming.batches import Ahead, Order
from synthgen import durable, outputs
from synthgen.errors import CorpusError
from synthgen.files import parse_json, read_text
from synthgen.lm.files import first_line
from synthgen.lm.load import checkpoint_activations
from synthgen.recipe import TrainSection
from synthgen.results.training import Metrics
from synthgen.ui import Progress

Row = TypeVar("Row")

DISTILLED, BASELINE = "distilled", "cross-entropy"


class Adapter(Protocol):
    """A peft model with low-rank adapters."""

    def save_pretrained(self, folder: Path) -> object: ...

    def merge_and_unload(self) -> nn.Module: ...


@dataclass
class StudentModel:
    """A student during training. With LoRA, `adapter` is the peft model that wraps `model`."""

    model: nn.Module
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Arms(Generic[Row]):
    """A student, its objectives and its data.

    `make` returns the untrained student, with the same weights at every call. The first entry of `objectives` trains
    the student, and the second trains the baseline. The student is trained on `rows`, and the validation loss is
    measured on `validation`. The student is saved with `tokenizer`. `batch(numbers, rank, processes)` reads the rows of
    one step for process `rank` of `processes`; `numbers` are the indices of these rows in `rows`. If `batch` is None,
    the rows are taken from `rows`.
    """

    make: Callable[[], StudentModel]
    objectives: Mapping[str, Callable[[nn.Module], Objective[Row]]]
    rows: Sequence[Row]
    validation: Sequence[Row]
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    batch: Callable[[Sequence[int], int, int], list[Row]] | None = None

    def read(self, numbers: Sequence[int], rank: int, processes: int) -> list[Row]:
        """Return the rows of one step, whose indices are `numbers`, for process `rank` of `processes`."""
        return self.batch(numbers, rank, processes) if self.batch else [self.rows[number] for number in numbers]


def train_arms(arms: Arms[Row], job: Job) -> dict[str, Metrics]:
    """Train the student once for each objective. Returns the metrics of each arm.

    The first arm is saved in the job's folder, the second in the folder `baseline` below it. Finished arms are skipped.
    """
    accelerator = accelerator_of(job.section, arms.device, job.folder)
    if accelerator.num_processes > 1 and accelerator.is_main_process:
        job.ui.note(f"train: {accelerator.num_processes} processes, each of which trains on a part of every batch")
    steps = steps_of(len(arms.rows), job.section)
    curves: dict[str, Metrics] = {}
    with job.ui.progress("train", steps * len(arms.objectives), "steps") as bar:
        for number, name in enumerate(arms.objectives):
            folder = job.folder if number == 0 else job.folder / "baseline"
            if (folder / "metrics.jsonl").exists():
                bar.advance(steps, resumed=True)
            else:
                _train(arms, job, name, folder, accelerator, bar)
            curves[name] = read_metrics(folder)
    if job.section.report_to:
        accelerator.end_training()
    if accelerator.is_main_process:
        outputs.discard(job.folder, CHECKPOINTS)
    return curves


def _train(arms: Arms[Row], job: Job, name: str, folder: Path, accelerator: Accelerator, bar: Progress) -> None:
    """Train one arm and save it."""
    section = job.section
    if section.report_to:
        accelerator.init_trackers(name)
    student = arms.make()
    # move the student before making the objective, because the objective keeps references to the tensors of the output
    # layer
    student.model.to(accelerator.device)
    if section.gradient_checkpointing:
        checkpoint_activations(student.model)
    objective = arms.objectives[name](student.model)
    order = Order(len(arms.rows), section.batch_size, section.seed)
    steps, rank, processes = steps_of(len(arms.rows), section), accelerator.process_index, accelerator.num_processes
    with Ahead(lambda step: arms.read(order.rows(step), rank, processes), steps) as batch_of:
        metrics = fit(
            objective,
            batch_of,
            section,
            steps,
            Checkpoints(job.folder / "checkpoints", name, section.save_total_limit),
            bar,
            accelerator=accelerator,
            validation=arms.validation,
        )
    if accelerator.is_main_process:
        for place, model in objective.beside().items():
            save(StudentModel(model), arms.tokenizer, folder / place)
        save(student, arms.tokenizer, folder, metrics)
    accelerator.wait_for_everyone()
    accelerator.free_memory()


def steps_of(rows: int, section: TrainSection) -> int:
    """The number of optimizer steps for a training set of `rows` rows."""
    steps = section.num_train_epochs * -(-rows // section.batch_size)
    return min(steps, section.max_steps or steps)


def read_metrics(folder: Path) -> Metrics:
    """The metrics of a finished arm, one dictionary for each step."""
    path, again = folder / "metrics.jsonl", "train again: `distill train RUN --fresh`"
    lines = read_text(path, again).splitlines()
    try:
        return _METRICS.validate_python([parse_json(line) for line in lines])
    except ValueError as error:
        raise CorpusError(f"{path} is damaged: {first_line(error)}", again) from None


_METRICS = TypeAdapter(Metrics)


def write_metrics(folder: Path, metrics: Metrics) -> None:
    """Write metrics.jsonl. The file must be written last, because it marks the arm as complete."""
    durable.write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in metrics))


def save(
    student: StudentModel, tokenizer: PreTrainedTokenizerBase, folder: Path, metrics: Metrics | None = None
) -> None:
    """Write weights, config and tokenizer under the names that transformers uses, then write the metrics.

    An adapter is saved separately in `folder`/adapter, and then merged into the weights.
    """
    temporary = folder / f"{durable.TEMPORARY}model-{os.getpid()}"
    durable.new_folder(temporary)
    model = student.model.eval().float()
    if student.adapter is not None:
        student.adapter.save_pretrained(temporary / "adapter")
        model = student.adapter.merge_and_unload()
    model.save_pretrained(temporary)
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()  # earlier calls set truncation and padding, which must not be saved
        backend.no_padding()
    tokenizer.save_pretrained(temporary)
    for path in sorted(temporary.iterdir()):
        durable.publish(path, folder / path.name)
    shutil.rmtree(temporary)
    if metrics is not None:
        write_metrics(folder, metrics)
