"""Decoders against their live teacher: KL over the full vocabulary, agreement, greedy answers, memory, speed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill import losses
from distill.data import TrainingSet, load, rows, target_batch
from distill.evaluation.cost import measure
from distill.evaluation.slices import BINS, calibration, calibration_bins, slices
from distill.intervals import RESAMPLES, Array, interval
from distill.students.build import student_of
from distill.students.seq2seq import Seq2SeqModel
from distill.targets.ensemble import Merge
from distill.targets.rationale import explaining
from synthgen.lm.forward import completion_logits
from synthgen.recipe import EvaluateSection, RationaleSection, Recipe, local_teacher
from synthgen.records import Record, Sampling
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.transformers import LocalModel
from synthgen.ui import UI
from synthgen.verify import matches_any

_CHUNK = 16  # rows whose full distributions are in memory at once


def evaluate_decoder(
    recipe: Recipe,
    facts: dict[str, Any],
    source: Path,
    folder: Path,
    held_out: list[Record],
    teacher: LocalModel | None,
    ui: UI,
) -> dict[str, Any]:
    section = recipe.evaluate
    held_out = held_out[: section.max_rows]
    teacher = teacher or LocalModel.open(local_teacher(recipe))
    models: dict[str, Any] = {"untrained": _wrap(_untrained(recipe, teacher), teacher)}
    names = {"cross-entropy": folder / "baseline", "distilled": folder, "teacher, trained too": folder / "teacher"}
    for name, path in names.items():
        if (path / "model.safetensors").exists():
            models[name] = _open(path, facts["kind"], teacher)
    unigram = _unigram(source, teacher.identity["vocab_size"])
    ui.note(f"evaluate: {len(held_out)} held-out completions")
    rationale = recipe.train.rationale if recipe.train else None
    step_by_step = rationale if rationale and rationale.mode == "step_by_step" else None
    taught = _taught(facts, source, teacher)
    kl, agree, nll, far, bins = _compare(teacher, models, unigram, held_out, ui, taught, step_by_step)
    tokens_R = np.array([len(r.token_ids or ()) for r in held_out])
    clusters = [r.seed_id for r in held_out]
    table: dict[str, dict[str, Any]] = {}
    for name in kl:
        table[name] = {
            "kl": interval(kl[name], tokens_R, clusters, section.seed),
            "agreement": interval(agree[name], tokens_R, clusters, section.seed) if name in agree else None,
            "nll": interval(nll[name], tokens_R, clusters, section.seed),
            "perplexity": float(np.exp(nll[name].sum() / tokens_R.sum())),
            "calibration": calibration(bins[name], clusters, section.seed),
        }
        if taught:
            table[name]["from targets"] = interval(far[name], tokens_R, clusters, section.seed)
    answers, prompts = _answers(recipe, teacher, models, folder, held_out, ui)
    for name, found in answers.items():
        table.setdefault(name, {}).update(found)
    comparisons = {
        f"{a} − {b}": interval(kl[a] - kl[b], tokens_R, clusters, section.seed)
        for a, b in (("distilled", "cross-entropy"), ("distilled", "unigram"), ("cross-entropy", "unigram"))
        if a in kl and b in kl
    }
    return {
        "rows": len(held_out),
        "tokens": int(tokens_R.sum()),
        "seeds": len(set(clusters)),
        "prompts answered": prompts,
        "bootstrap": {"resamples": RESAMPLES, "seed": section.seed, "unit": "held-out seed", "interval": 0.95},
        **({"learned from": facts["learned from"]} if "learned from" in facts else {}),
        "table": table,
        "kl differences": comparisons,
        "slices": _slices(kl, tokens_R, held_out, section.seed),
    }


def _slices(kl: dict[str, Array], tokens_R: Array, held_out: list[Record], seed: int) -> dict[str, Any]:
    """KL of each student in each part of the rows."""
    found = {}
    for name, some in slices(held_out).items():
        clusters = [held_out[n].seed_id for n in some]
        shown = [model for model in ("distilled", "cross-entropy") if model in kl]
        spread = {model: interval(kl[model][some], tokens_R[some], clusters, seed) for model in shown}
        found[name] = {"rows": len(some), "tokens": int(tokens_R[some].sum()), "kl": spread}
    return found


def _taught(facts: dict[str, Any], source: Path, teacher: LocalModel) -> TrainingSet | None:
    """Held-out rows with the targets that a student of an ensemble, or of another teacher than the first, learned by."""
    if "ensemble" not in facts and "teacher" not in facts:
        return None
    merge = Merge.again(facts["ensemble"]) if "ensemble" in facts else None
    return load(source, teacher.render, 1 << 30, "test", merge.names if merge else (facts["teacher"],), merge)


def _untrained(recipe: Recipe, teacher: LocalModel) -> Any:
    assert recipe.train is not None
    assert recipe.train.student.kind in ("decoder", "seq2seq")
    return student_of(recipe.train.student, teacher, recipe.train.seed).model


def _open(folder: Path, kind: str, teacher: LocalModel) -> Any:
    if kind == "seq2seq":
        return Seq2SeqModel.open(folder, teacher.batch_size, teacher.model.device)
    where = teacher.model.device.type  # where the teacher is, for their logits are compared
    section = {"model": str(folder.resolve()), "batch_size": teacher.batch_size, "device": where}
    return LocalModel.open(TeacherSection.model_validate(section))


def _wrap(model: Any, teacher: LocalModel) -> Any:
    if model.config.is_encoder_decoder:
        return Seq2SeqModel(model.eval().to(teacher.model.device), teacher.tokenizer, teacher.batch_size)
    return LocalModel(model.eval().to(teacher.model.device), teacher.tokenizer, teacher.identity, teacher.batch_size)


def _unigram(source: Path, vocab_size: int) -> torch.Tensor:
    """Log-frequencies (V,) of the training completions' tokens, one added to each."""
    counts = np.ones(vocab_size)
    for record, _ in rows(source, "train"):
        np.add.at(counts, np.asarray(record.token_ids), 1)
    return torch.from_numpy(np.log(counts / counts.sum())).float()


@torch.inference_mode()
def _compare(
    teacher: LocalModel,
    models: dict[str, Any],
    unigram_V: torch.Tensor,
    held_out: list[Record],
    ui: UI,
    taught: TrainingSet | None = None,
    rationale: RationaleSection | None = None,
) -> tuple[dict[str, Array], ...]:
    """Sums over each row's tokens: KL(teacher ‖ model), agreements of the likeliest token, −log q(token), and how far
    the model is from the targets `taught`: KL of a top-k, cross-entropy of draws. And the bins of its calibration.

    The teacher is conditioned on the prompt it was sent, each student on the prompt a student sees (with `rationale`,
    the one that asks for it). "teacher, student's prompt" is the teacher conditioned like a student.
    """
    others: dict[str, Any] = {"teacher, student's prompt": teacher, **models}
    sums = {name: np.zeros((4, len(held_out))) for name in ("teacher", "unigram", *others)}
    bins = {name: np.zeros((len(held_out), BINS, 3)) for name in sums}
    targets = {e.id: target_batch([e.target], taught.meta) for e in taught.examples if e.target} if taught else {}
    meta = taught.meta if taught else {}

    def take(name: str, row: int, z_TV: torch.Tensor, logp_TV: torch.Tensor) -> None:
        tokens = list(held_out[row].token_ids or ())
        sums[name][:, row] = _row(z_TV, logp_TV, tokens, targets.get(held_out[row].id), meta)
        bins[name][row] = calibration_bins(z_TV, torch.tensor(tokens, device=z_TV.device))

    with ui.progress("evaluate", len(held_out), "rows") as bar:
        for begin in range(0, len(held_out), _CHUNK):
            chunk = held_out[begin : begin + _CHUNK]
            completions = [list(r.token_ids or ()) for r in chunk]
            teacher_rows = teacher.logprobs([list(r.prompt_token_ids or ()) for r in chunk], completions)
            asked = [teacher.render(explaining(r.prompt, rationale) if rationale else r.prompt) for r in chunk]
            for name, model in others.items():
                for row, z_TV in enumerate(completion_logits(model.model, asked, completions)):
                    take(name, begin + row, z_TV, teacher_rows[row])
            for row, logp_TV in enumerate(teacher_rows):
                take("teacher", begin + row, logp_TV, logp_TV)
                take("unigram", begin + row, unigram_V.to(logp_TV.device).expand_as(logp_TV), logp_TV)
            bar.advance(len(chunk))
    return *({name: s[i] for name, s in sums.items()} for i in range(4)), bins


def _row(
    z_TV: torch.Tensor,
    logp_TV: torch.Tensor,
    tokens: list[int],
    target: losses.Target | None,
    meta: dict[str, Any],
) -> list[float]:
    labels = torch.tensor(tokens, device=z_TV.device)
    far = 0.0
    if target is not None:
        t, size = float(meta["temperature"]), min(meta["vocab_size"], z_TV.shape[-1])
        target = losses.moved(target, z_TV.device)
        far = float(losses.divergence(z_TV, target, temperature=t, vocabulary=size).double().sum()) / t**2
    return [
        float(losses.kl_full(z_TV, logp_TV).double().sum()),
        float((z_TV.argmax(-1) == logp_TV.argmax(-1)).sum()),
        float(losses.cross_entropy(z_TV, labels).double().sum()),
        far,
    ]


def _answers(
    recipe: Recipe,
    teacher: LocalModel,
    models: dict[str, Any],
    folder: Path,
    held_out: list[Record],
    ui: UI,
) -> tuple[dict[str, dict[str, Any]], int]:
    """Greedy answers to the held-out prompts: accuracy, speed, memory; and how many prompts there were.

    Teacher and distilled student answer in a process of their own, which gives peak memory; the other students
    share the distilled one's architecture.
    """
    section, rationale = recipe.evaluate, recipe.train.rationale if recipe.train else None
    local = local_teacher(recipe)
    first = list({r.seed_id: r for r in held_out}.values())[: section.max_prompts]
    ui.note(f"evaluate: {len(first)} prompts answered greedily by the teacher and each student")
    found: dict[str, dict[str, Any]] = {}
    apart = {
        "teacher": recipe.teacher,
        "distilled": TeacherSection(model=str(folder.resolve()), batch_size=local.batch_size, device=local.device),
    }
    for name in ("teacher", *models):
        asked = [_greedy(r, section, teacher_prompt=name == "teacher") for r in first]
        if name in apart:
            job = {"what": "sample", "teacher": apart[name].model_dump(mode="json")}
            if isinstance(models.get(name), Seq2SeqModel):
                job["what"] = "seq2seq"
            measured = measure({**job, "requests": [r._asdict() for r in asked]})
            texts = measured.pop("texts")
            found[name] = measured
        else:
            texts = [r.text for r in models[name].sample(asked, None)]
            found[name] = {}
        bare = name != "teacher" and rationale is not None and rationale.mode != "then_answer"
        marker = None if bare else recipe.generate.answer_marker  # such students answer without their reasons
        found[name]["accuracy"] = _accuracy(marker, first, texts, section.seed)
        found[name]["samples"] = [
            {"prompt": r.prompt[-1]["content"], "text": t} for r, t in list(zip(first, texts, strict=True))[:4]
        ]
    return found, len(first)


def _greedy(record: Record, section: EvaluateSection, teacher_prompt: bool) -> Request:
    messages = (record.teacher_prompt or record.prompt) if teacher_prompt else record.prompt
    sampling: Sampling = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": section.max_new_tokens}
    return Request("sample", messages, sampling, id=record.id)


def _accuracy(
    marker: str | None, records: Sequence[Record], texts: Sequence[str], seed: int
) -> dict[str, float] | None:
    """Share of right answers with its interval; None when the seeds have no references."""
    checked = [(r, t) for r, t in zip(records, texts, strict=True) if r.reference]
    if not checked:
        return None
    right = []
    for record, text in checked:
        answer = text.rpartition(marker)[2].strip().split("\n", 1)[0] if marker and marker in text else text
        right.append(float(matches_any(None if marker and marker not in text else answer, record.reference or [])))
    return interval(np.array(right), np.ones(len(right)), [r.seed_id for r, _ in checked], seed)
