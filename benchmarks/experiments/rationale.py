"""Experiment: can a student learn a task from rationales but not from answers? The task: running parity of 12 bits.

    python benchmarks/experiments/rationale.py         # then run tables.py for the tables

Students begin with random weights.

- `answer`: the completion is the answer alone.
- `rationale`: the completion is the rationale and then the answer.
- `step-by-step`: there are two tasks, answer and rationale. Each task has a different prompt and half of the loss
  (arXiv 2305.02301). The student is tested with the prompt of the answer task.
- `rationale-shuffled`, `step-by-step-shuffled`: each string has its own answer and the rationale of another string.
  These arms have as many tokens as `rationale` and `step-by-step`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from harness import as_teacher, parameters, run, section_of, sized, train
from parity import ANSWER_TASK, ASK, END, EXPLAIN_TASK, BitTokenizer, answer, model, rationale, right, strings
from torch import Tensor

from distill.data import Example
from distill.output_layer import completion_states
from distill.streaming.batches import Order
from distill.targets.stored import FromStored, Rows, batch_loss

ARMS = ("answer", "rationale", "step-by-step", "rationale-shuffled", "step-by-step-shuffled")
BITS, TRAIN, TEST = 12, sized(2000, 96), sized(500, 8)
WIDTH, LAYERS = 64, 4
STEPS, BATCH = sized(300, 2), 48


class StepByStep(FromStored):
    """The loss of the two `step-by-step` arms: half of the mean loss over answer tokens plus half of the mean loss over
    rationale tokens.
    """

    def forward(self, rows: Sequence[Any], step: Sequence[Any]) -> tuple[Tensor, dict[str, float]]:
        total, parts = torch.zeros(()), {"loss": 0.0}
        for task in ("answer", "explain"):
            batch, task_step = ([r for r in part if r.id == task] for part in (rows, step))
            states = completion_states(self.model, self.head, [r.prompt for r in batch], [r.completion for r in batch])
            loss, metrics = batch_loss(states, self.head, Rows(batch, task_step), self.section, self.meta)
            total = total + 0.5 * loss
            parts |= {task: metrics["loss"], "loss": parts["loss"] + 0.5 * metrics["loss"]}
        return total, parts


def rows_of(arm: str, seed: int) -> list[list[Example]]:
    """For each training string, its texts: one text, or two texts if the arm has two tasks."""
    bits = strings(BITS, TRAIN, TEST)[0]
    whose = list(range(len(bits)))
    if arm.endswith("shuffled"):
        order = np.random.default_rng(seed).permutation(len(bits))
        # Each string gets the rationale of the next string in a random cycle.
        whose = [int(order[(list(order).index(i) + 1) % len(order)]) for i in whose]
    examples = []
    for b, other in zip(bits, whose, strict=True):
        why = rationale(bits[other])
        if arm == "answer":
            texts = [("answer", [*b, ASK], [answer(b), END])]
        elif arm.startswith("rationale"):
            texts = [("both", [*b, ASK], [*why, answer(b), END])]
        else:
            texts = [
                ("answer", [ANSWER_TASK, *b, ASK], [answer(b), END]),
                ("explain", [EXPLAIN_TASK, *b, ASK], [*why, END]),
            ]
        examples.append([Example(task, prompt, text, None, True) for task, prompt, text in texts])
    return examples


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    student, section = model(WIDTH, LAYERS, seed), section_of(STEPS, BATCH, seed, learning_rate=2e-3)
    rows = rows_of(arm, seed)
    kind = StepByStep if arm.startswith("step") else FromStored

    def batch_of(step: int) -> list[Example]:
        return [text for i in Order(len(rows), BATCH, seed).rows(step) for text in rows[i]]

    training = train(kind(student, section), batch_of, section)
    bits = strings(BITS, TRAIN, TEST)[1]
    asked = [[*([ANSWER_TASK] if arm.startswith("step") else []), *b, ASK] for b in bits]
    items = right(as_teacher(student, BitTokenizer(), 500), asked, bits, BITS + 4)
    return {"items": items, "parameters": parameters(student), "training": training}


if __name__ == "__main__":
    run("rationale", ARMS, arm_of)
