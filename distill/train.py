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
from distill.data import Example, TrainingSet, batch_rows, load, sampled_batch, topk_batch
from distill.students import from_layers, layer_map
from synthgen import corpus, durable
from synthgen.errors import CorpusError, GateDenied, UserError
from synthgen.recipe import DecoderStudent, Recipe, TrainSection, local_teacher
from synthgen.teachers.forward import completion_logits
from synthgen.teachers.transformers import LocalModel
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
    check_audit(source.parent, override_audit)
    inputs = {"train": section.model_dump(mode="json"), "curated_sha256": durable.digest(made["files"])}
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
    facts = {**facts, **inputs, "audit_overridden": override_audit}
    write_model_card(folder, recipe, made, facts)
    durable.write_json(folder / "training.json", facts)  # last: it says that the student is finished
    return folder


def check_audit(run: Path, override: bool) -> None:
    """Raise GateDenied when the run's audit did not pass (no audit is no denial)."""
    report = run / "audit" / "report.json"
    if report.exists() and not override:
        audit = json.loads(report.read_text())
        if not audit["passed"]:
            raise GateDenied(
                f"the audit of {run} says {audit['status']} for {audit['intent']['use']} use",
                f"read {run}/audit/report.md; --override-audit trains all the same, and the model card will say so",
            )


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
    model.train()
    start, metrics = _restore(model, optimizer, checkpoint)
    bar.advance(start, resumed=True)
    for step in range(start, steps):
        torch.manual_seed((section.seed << 32 | step) % 2**63)  # dropout, where there is any, belongs to the step too
        batch = [data.examples[i] for i in _rows(data, section, step)]
        for group in optimizer.param_groups:
            group["lr"] = section.learning_rate * _schedule(step, steps, section.warmup)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=section.dtype == "bfloat16"):
            z_NV = torch.cat(completion_logits(model, [e.prompt for e in batch], [e.completion for e in batch]))
        loss, parts = batch_loss(z_NV, batch, data.meta, 0.0 if arm == "cross-entropy" else section.kd_weight)
        if not math.isfinite(float(loss.detach())):
            raise UserError(f"the loss of step {step} is {float(loss.detach())}", "lower train.learning_rate")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        metrics.append(
            {"step": step, **parts, "grad_norm": float(norm), "tokens": sum(len(e.completion) for e in batch)}
        )
        bar.tokens(len(z_NV))
        bar.advance(1)
        if (step + 1) % section.checkpoint_every == 0 and step + 1 < steps:
            _checkpoint(model, optimizer, step + 1, metrics, checkpoint)
    return metrics


def batch_loss(
    z_NV: torch.Tensor, batch: list[Example], meta: dict[str, Any], kd_weight: float
) -> tuple[torch.Tensor, dict[str, float]]:
    """kd_weight · distillation + (1 − kd_weight) · cross-entropy, each a mean over its own tokens of the batch.

    Distillation is over every row, cross-entropy over the rows that curation kept; with kd_weight 0 it is over
    every row (the baseline). Returns the loss and its parts.
    """
    device = z_NV.device
    labels = torch.tensor([t for e in batch for t in e.completion], device=device)
    if kd_weight == 0:
        ce = losses.cross_entropy(z_NV, labels).mean()
        return ce, {"loss": float(ce.detach()), "cross_entropy": float(ce.detach())}
    targets = [e.target for e in batch]
    if meta["kind"] == "sampled":
        ids, weights = (t.to(device) for t in sampled_batch(targets, meta["draws"]))  # type: ignore[arg-type]
        kd = losses.sampled_cross_entropy(z_NV, ids, weights, meta["temperature"]).mean()
    else:
        ids, logp, tail, log_z = (t.to(device) for t in topk_batch(targets))  # type: ignore[arg-type]
        kd = losses.kl_topk(z_NV, ids, logp, tail, log_z, meta["temperature"]).mean()
    kept = torch.tensor([e.kept for e in batch for _ in e.completion], device=device).nonzero()[:, 0]
    ce = losses.cross_entropy(z_NV[kept], labels[kept]).sum() / max(1, len(kept))
    loss = kd_weight * kd + (1 - kd_weight) * ce
    return loss, {k: float(v.detach()) for k, v in (("loss", loss), ("distillation", kd), ("cross_entropy", ce))}


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
