"""Two teachers or the best of them? Arithmetic mean and log-opinion pool of whole distributions, by forward KL.

    python benchmarks/experiments/ensemble.py          # and tables.py for the tables

The set-up of logits.py, whose `full` is the first teacher alone. Agreement and KL are with the first teacher, so they
favour it: compare the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from harness import run, section_of, train
from python_code import BATCH, STEPS, batches, scores, student, teacher, texts, windows
from torch import Tensor

from distill.losses import Dense, Target
from distill.objective import batch_loss
from distill.online import LiveTeacher, Text
from synthgen.teachers.forward import completion_logits

ARMS = ("mean", "pool", "second")


class Merged(LiveTeacher):
    """Two live teachers of equal weight: log Σ p / 2, or Σ log p / 2 normalised."""

    how = "mean"

    def forward(self, rows: Sequence[Text], step: Sequence[Text]) -> tuple[Tensor, dict[str, float]]:
        prompts, completions = [r.prompt for r in rows], [r.completion for r in rows]
        with torch.no_grad():
            each = [torch.cat(completion_logits(teacher(n).model, prompts, completions)) for n in (0, 1)]
            logp = torch.stack([z.log_softmax(-1) for z in each])
            merged = logp.logsumexp(0) - math.log(2) if self.how == "mean" else logp.mean(0).log_softmax(-1)

        def live(chunk: tuple[int, int]) -> Target:
            return Dense(merged[slice(*chunk)])

        states = torch.cat(completion_logits(self.model, prompts, completions))
        return batch_loss(states, None, rows, self.meta, self.section, step=step, live=live)


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    model, section = student(seed), section_of(STEPS, BATCH, seed, online={"mode": "teacher"})
    if arm == "second":
        objective = LiveTeacher(model, teacher(1), section)
    else:
        objective = Merged(model, teacher(0), section)
        objective.how = arm
    found = train(objective, batches(texts(windows()["student"]), seed), section)
    return {**scores(model), "training": found}


if __name__ == "__main__":
    for number in (0, 1):
        alone = scores(teacher(number).model)
        print(f"teacher {number}:", {k: round(sum(v) / len(v), 4) for k, v in alone["items"].items()})
    run("ensemble", ARMS, arm_of)
