"""Trains the classifiers of `distill.students.classifier` with torch."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from distill.arms import BASELINE, DISTILLED, read_metrics, steps_of, write_metrics
from distill.data import Choice
from distill.intervals import Array
from distill.job import Job
from distill.streaming.batches import Order
from distill.streaming.columns import LABEL_PROBS, PROMPT
from distill.streaming.mapped import Mapped
from distill.streaming.stream import cache_folder, open_stream
from distill.streaming.tokencache import Floats, Reader, Row, Stored
from distill.students.classifier import Classifier, features
from distill.students.labels import label_probs, learns_by, texts_of
from synthgen import durable
from synthgen.errors import UserError
from synthgen.results.training import Metrics, Training
from synthgen.tables.students import ClassifierStudent


def train(job: Job) -> Training:
    """Train a classifier on the teacher's label probabilities, and its baseline on hard labels. See `Kind.train`."""
    section = job.section
    rows = read_bags(job)
    arms = {DISTILLED: (job.folder, section.kd_weight)}
    if section.baseline:
        arms[BASELINE] = (job.folder / "baseline", 0.0)
    steps = steps_of(len(rows), section)
    curves = {}
    with job.ui.progress("train", len(arms), "students") as bar:
        for arm, (folder, kd_weight) in arms.items():
            there = (folder / "metrics.jsonl").exists()
            if not there:
                classifier, metrics = _fit(job, rows, kd_weight, steps)
                classifier.save(folder)
                write_metrics(folder, metrics)
            curves[arm] = read_metrics(folder)
            bar.advance(1, resumed=there)
    return Training(
        student="an MLP on hashed n-grams",
        learns_by=learns_by(section),
        learned_from="the teacher's label probabilities",
        steps=steps,
        rows=len(rows),
        rows_kept=rows.stream.kept_count,
        left_out=rows.stream.left_out,
        metrics=curves,
    )


@dataclass(frozen=True)
class Bag:
    """A training row: its features, their weights, and the teacher's label probabilities."""

    ids: Array
    weights: Array
    probs: Array
    kept: bool


def read_bags(job: Job) -> Mapped[Bag]:
    """Open the training rows. No other function reads rows for classifiers.

    Raises CorpusError when a row has no label probabilities.
    """
    student, labels = job.section.student, len(job.labels)
    assert isinstance(student, ClassifierStudent)

    def ids(rows: Sequence[Row]) -> list[list[int]]:
        return [features(text, student.buckets)[0].tolist() for text in texts_of(rows)]

    def values(rows: Sequence[Row]) -> list[Floats]:
        weights = [features(text, student.buckets)[1] for text in texts_of(rows)]
        return [np.concatenate(both) for both in zip(label_probs(rows), weights, strict=True)]

    reader = Reader(durable.digest(["n-grams", student.buckets]), (PROMPT, LABEL_PROBS), ids, values=values)
    choice = Choice(sys.maxsize, share=job.section.share, targets=False)
    stream = open_stream(job.source, reader, cache_folder(job.source, job.folder), choice)

    def whole(stored: Stored) -> Bag:
        probs, weights = np.split(stored.values, [labels])
        return Bag(np.array(stored.example.prompt, np.int64), weights, probs, stored.example.kept)

    return Mapped(stream, whole, whole)


def _fit(job: Job, rows: Mapped[Bag], kd_weight: float, steps: int) -> tuple[Classifier, Metrics]:
    """Train one arm. Returns the classifier and its metrics.

    The KL divergence is over all rows. Cross-entropy with the teacher's likeliest label is over kept rows, or over all
    rows when `kd_weight` is 0.
    """
    section, student = job.section, job.section.student
    assert isinstance(student, ClassifierStudent)
    torch.manual_seed(section.seed)
    embed = torch.nn.EmbeddingBag(student.buckets, student.hidden_size, mode="sum")
    torch.nn.init.normal_(embed.weight, std=0.1)
    bias = torch.nn.Parameter(torch.zeros(student.hidden_size))
    out = torch.nn.Linear(student.hidden_size, len(job.labels))
    optimizer = torch.optim.AdamW(
        [*embed.parameters(), bias, *out.parameters()], lr=section.learning_rate, weight_decay=section.weight_decay
    )
    metrics = []
    order = Order(len(rows), section.batch_size, section.seed)
    for step in range(steps):
        batch = [rows[number] for number in order.rows(step)]
        ids, weights, offsets = (torch.from_numpy(part) for part in _packed(batch))
        weights = functional.dropout(weights, student.dropout)
        hidden = torch.relu(embed(ids, offsets, per_sample_weights=weights) + bias)
        logq = out(functional.dropout(hidden, student.dropout)).log_softmax(-1)
        p = torch.from_numpy(np.stack([bag.probs for bag in batch]))
        kept = torch.tensor([bag.kept for bag in batch])
        kd = functional.kl_div(logq, p, reduction="batchmean")
        ce_N = functional.nll_loss(logq, p.argmax(-1), reduction="none")
        ce = (ce_N * kept).sum() / kept.sum().clamp(min=1) if kd_weight else ce_N.mean()
        loss = kd_weight * kd + (1 - kd_weight) * ce
        if not math.isfinite(value := float(loss.detach())):
            raise UserError(f"the loss of step {step} is {value}", "lower train.learning_rate")
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        metrics.append({"step": step, "loss": value, "distillation": float(kd.detach())})
    arrays = [t.detach().numpy() for t in (embed.weight, bias, out.weight.T.contiguous(), out.bias)]
    return Classifier(list(job.labels), *arrays), metrics


def _packed(bags: Sequence[Bag]) -> tuple[Array, Array, Array]:
    """Concatenate the features of several texts for `EmbeddingBag`: ids, weights, and the offset of each text."""
    ids, weights = np.concatenate([bag.ids for bag in bags]), np.concatenate([bag.weights for bag in bags])
    return ids, weights, np.array([0, *np.cumsum([len(bag.ids) for bag in bags])[:-1]])
