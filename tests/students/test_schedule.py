"""How a training goes on: the learning rate of each step, and when a training stops early."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from distill.loop import Checkpoints, Objective, _stale, accelerator_of, fit, schedule
from synthgen.recipe import TrainSection
from synthgen.ui import Progress


def test_the_learning_rate_rises_to_the_whole_and_falls_to_a_tenth():
    """The rise is a line, and the fall half a cosine, whose middle is the mean of its ends."""
    assert [schedule(step, 100, 4) for step in range(5)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])
    assert schedule(52, 100, 4) == pytest.approx(0.55)
    assert schedule(28, 100, 4) == pytest.approx(0.55 + 0.45 * math.sqrt(0.5))
    assert schedule(76, 100, 4) == pytest.approx(0.55 - 0.45 * math.sqrt(0.5))
    assert 0.1 < schedule(99, 100, 4) < 0.101
    falling = [schedule(step, 100, 4) for step in range(4, 100)]
    assert falling == sorted(falling, reverse=True)


def test_a_warm_up_below_1_is_a_share_of_the_steps():
    for share, steps in ((0.1, 10), (0.06, 6), (0.5, 50), (0.999, 100)):
        assert [schedule(n, 100, share) for n in range(100)] == [schedule(n, 100, steps) for n in range(100)]
    for first in (0.0, 0.001, 1.0):  # at least one step
        assert [schedule(n, 3, first) for n in range(3)] == pytest.approx([1.0, 1.0, 0.55])
    assert schedule(0, 1, 0) == 1.0, "a training of one step"
    assert schedule(5, 6, 9) == pytest.approx(6 / 9), "a training that ends while its rate rises"


@pytest.mark.parametrize(
    ("losses", "stale"),
    [([], 0), ([3.0], 0), ([3.0, 2.0], 0), ([2.0, 3.0], 1), ([2.0, 3.0, 2.5, 2.0], 3), ([3.0, 1.0, 2.0, 2.0], 2)],
)
def test_a_loss_that_is_not_lower_than_the_lowest_is_no_improvement(losses, stale):
    rows = [{"step": 2 * n + k, **({"validation": loss} if k else {})} for n, loss in enumerate(losses) for k in (0, 1)]
    assert _stale(rows) == stale


class _Square(Objective):
    """The square of the distance between a number and the row 2. The validation row 9 is far from it."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, 5.0)

    def forward(self, rows, step):
        loss = (self.model.weight - torch.tensor([float(row) for row in rows])).square().sum() / len(step)
        return loss, {"loss": float(loss.detach())}

    def tokens(self, rows):
        return len(rows)


@pytest.mark.parametrize(("patience", "validation", "stopped"), [(1, 2, 8), (1, 9, 6), (2, 9, 8), (None, 9, 8)])
def test_a_training_ends_after_as_many_measurements_without_improvement(tmp_path, patience, validation, stopped):
    """The number goes from 5 to 2, so each measurement is worse for the row 9, and better for the row 2."""
    section = TrainSection(eval_steps=3, early_stopping_patience=patience, learning_rate=0.1, warmup_steps=0)
    bar, objective = Progress("train", 8, "steps"), _Square()
    accelerator = accelerator_of(section, torch.device("cpu"), tmp_path)
    where = Checkpoints(tmp_path, "x")
    metrics = fit(objective, lambda step: [2], section, 8, where, bar, accelerator=accelerator, validation=[validation])
    assert [row["step"] for row in metrics] == list(range(stopped))
    assert [row["step"] for row in metrics if "validation" in row] == [n for n in (2, 5) if n < stopped]
    assert bar.done == 8, "steps that are not needed count as done"
    weight, measured = float(objective.model.weight), [row["validation"] for row in metrics if "validation" in row]
    best = min(measured) if patience else None
    assert best is None or (weight - validation) ** 2 == pytest.approx(best, rel=1e-4), "the best weights are kept"
