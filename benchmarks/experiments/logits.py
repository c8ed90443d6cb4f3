"""Experiment: from which target does a student learn most: hard labels, whole distributions, draws or top-k?

    python benchmarks/experiments/logits.py            # then run tables.py for the tables

The task is language modeling on Python's standard library (python_code.py). All arms have the same student, windows,
number of steps and order of batches.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from harness import run, section_of, train
from python_code import (
    BATCH,
    PROMPT,
    STEPS,
    VOCABULARY,
    batches,
    distributions,
    examples,
    scores,
    student,
    teacher,
    texts,
    windows,
)

from distill.targets.live import LiveTeacher, key
from distill.targets.stored import FromStored
from synthgen import logits
from synthgen.lm.sampling import invert, top_k

KEPT, DRAWS = 13, 50  # a top-k with 13 ids takes as many bytes for each token as 50 draws
ARMS = ("hard", "samples", "full", "sampled", "top-k", "top-k-renormalized")


@functools.cache
def stored(kind: str, size: int) -> tuple[list[Any], dict[str, Any], float]:
    """Returns (targets read back from Parquet, the metadata of the logits file, bytes a token)."""
    spec = logits.LogitsSpec(kind, **({"k": size} if kind == "topk" else {"draws": size}))
    meta = logits.meta(spec, VOCABULARY, "teacher", "tokenizer")
    targets: list[Any] = []
    for n, logp in enumerate(distributions(0, "student")):
        if kind == "topk":
            targets.append(logits.TopK(*(part.numpy() for part in top_k(logp, size, 1.0))))
        else:
            u = np.random.Generator(np.random.Philox(key=int(key(n, size), 16))).random((len(logp), size))
            draws = invert(logp.exp().double().cumsum(-1), torch.from_numpy(u))
            targets.append(logits.count_draws(draws.to(torch.int32).numpy()))
    ids = [str(n) for n in range(len(targets))]
    table = logits.to_table(ids, [b"\0" * 16] * len(ids), targets, meta)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(table, path, compression="zstd")
        shard = logits.read(path)
        return [shard.target(n) for n in range(len(ids))], shard.meta, path.stat().st_size / (len(ids) * 56)


def renormalized(targets: list[Any]) -> list[Any]:
    """Top-k targets scaled to sum to one, without residual mass, as other tools store them.

    The package never stores top-k in this way. This function is only for comparison.
    """
    scaled = []
    for t in targets:
        log_mass = np.log(np.exp(t.logprobs.astype(np.float64)).sum(-1, keepdims=True))
        scaled.append(
            logits.TopK(t.ids, (t.logprobs - log_mass).astype(np.float32), np.full_like(t.log_tail, -np.inf), t.log_z)
        )
    return scaled


def hard_texts() -> list[Any]:
    return texts(windows()["student"])


@functools.cache
def written() -> list[Any]:
    """The student's windows, with all tokens after the prompt replaced by tokens that the teacher wrote."""
    prompts = [w[:PROMPT] for w in windows()["student"]]
    replies = teacher(0).complete(prompts, [key(7, n) for n in range(len(prompts))], 1.0, 56)
    return texts([[*p, *r.tokens] for p, r in zip(prompts, replies, strict=True)])


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    model, section, bytes_ = student(seed), section_of(STEPS, BATCH, seed), 2.0
    rows: list[Any]
    objective: Any
    if arm in ("hard", "samples"):
        rows = hard_texts() if arm == "hard" else written()
        objective = FromStored(model, section)
    elif arm == "full":
        rows, bytes_ = hard_texts(), 2.0 * VOCABULARY
        live = section_of(STEPS, BATCH, seed, online={"mode": "teacher"})
        objective = LiveTeacher(model, teacher(0), live)
    else:
        targets, meta, bytes_ = stored("sampled", DRAWS) if arm == "sampled" else stored("topk", KEPT)
        if arm == "top-k-renormalized":
            targets = renormalized(targets)
        rows, objective = examples(targets), FromStored(model, section, meta)
    training = train(objective, batches(rows, seed), section)
    return {**scores(model), "bytes_per_token": round(bytes_, 1), "training": training}


if __name__ == "__main__":
    run("logits", ARMS, arm_of)
