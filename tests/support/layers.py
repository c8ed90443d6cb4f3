"""Rows and models for tests of losses on hidden states and attention relations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.data import Example
from distill.students.build import from_config
from support.training import HELD_OUT, Cut, SmallRuns, with_train
from support.unaudited import train
from synthgen import logits
from synthgen.lm.weights import Weights
from synthgen.recipe import TrainSection

V, K = 258, 5
META: logits.LogitsMeta = {"kind": "topk", "k": K, "temperature": 1.0, "vocab_size": V}
NARROW = {"config": {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 12}}


def rows(same_prompt: bool = True, count: int = 7) -> list[Example]:
    """Rows of growing length. Without `same_prompt`, the teacher has another prompt."""
    rng = np.random.default_rng(0)
    examples = []
    for n in range(count):
        prompt, asked, completion = (rng.integers(0, 256, size).tolist() for size in (3 + n, 9 + n % 2, 1 + 2 * n))
        asked = [*range(100, 120), *asked]  # the prompts share a prefix, as few-shot prompts do
        target = logits.TopK(
            rng.permuted(np.tile(np.arange(V), (len(completion), 1)), axis=1)[:, :K].astype(np.int32),
            np.full((len(completion), K), np.log(0.9 / K), np.float32),
            np.full(len(completion), np.log(0.1), np.float32),
            np.zeros(len(completion), np.float32),
        )
        shown = () if same_prompt else asked
        examples.append(Example(str(n), prompt, completion, target, True, teacher_prompt=shown))
    return examples


def section(**terms: Any) -> TrainSection:
    """A section `train` with these keys, such as `hidden` and `relations`."""
    return TrainSection.model_validate({"kd_weight": 0.5, **terms})


def narrow(teacher: Weights) -> torch.nn.Module:
    """A student with another depth, width and number of heads than the teacher."""
    changes = {
        "num_hidden_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
    }
    return from_config(teacher.config, changes, 3)


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The gradient of every parameter that has a gradient, by name."""
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def trained(
    small_run: SmallRuns, out: Path, student: dict[str, Any] = NARROW, cut: int | None = None, **changes: Any
) -> Path:
    """Trains a decoder with `changes` to the section `train`, and returns the decoder's folder. With `cut`, training
    stops after that many steps.
    """
    recipe, run = small_run(logits={"kind": "topk", "k": 9}, split=HELD_OUT, seeds=16)
    assert recipe.train is not None
    values = recipe.train.model_dump(mode="json", exclude_none=True)
    recipe = with_train(recipe, values | {"student": {"kind": "decoder", **student}} | changes)
    return train(recipe, run, out, ui=Cut(cut) if cut else None).folder
