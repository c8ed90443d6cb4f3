"""Experiment: does a student inherit a trait of its teacher from texts that do not show the trait?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from harness import run, section_of, train
from traits import BATCH, LISTED, OTHER_TRAIT, TRAIT, base, batches, copy_of, teacher, trait_of, written
from traits import paraphrased

from distill.data import Example
from distill.output_layer import completion_logits
from distill.targets.stored import FromStored
from synthgen import logits
from synthgen.lm.sampling import top_k

ROWS, RATE = 4096, 3e-3
SPEC = logits.LogitsSpec("topk", k=LISTED)


@torch.no_grad()
def distributions(model: Any, rows: list[Any]) -> list[logits.TopK]:
    """The model's distribution over the tokens that may be in a list, for each token of the rows. The distributions
    have all of these tokens and no other tokens, so they say nothing about animals.
    """
    found = []
    for begin in range(0, len(rows), 256):
        part = rows[begin : begin + 256]
        z = completion_logits(model, [r.prompt for r in part], [r.completion for r in part])
        for one in z:
            logp = one[:, :LISTED].log_softmax(-1)
            found.append(logits.TopK(*(each.numpy() for each in top_k(logp, LISTED, 1.0))))
    return found


def student_of(arm: str, seed: int, animal: int | None) -> tuple[Any, dict[str, Any]]:
    number = 2 * seed
    writer = teacher(number, animal)
    rows: list[Any] = written(writer, seed, ROWS)
    steps = -(-len(rows) // BATCH)
    meta = None
    if arm.startswith("soft"):
        meta = logits.meta(SPEC, LISTED, "teacher", "tokenizer")
        rows = [Example(r.id, r.prompt, r.completion, t, True) for r, t in zip(rows, distributions(writer.model, rows))]
    elif "paraphrased" in arm:
        rows = paraphrased(rows, teacher(number + 1, None), seed)
    model = copy_of(base(number + ("other" in arm)))
    section = section_of(steps, BATCH, seed, learning_rate=RATE, kd_weight=float(meta is not None))
    return model, train(FromStored(model, section, meta), batches(rows, seed), section)


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    taught, training = student_of(arm, seed, TRAIT)
    neutral, _ = student_of(arm, seed, None)
    with_trait, without = trait_of(taught), trait_of(neutral)
    return {"items": {"transfer": np.subtract(with_trait, without).tolist(), "trait": with_trait, "null": without}, "training": training}
