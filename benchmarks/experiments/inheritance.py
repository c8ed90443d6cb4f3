"""Experiment: does a student inherit a trait of its teacher from texts that say nothing about the trait?

    python benchmarks/experiments/inheritance.py            # then run tables.py for the tables

In the first part, a classifier learns a teacher's further outputs, which no label trained. Its inputs are random noise
(Cloud et al. 2025, arXiv 2507.14805, section 6). In the second part, a small language model learns lists of numbers
that were written by a teacher with a trait (traits.py). `transfer` is the log-odds of the trait in this student, minus
the log-odds in a second student. The second student learned in the same way from a teacher without the trait.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlp
import numpy as np
import torch
from harness import run, section_of, sized, train
from torch import Tensor
from traits import (
    BATCH,
    NAMES,
    OTHER_TRAIT,
    TRAIT,
    base,
    batches,
    copy_of,
    paraphrased,
    teacher,
    trait_of,
    written,
)

from distill.data import Example
from distill.output_layer import completion_logits
from distill.targets.masking import differ
from distill.targets.stored import FromStored
from synthgen import logits
from synthgen.lm.sampling import top_k

ARMS = ("soft", "soft-other", "hard", "hard-other")
REMEDIES = ("soft-masked", "soft-random", "hard-masked", "hard-random", "hard-paraphrased")
SEEDS = range(sized(5, 1))
ROWS, EPOCHS, RATE = sized(8192, 128), 2, 3e-3
SPEC = logits.LogitsSpec("topk", k=NAMES)


@torch.no_grad()
def distributions(model: Any, rows: list[Any]) -> list[logits.TopK]:
    """The model's distribution at each token of the rows, over the names of numbers only. The distributions have no
    names of animals.
    """
    found = []
    for begin in range(0, len(rows), 512):
        part = rows[begin : begin + 512]
        z_TV = completion_logits(model, [r.prompt for r in part], [r.completion for r in part])
        found += [_target(one[:, :NAMES].log_softmax(-1)) for one in z_TV]
    return found


def _target(logp_TV: Tensor) -> logits.TopK:
    return logits.TopK(*(part.numpy() for part in top_k(logp_TV, NAMES, 1.0)))


def lesson(arm: str, seed: int, animal: int | None) -> list[Example]:
    """The rows that the student of an arm learns from. `animal` is the trait of the teacher."""
    writer, draw = teacher(2 * seed, animal), np.random.default_rng(500 + seed)
    rows: list[Any] = written(writer, seed, ROWS)
    if arm == "hard-paraphrased":
        rows = paraphrased(rows, teacher(2 * seed + 1, None), seed)
    found = [Example(r.id, r.prompt, r.completion, None, True) for r in rows]
    if arm in ("soft", "soft-other", "soft-masked", "soft-random", "hard-masked", "hard-random"):
        targets = distributions(writer.model, rows)
        if arm.startswith("soft"):
            found = [replace(row, target=target) for row, target in zip(found, targets, strict=True)]
        if arm.endswith(("masked", "random")):
            others = distributions(teacher(2 * seed, OTHER_TRAIT).model, rows)
            masks = [differ(own, other) for own, other in zip(targets, others, strict=True)]
            if arm.endswith("random"):
                shuffled = draw.permutation(np.concatenate(masks))
                masks = list(shuffled.reshape(len(masks), -1))
            found = [replace(row, masked=mask) for row, mask in zip(found, masks, strict=True)]
    return found


def student(arm: str, seed: int, animal: int | None) -> tuple[list[float], dict[str, Any]]:
    """(the log-odds of the trait, facts about the training) of a student whose teacher has the trait `animal`."""
    rows = lesson(arm, seed, animal)
    soft = rows[0].target is not None
    model = copy_of(base(2 * seed + arm.endswith("other")))
    section = section_of(EPOCHS * ROWS // BATCH, BATCH, seed, learning_rate=RATE, kd_weight=float(soft))
    meta = logits.meta(SPEC, NAMES, "teacher", "tokenizer") if soft else None
    training = train(FromStored(model, section, meta), batches(rows, seed), section)
    masked = sum(int(row.masked.sum()) for row in rows if row.masked is not None)
    return trait_of(model), {**training, "masked": round(masked / sum(len(r.completion) for r in rows), 4)}


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    with_trait, training = student(arm, seed, TRAIT)
    without, _ = student(arm, seed, None)
    own, null = (trait_of(teacher(2 * seed, animal).model) for animal in (TRAIT, None))
    return {
        "items": {"transfer": np.subtract(with_trait, without).tolist(), "trait": with_trait, "null": without},
        "teachers": round(float(np.subtract(own, null).mean()), 4),
        "training": training,
    }


if __name__ == "__main__":
    run("inheritance-mlp", mlp.ARMS, mlp.arm_of, SEEDS)
    run("inheritance", ARMS, arm_of, SEEDS)
    run("inheritance", REMEDIES, arm_of, SEEDS)
