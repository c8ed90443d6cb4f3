"""The first part of the experiment `inheritance`: a classifier that learns only outputs that no label trained.

The setting is that of Cloud et al. 2025 (arXiv 2507.14805, section 6), with an artificial task instead of digits. The
network has ten outputs for the classes and three further outputs. Labels train only the ten outputs of the teacher. The
student never sees labels or inputs of the task. It gets noise as inputs, and learns only the teacher's three further
outputs. Its accuracy is that of its ten outputs, although no loss was computed on them.

- `shared`: the student begins with the weights with which the teacher began.
- `other`: the student begins with other random weights.
- `null`: the student begins with the teacher's first weights, and the teacher learned shuffled labels.
- `untrained`: the student of `shared` before training.
"""

from __future__ import annotations

import copy
import functools
import time
from typing import Any

import numpy as np
import torch
from harness import sized
from torch import Tensor, nn
from torch.nn import functional

ARMS = ("untrained", "shared", "other", "null")
CLASSES, FURTHER, INPUTS, WIDTH = 10, 3, 64, 256
TRAIN, TEST, NOISE = sized(4000, 256), sized(1000, 32), sized(20_000, 256)
BATCH, RATE, TEACHER_EPOCHS, STUDENT_EPOCHS = 128, 1e-3, 8, 8


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(INPUTS, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES + FURTHER)
    )


@functools.cache
def task() -> tuple[Tensor, Tensor]:
    """Inputs (N, 64) and classes (N,). Each class is a mixture of three clusters. The last `TEST` rows are held out."""
    draw = np.random.default_rng(0)
    centers = draw.normal(0, 1, (CLASSES, 3, INPUTS))
    classes, cluster = draw.integers(0, CLASSES, TRAIN + TEST), draw.integers(0, 3, TRAIN + TEST)
    inputs = centers[classes, cluster] + draw.normal(0, 1, (TRAIN + TEST, INPUTS))
    return torch.from_numpy(inputs).float(), torch.from_numpy(classes)


def fit(model: nn.Module, inputs: Tensor, loss_of: Any, epochs: int, seed: int) -> None:
    optimizer, draw = torch.optim.Adam(model.parameters(), RATE), np.random.default_rng(seed)
    for _ in range(epochs):
        for rows in np.array_split(draw.permutation(len(inputs)), len(inputs) // BATCH):
            optimizer.zero_grad()
            loss_of(model(inputs[rows]), rows).backward()
            optimizer.step()


@functools.cache
def teacher(seed: int, shuffled: bool) -> nn.Module:
    """The teacher of a random seed. It was trained on the classes, or on shuffled classes."""
    inputs, classes = (part[:TRAIN] for part in task())
    if shuffled:
        classes = classes[torch.from_numpy(np.random.default_rng(seed).permutation(TRAIN))]
    model = network(seed)
    fit(
        model,
        inputs,
        lambda z, rows: functional.cross_entropy(z[:, :CLASSES], classes[rows]),
        TEACHER_EPOCHS,
        seed,
    )
    return model


def right(model: nn.Module) -> list[float]:
    """For each held-out input: 1 if the largest of the ten outputs is that of its class, else 0."""
    inputs, classes = (part[TRAIN:] for part in task())
    with torch.no_grad():
        return (model(inputs)[:, :CLASSES].argmax(-1) == classes).float().tolist()


def arm_of(arm: str, seed: int) -> dict[str, Any]:
    began, taught = time.process_time(), teacher(seed, arm == "null")
    student = copy.deepcopy(network(seed if arm != "other" else 1000 + seed))
    if arm != "untrained":
        draw = np.random.default_rng(700 + seed)
        noise = torch.from_numpy(draw.uniform(-2, 2, (NOISE, INPUTS))).float()
        with torch.no_grad():
            targets = taught(noise)[:, CLASSES:].log_softmax(-1)

        def loss(z: Tensor, rows: Any) -> Tensor:
            logq = z[:, CLASSES:].log_softmax(-1)
            return functional.kl_div(logq, targets[rows], log_target=True, reduction="batchmean")

        fit(student, noise, loss, STUDENT_EPOCHS, seed)
    return {
        "items": {"right": right(student)},
        "teacher": round(float(np.mean(right(taught))), 4),
        "training": {"cpu_s": round(time.process_time() - began, 1)},
    }
