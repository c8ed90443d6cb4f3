"""The training loop minimizes the loss of an `Objective`. A killed training can be resumed, with the same result.

    metrics = fit(Objective(model), batch_of, section, steps, Checkpoints(folder, "distilled"), bar)

The rows of a step are a function of the step number. When the student writes its own texts, the rows also depend on its
weights. A checkpoint therefore holds the weights, the optimizer's moments, the step number and the objective's state.
With several processes, each process computes its share of every batch. The loss is normalized over the whole batch. No
state depends on the number of processes, so any number of processes can resume a training.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from distill import processes
from distill.streaming.mapped import Outlined
from synthgen import durable, files
from synthgen.errors import CorpusError, UserError
from synthgen.recipe import TrainSection
from synthgen.results.training import Metrics
from synthgen.ui import Progress

Row = TypeVar("Row")

_SHA = "sha256"  # key of a checkpoint's metadata
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # names of AdamW's state in PyTorch


class Objective(nn.Module, Generic[Row]):
    """The loss of one student. All parameters with `requires_grad` are trained and saved in checkpoints.

    `model` is the student. A frozen teacher must not be a submodule, so keep it in a tuple.
    """

    model: nn.Module

    def forward(self, rows: Sequence[Row], step: Sequence[Row]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of `rows`, and a dictionary of the terms of this loss by name; its key 'loss' has the whole
        loss. `step` holds all rows of an optimizer step. `rows` are the rows of this step for which this call computes
        the loss.

        The loss is normalized over all rows of the step. If a step is computed in portions, the losses, terms and
        gradients of the portions therefore add up to those of the step.
        """
        raise NotImplementedError

    def begin(self, step: int, rows: list[Row]) -> list[Row]:
        """Return the rows that optimizer step `step` trains on. `rows` are the rows of the corpus for this step.

        The result must be the same in every process.
        """
        return rows

    def beside(self) -> dict[str, nn.Module]:
        """Other models that are trained together with the student. Each key is the name of the folder in which the
        model is saved.
        """
        return {}

    def tokens(self, rows: Sequence[Row]) -> int:
        """The number of tokens that the student learns from `rows`."""
        raise NotImplementedError

    def state(self) -> object:
        """The objective's state that a checkpoint needs beside the weights, as a JSON value."""
        return None

    def restore(self, state: object) -> None:
        """Restore the state that `state` returned."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint files of one arm in `folder`: `{name}-{step}.safetensors`, of which the last `keep` are kept.

    With early stopping, `{name}-best.safetensors` holds the weights with the lowest validation loss.
    """

    folder: Path
    name: str
    keep: int = 1

    @property
    def best(self) -> Path:
        return self.folder / f"{self.name}-best.safetensors"

    def at(self, step: int) -> Path:
        return self.folder / f"{self.name}-{step:07d}.safetensors"

    def there(self) -> list[Path]:
        """The existing checkpoints, oldest first."""
        return sorted(self.folder.glob(f"{self.name}-{'[0-9]' * 7}.safetensors"))


def accelerator_of(section: TrainSection, device: torch.device, folder: Path) -> Accelerator:
    """Create the Accelerator of this process, which knows its device, the number of processes and the trackers.

    The training loop sets the precision, because accelerate has only one precision for a process, and a process may
    train several students. Raises UserError when a tracker is not installed.
    """
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import ProjectConfiguration

    missing = [name for name in section.report_to if find_spec(name) is None]
    if missing:
        raise UserError(f"train.report_to names {missing[0]}, which is not installed", f"pip install {missing[0]}")
    where = ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / "trackers"))
    trackers = list(section.report_to) or None
    before = PartialState() if PartialState._shared_state else None
    if before is not None and before.num_processes == 1 and before.device.type != device.type:
        # Accelerate also keeps one device for each process. Without a reset, accelerate would train the next student on
        # the device of the previous student, or raise an error.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no", log_with=trackers, project_config=where)


def fit(
    objective: Objective[Row],
    batch_of: Callable[[int], list[Row]],
    section: TrainSection,
    steps: int,
    checkpoints: Checkpoints,
    bar: Progress,
    *,
    accelerator: Accelerator,
    validation: Sequence[Row] = (),
) -> Metrics:
    """Train for `steps` optimizer steps, starting from the newest checkpoint if there is one. Returns the metrics of
    each step.

    `batch_of(step)` returns the rows of one step. The loss on the `validation` rows is measured every
    `section.eval_steps` steps. With `section.early_stopping_patience`, training ends after that many measurements
    without improvement, and the best weights are restored. Raises UserError when the loss is not finite or memory runs
    out.
    """
    objective.to(accelerator.device)
    weights = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        weights.values(), lr=section.learning_rate, weight_decay=section.weight_decay, betas=(0.9, 0.95), fused=True
    )
    trainer = _Trainer(objective, optimizer, weights, section, accelerator.device)
    objective.train()
    start, metrics = trainer.restored(checkpoints)
    processes.spread(objective)
    bar.advance(start, resumed=True)
    log = _Log(checkpoints, metrics, accelerator)
    for step in range(start, steps):
        if section.early_stopping_patience and _stale(metrics) >= section.early_stopping_patience:
            bar.advance(steps - step)
            break
        # The seed of dropout and other random numbers depends on the step and the process.
        torch.manual_seed((section.seed << 32 | step << 8 | processes.rank()) % 2**63)
        batch = objective.begin(step, batch_of(step))
        for group in optimizer.param_groups:
            group["lr"] = section.learning_rate * schedule(step, steps, section.warmup_steps)
        row = trainer.step(step, batch)
        if validation and section.eval_steps and (step + 1) % section.eval_steps == 0:
            trainer.measure(row, validation, metrics, checkpoints)
        metrics.append(row)
        log.add(row)
        if processes.rank() == 0 and (step + 1) % section.save_steps == 0 and step + 1 < steps:
            trainer.save(step + 1, metrics, checkpoints)
        bar.tokens(int(row["tokens"]))
        bar.advance(1)
    if section.early_stopping_patience and processes.once(checkpoints.best.exists):
        trainer.take_best(checkpoints)
    return metrics


class _Log:
    """Writes the metrics of each step to a JSONL file beside the checkpoints, and to the trackers."""

    def __init__(self, checkpoints: Checkpoints, metrics: Metrics, accelerator: Accelerator) -> None:
        self.path, self.accelerator = checkpoints.folder / f"{checkpoints.name}.jsonl", accelerator
        if accelerator.is_main_process:
            durable.write_text(self.path, "".join(json.dumps(row) + "\n" for row in metrics))

    def add(self, row: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        step = int(row["step"])
        self.accelerator.log({key: value for key, value in row.items() if key != "step"}, step=step)


@dataclass
class _Trainer(Generic[Row]):
    """One objective with its optimizer. `weights` are the trained parameters by name."""

    objective: Objective[Row]
    optimizer: torch.optim.Optimizer
    weights: dict[str, nn.Parameter]
    section: TrainSection
    device: torch.device

    def step(self, step: int, batch: list[Row]) -> dict[str, float]:
        """Do one optimizer step on `batch`. Returns its metrics."""
        size = self.section.micro_batch_size or len(batch)
        try:
            parts = self._backward(batch, size)
        except (RuntimeError, MemoryError) as error:
            starved = isinstance(error, MemoryError | torch.OutOfMemoryError)
            if not starved and "can't allocate memory" not in str(error):
                raise
            raise UserError(
                f"out of memory in step {step}, with {min(size, len(batch))} rows at once",
                "lower train.micro_batch_size (the result stays the same), or set train.gradient_checkpointing",
            ) from None
        parts = processes.summed(parts)
        if not math.isfinite(parts["loss"]):
            raise UserError(f"the loss of step {step} is {parts['loss']}", "lower train.learning_rate")
        processes.add_gradients(self.weights.values())
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"step": step, **parts, "grad_norm": float(norm), "tokens": self.objective.tokens(batch)}

    def _backward(self, batch: list[Row], size: int) -> dict[str, float]:
        """Accumulate the gradients of this process's share of `batch`, `size` rows at a time. Returns the terms of the
        loss of this share by name. The last batch of an epoch can have fewer rows than there are processes. A process
        without rows then has no gradients and no terms.
        """
        own = batch[processes.rank() :: processes.count()]
        parts: dict[str, float] = {}
        for begin in range(0, len(own), size):
            with self._precision():
                loss, values = self.objective(own[begin : begin + size], batch)
            loss.backward()
            parts = {key: parts.get(key, 0.0) + value for key, value in values.items()}
        return parts

    def _precision(self) -> AbstractContextManager[object]:
        enabled = self.section.dtype == "bfloat16"
        context: AbstractContextManager[object] = torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)
        return context

    def measure(self, row: dict[str, float], rows: Sequence[Row], metrics: Metrics, checkpoints: Checkpoints) -> None:
        """Add the loss on the validation rows to `row`. With early stopping, save the weights if this loss is the
        lowest so far.
        """
        row["validation"] = self._validate(rows)
        better = row["validation"] < min((m["validation"] for m in metrics if "validation" in m), default=math.inf)
        if self.section.early_stopping_patience and better and processes.rank() == 0:
            tensors = {name: p.data for name, p in self.weights.items()}
            _write(tensors, checkpoints.best, {"step": str(int(row["step"]) + 1)})

    def _validate(self, rows: Sequence[Row]) -> float:
        """Compute the objective's loss on `rows` in eval mode, that is, without dropout. Each process computes a part,
        and all processes return the same sum.
        """
        self.objective.eval()
        size = self.section.micro_batch_size or self.section.batch_size
        whole = rows.outline if isinstance(rows, Outlined) else rows
        total = 0.0
        with torch.no_grad(), self._precision():
            for begin in range(processes.rank() * size, len(rows), processes.count() * size):
                total += self.objective(rows[begin : begin + size], whole)[1]["loss"]
        self.objective.train()
        return processes.summed({"loss": total})["loss"]

    def take_best(self, checkpoints: Checkpoints) -> None:
        """Load the weights with the lowest validation loss."""
        with opened(checkpoints.best) as file:
            for name, parameter in self.weights.items():
                parameter.data.copy_(file.get_tensor(name))

    def save(self, step: int, metrics: Metrics, checkpoints: Checkpoints) -> None:
        """Write a checkpoint. Remove the oldest checkpoints when there are more than `checkpoints.keep`."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.weights.items():
            tensors[f"weight.{name}"] = parameter.data
            # A weight's moments are created with its first gradient, which may come later than the gradients of other
            # weights.
            if state := self.optimizer.state[parameter]:
                tensors |= {f"{part}.{name}": state[part] for part in _MOMENTS}
        about = {"step": str(step), "metrics": json.dumps(metrics), "state": json.dumps(self.objective.state())}
        _write(tensors, checkpoints.at(step), about)
        for old in checkpoints.there()[: -checkpoints.keep]:
            durable.remove(old)

    def restored(self, checkpoints: Checkpoints) -> tuple[int, Metrics]:
        """Load the newest checkpoint. Returns (next step, metrics so far), or (0, []) when there is no checkpoint."""
        newest = processes.once(lambda: next(reversed(checkpoints.there()), None))
        if newest is None:
            return 0, []
        with opened(newest) as file:
            about, names = file.metadata(), set(file.keys())
            step = int(about["step"])
            for name, parameter in self.weights.items():
                parameter.data.copy_(file.get_tensor(f"weight.{name}"))
                if f"exp_avg.{name}" in names:
                    state = {p: file.get_tensor(f"{p}.{name}") for p in _MOMENTS if f"{p}.{name}" in names}
                    # An older version stored one step number for all weights.
                    state.setdefault("step", torch.tensor(float(step)))
                    self.optimizer.state[parameter] = {p: value.to(parameter.device) for p, value in state.items()}
        self.objective.restore(json.loads(about["state"]))
        return step, json.loads(about["metrics"])


def _stale(metrics: Metrics) -> int:
    """The number of validation measurements after the measurement with the lowest loss."""
    values = [row["validation"] for row in metrics if "validation" in row]
    return len(values) - 1 - values.index(min(values)) if values else 0


def schedule(step: int, steps: int, warmup_steps: float) -> float:
    """The factor of the learning rate at a step: linear warm-up to 1, then cosine decay to 0.1.

    `warmup_steps` below 1 is a share of all steps.
    """
    rise = max(1, round(steps * warmup_steps if warmup_steps < 1 else warmup_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


@contextmanager
def opened(path: Path) -> Iterator[safe_open]:
    """Open a checkpoint whose tensors and metadata have the hash that was stored with them. Raises CorpusError for any
    other file, because training from other weights would end with another student.
    """
    again = "delete this file: the same command then continues from the checkpoint before it, or begins anew"
    files.check_regular(path, again)
    try:
        with safe_open(path, "pt", device="cpu") as file:
            about = dict(file.metadata() or {})
            expected = about.pop(_SHA, None)
            if expected is None or expected != _digest(file.get_tensor, file.keys(), about):
                raise CorpusError(f"{path} is damaged: its content differs from its hash", again)
            yield file
    except SafetensorError as error:
        raise CorpusError(f"{path} is damaged: {error}", again) from None


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    whole = {name: t.contiguous().cpu() for name, t in tensors.items()}
    temporary = path.with_name(f"{durable.TEMPORARY}{path.name}")
    durable.make_folder(path.parent)
    temporary.unlink(missing_ok=True)  # `save_file` would follow a link of this name
    save_file(whole, temporary, {**metadata, _SHA: _digest(whole.__getitem__, whole, metadata)})
    durable.publish(temporary, path)


def _digest(tensor: Callable[[str], Tensor], names: Iterable[str], metadata: Mapping[str, str]) -> str:
    """Hex sha256 over the metadata and over the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(names):
        values = tensor(name)
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
