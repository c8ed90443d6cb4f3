"""The one loop that trains: whatever an objective wants trained, killed or not with the same result.

    metrics = fit(Objective(model), batch_of, section, steps, Checkpoints(folder, "distilled"), bar)

What a step sees is a function of its number (and, where a student writes its own texts, of the weights), so a
checkpoint is weights, optimizer moments, that number and what the objective itself remembers. Under `accelerate
launch` each process takes its share of every batch; a step is normalized over all of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from synthgen import durable
from synthgen.errors import UserError
from synthgen.recipe import TrainSection
from synthgen.ui import Progress

Metrics = list[dict[str, float]]

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's, by its own names


class Objective(nn.Module):
    """What one student learns by. Every parameter below it that wants a gradient is trained, and is in checkpoints.

    `model` is the student. A frozen teacher is no submodule: keep it in a tuple.
    """

    model: nn.Module

    def forward(self, rows: Sequence[Any], step: Sequence[Any]) -> tuple[Tensor, dict[str, float]]:
        """Loss of `rows`, which are some of the rows of one optimizer `step`, and its named parts ('loss' is one).

        Normalized over the whole step, so that losses, parts and gradients of its portions add up to the step's.
        """
        raise NotImplementedError

    def begin(self, step: int, rows: list[Any]) -> list[Any]:
        """The rows that optimizer step `step` learns from, given those whose turn it is; the same in every process."""
        return rows

    def beside(self) -> dict[str, nn.Module]:
        """Models trained beside the student, by the name of the folder in which they are saved."""
        return {}

    def tokens(self, rows: Sequence[Any]) -> int:
        """Tokens that `rows` teach."""
        return sum(len(row.completion) for row in rows)

    def state(self) -> Any:
        """What else a checkpoint must hold, as JSON."""
        return None

    def restore(self, state: Any) -> None:
        """Take back what `state` gave."""


@dataclass(frozen=True)
class Checkpoints:
    """Files `{name}-{step}.safetensors` in `folder`, the last `keep`; `{name}-best` where validation chooses."""

    folder: Path
    name: str
    keep: int = 1

    @property
    def best(self) -> Path:
        return self.folder / f"{self.name}-best.safetensors"

    def at(self, step: int) -> Path:
        return self.folder / f"{self.name}-{step:07d}.safetensors"

    def there(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob(f"{self.name}-{'[0-9]' * 7}.safetensors"))


def accelerator_of(section: TrainSection, device: torch.device, folder: Path) -> Accelerator:
    """Accelerate's view of this process: where it computes, with whom, what it reports to.

    The precision is the loop's: accelerate keeps one a process, and a process may train several students.

    Raises UserError for a tracker that is not installed.
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
        # A device, too, is kept one a process: the next student would be trained where the last one was, or refused.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no", log_with=trackers, project_config=where)


def fit(
    objective: Objective,
    batch_of: Callable[[int], list[Any]],
    section: TrainSection,
    steps: int,
    checkpoints: Checkpoints,
    bar: Progress,
    *,
    accelerator: Accelerator,
    validation: Sequence[Any] = (),
) -> Metrics:
    """Train for `steps` optimizer steps, from the newest checkpoint where there is one; returns metrics, a row a step.

    `batch_of(step)` are the rows of one step. With `validation` rows, their loss is measured every
    `section.eval_steps` steps; with `section.early_stopping_patience`, training ends when so many measurements in a row
    brought nothing better, and the best weights are taken. Raises UserError when the loss is not a number or
    memory runs out.
    """
    weights = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    optimizer: Any = torch.optim.AdamW(
        weights.values(), lr=section.learning_rate, weight_decay=section.weight_decay, betas=(0.9, 0.95), fused=True
    )
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    objective.train()
    start, metrics = _restore(objective, weights, optimizer, checkpoints)
    bar.advance(start, resumed=True)
    live = checkpoints.folder / f"{checkpoints.name}.jsonl"
    if accelerator.is_main_process:
        durable.make_folder(checkpoints.folder)
        live.write_text("".join(json.dumps(row) + "\n" for row in metrics))
    for step in range(start, steps):
        if section.early_stopping_patience and _stale(metrics) >= section.early_stopping_patience:
            bar.advance(steps - step)
            break
        # Dropout, and whatever else is drawn, belongs to the step, and to the process.
        torch.manual_seed((section.seed << 32 | step << 8 | accelerator.process_index) % 2**63)
        batch = objective.begin(step, batch_of(step))
        for group in optimizer.param_groups:
            group["lr"] = section.learning_rate * schedule(step, steps, section.warmup_steps)
        row = _step(wrapped, objective, optimizer, batch, section, step, accelerator)
        if validation and section.eval_steps and (step + 1) % section.eval_steps == 0:
            row["validation"] = _validate(objective, validation, section, accelerator)
            better = row["validation"] < min((m["validation"] for m in metrics if "validation" in m), default=math.inf)
            if section.early_stopping_patience and better and accelerator.is_main_process:
                _write({name: p.data for name, p in weights.items()}, checkpoints.best, {"step": str(step + 1)})
        metrics.append(row)
        if accelerator.is_main_process:
            with live.open("a") as file:
                file.write(json.dumps(row) + "\n")
            if (step + 1) % section.save_steps == 0 and step + 1 < steps:
                _checkpoint(objective, weights, optimizer, step + 1, metrics, checkpoints)
        accelerator.log({key: value for key, value in row.items() if key != "step"}, step=step)
        bar.tokens(int(row["tokens"]))
        bar.advance(1)
    accelerator.wait_for_everyone()
    if section.early_stopping_patience and checkpoints.best.exists():
        with safe_open(checkpoints.best, "pt", device="cpu") as file:
            for name, parameter in weights.items():
                parameter.data.copy_(file.get_tensor(name))
    return metrics


def _step(
    wrapped: Any,
    objective: Objective,
    optimizer: Any,
    batch: list[Any],
    section: TrainSection,
    step: int,
    acc: Accelerator,
) -> dict[str, float]:
    """One optimizer step over `batch`; its metrics."""
    mine = batch[acc.process_index :: acc.num_processes]
    size = section.micro_batch_size or len(batch)
    largest = -(-len(batch) // acc.num_processes)
    portions = -(-largest // size)  # as many on every process: they wait for each other
    parts: dict[str, float] = {}
    try:
        for number in range(portions):
            rows, idle = mine[number * size : (number + 1) * size], False
            if not rows:
                rows, idle = batch[:1], True
            with acc.no_sync(wrapped) if number + 1 < portions else nullcontext():
                with _precision(section, acc):
                    loss, found = wrapped(rows, batch)
                acc.backward(
                    loss * (0.0 if idle else float(acc.num_processes))
                )  # gradients are averaged over processes
            parts = {key: parts.get(key, 0.0) + (0.0 if idle else value) for key, value in found.items()}
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"out of memory in step {step}, with {min(size, len(batch))} rows at once",
            "lower train.micro_batch_size: the result is the same; or set train.gradient_checkpointing",
        ) from None
    if acc.num_processes > 1:
        total = acc.reduce(torch.tensor([parts[key] for key in sorted(parts)], device=acc.device), "sum")
        parts = dict(zip(sorted(parts), total.tolist(), strict=True))
    if not math.isfinite(parts["loss"]):
        raise UserError(f"the loss of step {step} is {parts['loss']}", "lower train.learning_rate")
    norm = acc.clip_grad_norm_(objective.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"step": step, **parts, "grad_norm": float(norm), "tokens": objective.tokens(batch)}


def _precision(section: TrainSection, acc: Accelerator) -> Any:
    return torch.autocast(acc.device.type, torch.bfloat16, enabled=section.dtype == "bfloat16")


def _validate(objective: Objective, rows: Sequence[Any], section: TrainSection, acc: Accelerator) -> float:
    """The objective's own loss on `rows`, with what is drawn in training (dropout) left out."""
    objective.eval()
    size = section.micro_batch_size or section.batch_size
    total = 0.0
    with torch.no_grad(), _precision(section, acc):
        for begin in range(0, len(rows), size):
            total += objective(rows[begin : begin + size], rows)[1]["loss"]
    objective.train()
    return total


def _stale(metrics: Metrics) -> int:
    """Measurements since the best one."""
    found = [row["validation"] for row in metrics if "validation" in row]
    return len(found) - 1 - found.index(min(found)) if found else 0


def schedule(step: int, steps: int, warmup_steps: float) -> float:
    """Linear warm-up, then cosine down to a tenth."""
    rise = max(1, round(steps * warmup_steps if warmup_steps < 1 else warmup_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _checkpoint(
    objective: Objective,
    weights: dict[str, nn.Parameter],
    optimizer: Any,
    step: int,
    metrics: Metrics,
    checkpoints: Checkpoints,
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, parameter in weights.items():
        tensors[f"weight.{name}"] = parameter.data
        if state := optimizer.state[parameter]:  # none before its first gradient, which may be later than others'
            tensors |= {f"{part}.{name}": state[part] for part in _MOMENTS}
    more = {"step": str(step), "metrics": json.dumps(metrics), "state": json.dumps(objective.state())}
    _write(tensors, checkpoints.at(step), more)
    for old in checkpoints.there()[: -checkpoints.keep]:
        durable.remove(old)


def _write(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    temporary = path.with_name(f"{durable.TEMPORARY}{path.name}")
    save_file({name: t.contiguous() for name, t in tensors.items()}, temporary, metadata)
    durable.publish(temporary, path)


def _restore(
    objective: Objective, weights: dict[str, nn.Parameter], optimizer: Any, checkpoints: Checkpoints
) -> tuple[int, Metrics]:
    """(next step, metrics so far); (0, []) without a checkpoint."""
    there = checkpoints.there()
    if not there:
        return 0, []
    with safe_open(there[-1], "pt", device="cpu") as file:
        metadata = file.metadata()
        step = int(metadata["step"])
        there_is = set(file.keys())
        for name, parameter in weights.items():
            parameter.data.copy_(file.get_tensor(f"weight.{name}"))
            if f"exp_avg.{name}" in there_is:
                found = {part: file.get_tensor(f"{part}.{name}") for part in _MOMENTS if f"{part}.{name}" in there_is}
                found.setdefault("step", torch.tensor(float(step)))  # an older version kept one for all
                optimizer.state[parameter] = {part: value.to(parameter.device) for part, value in found.items()}
    objective.restore(json.loads(metadata["state"]))
    return step, json.loads(metadata["metrics"])
