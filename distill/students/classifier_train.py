"""Trains the classifiers of `distill.students.classifier` with torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from distill.arms import BASELINE, DISTILLED, read_metrics, steps_of, write_metrics
from distill.data import batch_rows, rows
from distill.intervals import Array
from distill.job import Job
from distill.students.classifier import Classifier, features
from distill.students.labels import learns_by, prompt_text
from synthgen.errors import CorpusError
from synthgen.records import Record
from synthgen.results.training import Metrics, Training
from synthgen.tables.students import ClassifierStudent


def train(job: Job) -> Training:
    """Train a classifier on the teacher's label probabilities, and its baseline on hard labels. See `Kind.train`."""
    section = job.section
    records = _rows(job)
    arms = {DISTILLED: (job.folder, section.kd_weight)}
    if section.baseline:
        arms[BASELINE] = (job.folder / "baseline", 0.0)
    steps = steps_of(len(records), section)
    curves = {}
    with job.ui.progress("train", len(arms), "students") as bar:
        for arm, (folder, kd_weight) in arms.items():
            there = (folder / "metrics.jsonl").exists()
            if not there:
                classifier, metrics = _fit(job, records, kd_weight, steps)
                classifier.save(folder)
                write_metrics(folder, metrics)
            curves[arm] = read_metrics(folder)
            bar.advance(1, resumed=there)
    return Training(
        student="an MLP on hashed n-grams",
        learns_by=learns_by(section),
        learned_from="the teacher's label probabilities",
        steps=steps,
        rows=len(records),
        rows_kept=sum(kept for _, kept in records),
        metrics=curves,
    )


def _rows(job: Job) -> list[tuple[Record, bool]]:
    """Return (record, whether it counts as kept) for the training rows. Classifiers get their rows only from here.

    Raises CorpusError when a row has no label probabilities.
    """
    records = rows(job.source, "train", job.section.share)
    if not records or any(not record.label_probs for record, _ in records):
        raise CorpusError(f"{job.source} has no class probabilities to learn from", "generate with strategy: classify")
    return records


def _fit(job: Job, records: Sequence[tuple[Record, bool]], kd_weight: float, steps: int) -> tuple[Classifier, Metrics]:
    """Train one arm. Returns the classifier and its metrics.

    The KL divergence is over all rows. Cross-entropy with the teacher's likeliest label is over kept rows, or over all
    rows when `kd_weight` is 0.
    """
    section, student = job.section, job.section.student
    assert isinstance(student, ClassifierStudent)
    torch.manual_seed(section.seed)
    bags = [features(prompt_text(record), student.buckets) for record, _ in records]
    p_NL = torch.tensor(np.array([record.label_probs for record, _ in records], np.float32))
    kept_N = torch.tensor([kept for _, kept in records])
    embed = torch.nn.EmbeddingBag(student.buckets, student.hidden_size, mode="sum")
    torch.nn.init.normal_(embed.weight, std=0.1)
    bias = torch.nn.Parameter(torch.zeros(student.hidden_size))
    out = torch.nn.Linear(student.hidden_size, len(job.labels))
    optimizer = torch.optim.AdamW(
        [*embed.parameters(), bias, *out.parameters()], lr=section.learning_rate, weight_decay=section.weight_decay
    )
    metrics = []
    for step in range(steps):
        batch = batch_rows(step, len(records), section.batch_size, section.seed)
        ids, weights, offsets = (torch.from_numpy(part) for part in _packed([bags[i] for i in batch]))
        weights = functional.dropout(weights, student.dropout)
        hidden = torch.relu(embed(ids, offsets, per_sample_weights=weights) + bias)
        logq = out(functional.dropout(hidden, student.dropout)).log_softmax(-1)
        p, kept = p_NL[batch], kept_N[batch]
        kd = functional.kl_div(logq, p, reduction="batchmean")
        ce_N = functional.nll_loss(logq, p.argmax(-1), reduction="none")
        ce = (ce_N * kept).sum() / kept.sum().clamp(min=1) if kd_weight else ce_N.mean()
        loss = kd_weight * kd + (1 - kd_weight) * ce
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        metrics.append({"step": step, "loss": float(loss.detach()), "distillation": float(kd.detach())})
    arrays = [t.detach().numpy() for t in (embed.weight, bias, out.weight.T.contiguous(), out.bias)]
    return Classifier(list(job.labels), *arrays), metrics


def _packed(bags: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
    """Concatenate the features of several texts for `EmbeddingBag`: ids, weights, and the offset of each text."""
    ids, weights = (np.concatenate([bag[side] for bag in bags]) for side in (0, 1))
    return ids, weights, np.array([0, *np.cumsum([len(ids) for ids, _ in bags])[:-1]])
