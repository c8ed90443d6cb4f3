"""Experiment: does a student learn more from two teachers than from the better of the two?

    python benchmarks/experiments/ensemble.py          # then run tables.py for the tables

The distributions of two teachers are merged over the whole vocabulary, by arithmetic mean or by log-opinion pool. The
students learn by forward KL. Student, windows and number of steps are those of the experiment in logits.py. In the arm
`full` of logits.py, the student learns from the first teacher alone. Agreement and KL are measured against the first
teacher, so they favor the arm `full`. So arms should be compared only by their losses.
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
from distill.targets.stored import FromStored, Rows, batch_loss

ARMS = ("mean", "pool", "second")


@functools.cache
def logp(number: int) -> dict[str, torch.Tensor]:
    """A teacher's log-probabilities (56, V) for each window, in float16. The result is kept for all arms and seeds."""
    return {str(n): z.half() for n, z in enumerate(distributions.__wrapped__(number, "student"))}


class Merged(FromStored):
    """Targets from two teachers with equal weights.

    `how` is "mean" (log Σ p / 2), "pool" (Σ log p / 2, normalized by the loss) or "second" (the second teacher alone).
    """

    how = "mean"

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        if self.how == "second":
            merged = torch.cat([logp(1)[r.id] for r in rows]).float()
        else:
            each = torch.stack([torch.cat([logp(n)[r.id] for r in rows]).float() for n in (0, 1)])
            merged = each.logsumexp(0) - math.log(2) if self.how == "mean" else each.mean(0)

        def live(chunk: tuple[int, int]) -> Target:
            return Dense(merged[slice(*chunk)])  # the loss treats the merged values as logits and normalizes them

        states = completion_states(self.model, self.head, [r.prompt for r in rows], [r.completion for r in rows])
        return batch_loss(states, self.head, Rows(rows, step), self.section, self.meta, live)


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    section = section_of(STEPS, BATCH, seed)
    model, meta = student(seed), {"temperature": 1.0, "vocab_size": VOCABULARY}
    objective = Merged(model, section, meta)
    objective.how = arm
    training = train(objective, batches(texts(windows()["student"]), seed), section)
    return {**scores(model), "training": training}


if __name__ == "__main__":
    for number in (0, 1):
        alone = scores(teacher(number).model)
        print(f"teacher {number}:", {k: round(sum(v) / len(v), 4) for k, v in alone["items"].items()})
    run("ensemble", ARMS[:2], arm_of)
    run("ensemble", ARMS[2:], arm_of)
