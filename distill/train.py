"""Training a student on a corpus with stored logits: one flat loop, killed or not with the same result.

    from distill import train
    train(recipe, "runs/demo")            # → runs/demo/student

What a step sees is a function of its number, so a checkpoint is weights, optimizer moments and that number.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from distill import losses
from distill.card import write_model_card
from distill.data import Example, TrainingSet, batch_rows, load, target_batch
from distill.finished import made_from
from distill.head import Head, completion_states, output_head, through_head
from distill.students import from_layers, layer_map
from synthgen import corpus, durable
from synthgen.divergences import refusal
from synthgen.errors import CorpusError, GateDenied, UserError
from synthgen.recipe import Recipe, local_teacher
from synthgen.teachers.transformers import LocalModel
from synthgen.training import DecoderStudent, TrainSection
from synthgen.ui import UI, Progress


def train(
    recipe: Recipe,
    run: str | Path,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    override_audit: bool = False,
    teacher: LocalModel | None = None,
    ui: UI | None = None,
) -> Path:
    """Train the recipe's student on `run`/curated; returns the student's folder (`run`/student).

    With `train.baseline`, the same student is also trained by cross-entropy alone on the same batches, into
    student/baseline. Refuses a corpus whose audit says no, unless `override_audit`. Raises RunChanged when the
    folder was begun with another corpus or other settings.
    """
    ui = ui or UI(quiet=True)
    section = recipe.train
    if section is None:
        raise UserError("the recipe has no `train` section", "add one; prompts/README.md shows what it holds")
    source = corpus.resolve(Path(run), prefer=("curated",))
    folder = Path(out) if out else source.parent / "student"
    made = corpus.verify(source)
    overridden = check_audit(source.parent, override_audit)
    inputs = made_from(section, made)
    if fresh:
        durable.remove(folder)
    durable.sweep(folder)
    corpus.claim(folder, inputs, "train")
    if (folder / "training.json").exists():
        ui.note(f"{folder} is trained; nothing to do")
        return folder
    if section.student.kind == "classifier":
        from distill.classifier import train_classifier

        facts = train_classifier(section, source, made, folder, ui)
    else:
        teacher = teacher or LocalModel.open(local_teacher(recipe))
        facts = _train_decoder(section, section.student, source, folder, teacher, ui)
    facts = {**facts, **inputs, "audit_overridden": overridden}
    write_model_card(folder, recipe, made, facts)
    durable.write_json(folder / "training.json", facts)  # last: it says that the student is finished
    return folder


def check_audit(run: Path, override: bool) -> bool:
    """Whether the run's audit said no and is overridden (no audit is no denial). Raises GateDenied if it is not."""
    report = run / "audit" / "report.json"
    audit: dict[str, Any] = corpus.load_json(report) if report.exists() else {"passed": True}
    if not audit["passed"] and not override:
        raise GateDenied(
            f"the audit of {run} says {audit['status']} for {audit['intent']['use']} use",
            f"read {run}/audit/report.md; --override-audit trains all the same, and the model card will say so",
        )
    return not audit["passed"]


def _train_decoder(
    section: TrainSection, student: DecoderStudent, source: Path, folder: Path, teacher: LocalModel, ui: UI
) -> dict[str, Any]:
    """Both arms on the same batches; returns what training.json says."""
    layers = layer_map(student.layers, teacher.model.config.num_hidden_layers)
    data = load(source, teacher.render, section.max_length)
    made_by = {"tokenizer": data.meta["tokenizer"], "revision": data.meta["teacher"].rpartition("@")[2]}
    for what, value in made_by.items():
        if value != teacher.identity[what]:
            raise CorpusError(
                f"{source}: its logits were made with {what} {value}; the teacher's is {teacher.identity[what]}",
                "name the teacher that made them in the recipe, or generate again",
            )
    reason = refusal(section.loss, data.meta["kind"])
    if reason:  # the recipe's own logits section may say otherwise than the corpus
        raise CorpusError(f"{source}: {reason}", "change train.loss, or generate with another logits.kind")
    steps = section.epochs * -(-len(data.examples) // section.batch_size)
    steps = min(steps, section.max_steps or steps)
    tokens = sum(len(data.examples[i].completion) for s in range(steps) for i in _rows(data, section, s))
    arms = ["distilled", *(["cross-entropy"] if section.baseline else [])]
    curves: dict[str, Any] = {}
    with ui.progress("train", steps * len(arms), "steps") as bar:
        for arm in arms:
            target = folder if arm == "distilled" else folder / "baseline"
            if not (target / "metrics.json").exists():
                model = from_layers(teacher.model, layers)
                metrics = _fit(model, data, section, steps, arm, folder / "checkpoints" / f"{arm}.safetensors", bar)
                _save(model, teacher.tokenizer, target, metrics)
            else:
                bar.advance(steps, resumed=True)
            curves[arm] = json.loads((target / "metrics.json").read_text())
    durable.remove(folder / "checkpoints")
    return {
        "kind": "decoder",
        "layers": layers,
        "steps": steps,
        "rows": len(data.examples),
        "rows kept by curation": sum(e.kept for e in data.examples),
        "rows left out": data.left_out,
        "completion tokens trained on": tokens,
        "targets": data.meta,
        "metrics": curves,
    }


def _rows(data: TrainingSet, section: TrainSection, step: int) -> list[int]:
    return batch_rows(step, len(data.examples), section.batch_size, section.seed)


def _fit(
    model: Any, data: TrainingSet, section: TrainSection, steps: int, arm: str, checkpoint: Path, bar: Progress
) -> list[dict[str, float]]:
    """The loop. `arm` 'cross-entropy' learns the teacher's tokens alone, on every row of the same batches."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=section.learning_rate, weight_decay=section.weight_decay, betas=(0.9, 0.95), fused=True
    )
    head = output_head(model)
    model.train()
    start, metrics = _restore(model, optimizer, checkpoint)
    bar.advance(start, resumed=True)
    for step in range(start, steps):
        torch.manual_seed((section.seed << 32 | step) % 2**63)  # dropout, where there is any, belongs to the step too
        batch = [data.examples[i] for i in _rows(data, section, step)]
        for group in optimizer.param_groups:
            group["lr"] = section.learning_rate * _schedule(step, steps, section.warmup)
        parts: dict[str, float] = {}
        for begin in range(0, len(batch), section.micro_batch or len(batch)):
            micro = batch[begin : begin + (section.micro_batch or len(batch))]
            with torch.autocast(model.device.type, torch.bfloat16, enabled=section.dtype == "bfloat16"):
                states_ND = completion_states(model, head, [e.prompt for e in micro], [e.completion for e in micro])
                loss, found = batch_loss(states_ND, head, micro, data.meta, section, arm == "cross-entropy", batch)
            if not math.isfinite(found["loss"]):
                raise UserError(f"the loss of step {step} is {found['loss']}", "lower train.learning_rate")
            loss.backward()
            parts = {key: parts.get(key, 0.0) + value for key, value in found.items()}
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        metrics.append(
            {"step": step, **parts, "grad_norm": float(norm), "tokens": sum(len(e.completion) for e in batch)}
        )
        bar.tokens(sum(len(e.completion) for e in batch))
        bar.advance(1)
        if (step + 1) % section.checkpoint_every == 0 and step + 1 < steps:
            _checkpoint(model, optimizer, step + 1, metrics, checkpoint)
    return metrics


def batch_loss(
    states_ND: torch.Tensor,
    head: Head | None,
    batch: list[Example],
    meta: dict[str, Any],
    section: TrainSection,
    labels_alone: bool = False,
    step: list[Example] | None = None,
) -> tuple[torch.Tensor, dict[str, float]]:
    """kd_weight · divergence + (1 − kd_weight) · cross-entropy, each a mean over its own tokens of the whole step.

    The divergence is over every row, cross-entropy over the rows that curation kept; with `labels_alone` (the
    baseline) it is over every row and all there is. `batch` is a part of the rows `step` of one optimizer step (all
    of them by default): losses and gradients of its parts add up to the step's. Returns the loss and its parts.
    """
    step, device = step or batch, states_ND.device
    labels = losses.Labels(torch.tensor([t for e in batch for t in e.completion], device=device))
    tokens = sum(len(e.completion) for e in step)
    if labels_alone or section.kd_weight == 0:

        def label_loss(z_CV: torch.Tensor, chunk: tuple[int, int]) -> torch.Tensor:
            return losses.divergence(z_CV, losses.cut(labels, *chunk), "cross_entropy")

        weights_N = torch.full((len(states_ND),), 1 / tokens, device=device)
        ce, _ = through_head(states_ND, head, label_loss, weights_N)
        return ce, {"loss": float(ce.detach()), "cross_entropy": float(ce.detach())}
    target = losses.moved(target_batch([e.target for e in batch], meta), device)
    kept_N = torch.tensor([float(e.kept) for e in batch for _ in e.completion], device=device)
    kept = max(1, sum(len(e.completion) for e in step if e.kept))
    shape = {} if section.beta is None else {"beta": section.beta}
    shape |= {} if section.alpha is None else {"alpha": section.alpha}

    def both(z_CV: torch.Tensor, chunk: tuple[int, int]) -> torch.Tensor:
        here, vocabulary = losses.cut(target, *chunk), min(meta["vocab_size"], z_CV.shape[-1])
        kd_C = losses.divergence(
            z_CV, here, section.loss, temperature=meta["temperature"], vocabulary=vocabulary, **shape
        )
        return torch.stack([kd_C, losses.divergence(z_CV, losses.cut(labels, *chunk), "cross_entropy")], -1)

    means_N2 = torch.stack([torch.full_like(kept_N, 1 / tokens), kept_N / kept], -1)
    mixed = torch.tensor([section.kd_weight, 1 - section.kd_weight], device=device)
    loss, values_N2 = through_head(states_ND, head, both, means_N2 * mixed)
    kd, ce = (values_N2 * means_N2).sum(0).tolist()
    return loss, {"loss": float(loss.detach()), "distillation": kd, "cross_entropy": ce}


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then cosine down to a tenth."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _checkpoint(
    model: Any, optimizer: torch.optim.Optimizer, step: int, metrics: list[dict[str, float]], path: Path
) -> None:
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        tensors |= {
            f"weight.{name}": parameter.data,
            f"exp_avg.{name}": state["exp_avg"],
            f"exp_avg_sq.{name}": state["exp_avg_sq"],
        }
    durable.make_folder(path.parent)
    temporary = path.with_name(f"{durable.TEMPORARY}{path.name}")
    save_file(tensors, temporary, {"step": str(step), "metrics": json.dumps(metrics)})
    durable.publish(temporary, path)


def _restore(model: Any, optimizer: torch.optim.Optimizer, path: Path) -> tuple[int, list[dict[str, float]]]:
    """(next step, metrics so far); (0, []) without a checkpoint."""
    if not path.exists():
        return 0, []
    with safe_open(path, "pt", device=str(model.device)) as file:
        metadata = file.metadata()
        step = int(metadata["step"])
        for name, parameter in model.named_parameters():
            parameter.data.copy_(file.get_tensor(f"weight.{name}"))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": file.get_tensor(f"exp_avg.{name}"),
                "exp_avg_sq": file.get_tensor(f"exp_avg_sq.{name}"),
            }
    return step, json.loads(metadata["metrics"])


def _save(model: Any, tokenizer: Any, folder: Path, metrics: list[dict[str, float]]) -> None:
    """Weights, config and tokenizer under their usual names; metrics.json last, as the sign that all are there."""
    temporary = folder / f"{durable.TEMPORARY}model-{os.getpid()}"
    durable.make_folder(temporary)
    model.eval().save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    for path in sorted(temporary.iterdir()):
        durable.publish(path, folder / path.name)
    shutil.rmtree(temporary)
    durable.write_json(folder / "metrics.json", metrics)
