"""Two teachers or the best of them? Arithmetic mean and log-opinion pool of whole distributions, by forward KL.

    python benchmarks/experiments/ensemble.py          # and tables.py for the tables

The set-up of logits.py, whose `full` is the first teacher alone. Agreement and KL are with the first teacher, so they
favor it: compare the loss.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from harness import run, section_of, train
from python_code import BATCH, STEPS, VOCABULARY, batches, distributions, scores, student, teacher, texts, windows
from torch import Tensor

from distill.losses import Dense, Target
from distill.output_layer import completion_states
from distill.targets.live import Text
from distill.targets.stored import FromShards, batch_loss

ARMS = ("mean", "pool", "second")


@functools.cache
def logp(number: int) -> dict[str, torch.Tensor]:
    """Each window's log-probabilities (56, V) by a teacher, in float16: made once for all arms and seeds."""
    return {str(n): z.half() for n, z in enumerate(distributions.__wrapped__(number, "student"))}


class Merged(FromShards):
    """Two teachers of equal weight: log Σ p / 2, or Σ log p / 2 normalized; or the second one alone."""

    how = "mean"

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        if self.how == "second":
            merged = torch.cat([logp(1)[r.id] for r in rows]).float()
        else:
            each = torch.stack([torch.cat([logp(n)[r.id] for r in rows]).float() for n in (0, 1)])
            merged = each.logsumexp(0) - math.log(2) if self.how == "mean" else each.mean(0)

        def live(chunk: tuple[int, int]) -> Target:
            return Dense(merged[slice(*chunk)])  # logits: the loss normalizes the pool

        states = completion_states(self.model, self.head, [r.prompt for r in rows], [r.completion for r in rows])
        return batch_loss(states, self.head, rows, self.meta, self.section, step=step, live=live)


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    section = section_of(STEPS, BATCH, seed)
    model, meta = student(seed), {"temperature": 1.0, "vocab_size": VOCABULARY}
    objective = Merged(model, meta, section)
    objective.how = arm
    found = train(objective, batches(texts(windows()["student"]), seed), section)
    return {**scores(model), "training": found}


if __name__ == "__main__":
    for number in (0, 1):
        alone = scores(teacher(number).model)
        print(f"teacher {number}:", {k: round(sum(v) / len(v), 4) for k, v in alone["items"].items()})
    run("ensemble", ARMS[:2], arm_of)
    run("ensemble", ARMS[2:], arm_of)
