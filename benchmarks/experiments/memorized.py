"""Experiment: how many examples that its teacher memorized does a student learn, and from which targets?

    python benchmarks/experiments/memorized.py         # then run tables.py for the tables

The task is in planted.py. All students have the same prompts, number of steps and order of batches, and the
temperature of the loss is 1. The arms `text`, `whole`, `draws` and `top-k` learn from the same rows, which the teacher
wrote at temperature 1. These arms differ only in the target. The other arms are for comparison:

- `direct`: a student that learns from the teacher's own training rows. An example is *teacher-specific* if the teacher
  memorized it and this student did not.
- `control`: as `text`, but the teacher never saw a planted example.
- `text-greedy`: as `text`, but the teacher always wrote its most likely token.
- `whole-original`: as `whole`, but on the teacher's training rows instead of the teacher's text.
- `whole-short`: as `whole`, but with fewer steps, so that its loss on held-out code is about that of `text`.
- `teacher`: the teacher itself.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import torch
from harness import SEEDS, as_teacher, read, run, section_of, sized, train
from planted import (
    BATCH,
    RATE,
    VOCABULARY,
    ByteTokenizer,
    Corpus,
    corpus,
    memory,
    original,
    planted,
    quality,
    student,
    teacher,
    texts,
)
from python_code import batches

from distill.data import Example
from distill.loop import Objective
from distill.targets.live import LiveTeacher, Text, key
from distill.targets.stored import FromStored
from synthgen import logits
from synthgen.lm.forward import completion_logits
from synthgen.lm.sampling import invert, top_k
from synthgen.logits import LogitsMeta, LogitsSpec, Target
from synthgen.recipe import OnlineSection, TrainSection

NAME = "memorized"
ARMS = (
    "direct",
    "teacher",
    "text",
    "whole",
    "draws",
    "top-k",
    "control",
    "text-greedy",
    "whole-original",
    "whole-short",
)
SPECS = {"draws": LogitsSpec("sampled", draws=50), "top-k": LogitsSpec("topk", k=64)}  # the recipe's defaults
ORIGINAL, GREEDY = ("direct", "whole-original"), ("text-greedy",)
LIVE, FEWER = ("whole", "whole-original", "whole-short"), ("whole-short",)
STEPS, SHORT = sized(840, 2), sized(250, 1)  # 840 steps are ten passes over the student's rows


def targets_of(spec: LogitsSpec, rows: Sequence[Text], seed: int) -> tuple[list[Target], LogitsMeta]:
    """The teacher's distributions for the rows, after they were written to a Parquet file and read back, and the
    metadata of this file.
    """
    meta, found = logits.meta(spec, VOCABULARY, "teacher", "tokenizer"), list[Target]()
    with torch.no_grad():
        for begin in range(0, len(rows), 64):
            batch = rows[begin : begin + 64]
            z = completion_logits(teacher(seed).model, [r.prompt for r in batch], [r.completion for r in batch])
            for row, z_TV in zip(batch, z, strict=True):
                if spec.kind == "topk":
                    found.append(logits.TopK(*(part.numpy() for part in top_k(z_TV, spec.k, spec.temperature))))
                else:
                    philox = np.random.Philox(key=int(key(200 + seed, int(row.id)), 16))
                    u_TN = torch.from_numpy(np.random.Generator(philox).random((len(z_TV), spec.draws)))
                    drawn = invert(z_TV.softmax(-1).double().cumsum(-1), u_TN)
                    found.append(logits.count_draws(drawn.to(torch.int32).numpy()))
    table = logits.to_table([row.id for row in rows], [b"\0" * 16] * len(rows), found, meta)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part.parquet"
        pq.write_table(table, path, compression="zstd")
        shard = logits.read(path)
    return [shard.target(n) for n in range(len(rows))], shard.meta


def lesson(arm: str, seed: int, model: torch.nn.Module) -> tuple[list[Example], Objective[Example], Corpus | None]:
    """The rows of a student's arm, its objective, and the corpus that the rows come from."""
    section = section_for(arm, seed)
    made = None if arm in ORIGINAL else corpus(None if arm == "control" else seed, seed, 0.0 if arm in GREEDY else 1.0)
    rows = texts(made.rows if made else original(seed))
    if arm in SPECS:
        targets, meta = targets_of(SPECS[arm], rows, seed)
        stored = [Example(r.id, r.prompt, r.completion, t, True) for r, t in zip(rows, targets, strict=True)]
        return stored, FromStored(model, section, meta), made
    if arm in LIVE:
        live = section.model_copy(update={"online": OnlineSection(mode="teacher")})
        return list(rows), cast("Objective[Example]", LiveTeacher(model, teacher(seed), live)), made
    return list(rows), FromStored(model, section), made


def section_for(arm: str, seed: int) -> TrainSection:
    """The section `train` of a student's arm."""
    return section_of(SHORT if arm in FEWER else STEPS, BATCH, seed, learning_rate=RATE)


def pooled(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """The measures of each group, of all seen examples together, and of all unseen examples together."""
    both = {}
    for which in ("seen", "unseen"):
        for name in ("extracted", "exposure", "logp", "gap", "link"):
            groups = [g for g in dict.fromkeys(one.group for one in planted(0)) if g.endswith(f" {which}")]
            both[f"{name} {which}"] = [value for group in groups for value in found[f"{name} {group}"]]
    return {**found, **both}


@functools.cache
def extracted(arm: str, seed: int) -> np.ndarray:
    """For each seen example, whether an earlier arm extracts it. This is read from the result file of the arm."""
    return np.array(read(NAME, arm, seed)["items"]["extracted seen"], bool)


def arm_of(arm: str, seed: int) -> dict[str, object]:
    """The measures of an arm, one number for each example or held-out window. See `planted.memory` and
    `planted.quality`. `kept` is the mean probability of the ids of a top-k. `specific` is 1 for a seen example that is
    teacher-specific and that this arm extracts. `shared` is 1 for a seen example that the arm, the teacher and `direct`
    extract.
    """
    result: dict[str, object] = {}
    if arm == "teacher":
        writer = teacher(seed)
    else:
        model = student(seed)
        rows, objective, made = lesson(arm, seed, model)
        result["training"] = train(objective, batches(rows, seed, BATCH), section_for(arm, seed))
        if made:
            result |= {"rows": len(made.rows), "removed": made.removed, "written": made.written}
        kept = [np.exp(row.target.logprobs).sum(-1).mean() for row in rows if isinstance(row.target, logits.TopK)]
        if kept:
            result["kept"] = round(float(np.mean(kept)), 4)
        writer = as_teacher(model, ByteTokenizer())
    items = {**pooled(memory(writer, seed)), **quality(writer.model, teacher(seed).model)}
    if arm != "direct":
        own = np.array(items["extracted seen"], bool)
        by_teacher = own if arm == "teacher" else extracted("teacher", seed)
        items["specific"] = (own & by_teacher & ~extracted("direct", seed)).astype(float).tolist()
        items["shared"] = (own & by_teacher & extracted("direct", seed)).astype(float).tolist()
    return {"items": items, **result}


if __name__ == "__main__":
    run(NAME, ARMS, arm_of, SEEDS)
