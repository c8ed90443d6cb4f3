"""Trains the same student once for each objective, on the same batches. Each of these trainings is an arm.

Each arm is saved when it is finished.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from accelerate import Accelerator
from pydantic import TypeAdapter
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill import processes
from distill.ending import end_answers
from distill.fits import check_ids, check_rows, rows_of_table
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

    peft_config: dict[str, Any]

    def save_pretrained(self, folder: Path, *, save_embedding_layers: bool) -> object: ...

    def unload(self) -> nn.Module: ...

    def merge_and_unload(self) -> nn.Module: ...


@dataclass
class StudentModel:
    """A student during training. With LoRA, `adapter` is the peft model that wraps `model`, and `base` is the name and
    the revision of the checkpoint to which the adapter belongs. If `base` is None, the model without the adapter is
    saved beside the adapter.
    """

    model: nn.Module
    adapter: Adapter | None = None
    base: tuple[str, str | None] | None = None


@dataclass(frozen=True)
class Arms(Generic[Row]):
    """A student, its objectives and its data.

    `make` returns the untrained student, with the same weights at every call. The first entry of `objectives` trains
    the student, and the second trains the baseline. The student is trained on `rows`, and the validation loss is
    measured on `validation`. The student is saved with `tokenizer`. An answer of the saved student ends at any of its
    end tokens: those in `ends`, the tokenizer's end token, and the token that ends a turn. `batch(numbers, rank,
    processes)` reads the rows of one step for process `rank` of `processes`; `numbers` are the indices of these rows in
    `rows`. If `batch` is None, the rows are taken from `rows`.
    """

    make: Callable[[], StudentModel]
    objectives: Mapping[str, Callable[[nn.Module], Objective[Row]]]
    rows: Sequence[Row]
    validation: Sequence[Row]
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    batch: Callable[[Sequence[int], int, int], list[Row]] | None = None
    ends: Collection[int] = ()

    def read(self, numbers: Sequence[int], rank: int, processes: int) -> list[Row]:
        """Return the rows of one step, whose indices are `numbers`, for process `rank` of `processes`."""
        return self.batch(numbers, rank, processes) if self.batch else [self.rows[number] for number in numbers]


def train_arms(arms: Arms[Row], job: Job) -> dict[str, Metrics]:
    """Train the student once for each objective. Returns the metrics of each arm.

    The first arm is saved in the job's folder, the second in the folder `baseline` below it. Finished arms are skipped.
    """
    accelerator = accelerator_of(job.section, arms.device, job.folder)
    if processes.count() > 1:
        job.ui.note(f"train: {processes.count()} processes, each of which trains on a part of every batch")
    steps = steps_of(len(arms.rows), job.section)
    curves: dict[str, Metrics] = {}
    with job.ui.progress("train", steps * len(arms.objectives), "steps") as bar:
        for number, name in enumerate(arms.objectives):
            folder = job.folder if number == 0 else job.folder / "baseline"
            if processes.once((folder / "metrics.jsonl").exists):
                bar.advance(steps, resumed=True)
            else:
                _train(arms, job, name, folder, accelerator, bar)
            curves[name] = read_metrics(folder)
    if job.section.report_to:
        accelerator.end_training()
    if durable.writes():
        outputs.discard(job.folder, CHECKPOINTS)
    return curves


def _train(arms: Arms[Row], job: Job, name: str, folder: Path, accelerator: Accelerator, bar: Progress) -> None:
    """Train one arm and save it."""
    section = job.section
    if section.report_to:
        accelerator.init_trackers(name)
    student = arms.make()
    for rows in (arms.rows, arms.validation):
        check_rows(student.model, arms.tokenizer, rows)
    # move the student before making the objective, because the objective keeps references to the tensors of the output
    # layer
    student.model.to(accelerator.device)
    if section.gradient_checkpointing:
        checkpoint_activations(student.model)
    objective = arms.objectives[name](student.model)
    order = Order(len(arms.rows), section.batch_size, section.seed)
    steps, table = steps_of(len(arms.rows), section), rows_of_table(student.model)

    def read(step: int) -> list[Row]:
        rows = arms.read(order.rows(step), processes.rank(), processes.count())
        check_ids(rows, table, arms.tokenizer)  # a teacher can draw ids that its tokenizer does not have
        return rows

    with Ahead(read, steps) as batch_of:
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

    def save_all() -> None:
        for place, model in objective.beside().items():
            save(StudentModel(model), arms.tokenizer, folder / place, ends=arms.ends)
        save(student, arms.tokenizer, folder, metrics, ends=arms.ends)

    processes.once(save_all)
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
    student: StudentModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    metrics: Metrics | None = None,
    *,
    ends: Collection[int] = (),
) -> None:
    """Write weights, config and tokenizer under the names that transformers uses, then write the metrics.

    An adapter is saved separately in `folder`/adapter, and then merged into the weights. `ends` are the tokens that end
    an answer (see `Arms`).
    """
    temporary = folder / f"{durable.TEMPORARY}model-{os.getpid()}"
    durable.new_folder(temporary)
    model = student.model.eval().float()
    if isinstance(model, PreTrainedModel) and model.can_generate():
        end_answers(model, tokenizer, ends)
    if student.adapter is not None:
        model = _save_adapter(student.adapter, student.base, temporary / "adapter")
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


_ADAPTER_CARD = """---
library_name: peft
---
# Low-rank adapter of a student

The adapter belongs to {base}. The folder above holds the same student with the adapter merged into its weights.
README.md in the folder above says what the student learned from, which terms apply, and whether it may be released. All
of this holds for the adapter too.

    base = AutoModelForCausalLM.from_pretrained(BASE, dtype="float32")
    student = PeftModel.from_pretrained(base, ADAPTER)

ADAPTER is this folder, and BASE is {base}.
"""


def _save_adapter(adapter: Adapter, base: tuple[str, str | None] | None, folder: Path) -> Any:
    """Save an adapter in `folder`. Returns the model with the adapter merged into it.

    `adapter_config.json` names the checkpoint `base`. If `base` is None, the file does not name a base, because the
    name would be a path that becomes wrong when the folder is moved. If `base` is None, the model as it was before
    training is saved in `folder`/base, and the adapter's README.md says so.
    """
    import peft

    (config,) = adapter.peft_config.values()
    config.base_model_name_or_path, config.revision = base or ("", None)
    # otherwise peft would save the whole embedding table beside an adapter of the output layer, and ask the hub for the
    # table's size
    adapter.save_pretrained(folder, save_embedding_layers=False)
    where = base[0] if base else "the folder `base` inside this folder"
    durable.write_text(folder / "README.md", _ADAPTER_CARD.format(base=where))
    if base is not None:
        return adapter.merge_and_unload()
    path = folder / "adapter_config.json"
    durable.write_text(path, json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": None}, indent=2))
    learned = peft.get_peft_model_state_dict(adapter, save_embedding_layers=False)
    plain: Any = adapter.unload()
    vars(plain).pop("peft_config", None)  # peft would warn that the model has adapters already
    plain.save_pretrained(folder / "base")
    config.base_model_name_or_path = None
    again = peft.get_peft_model(plain, config)
    peft.set_peft_model_state_dict(again, learned)
    return again.merge_and_unload()
