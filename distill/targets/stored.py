"""Learning from stored distributions: a divergence from them, and cross-entropy on the tokens.

loss, parts = FromStored(model, section, data.meta)(rows, rows_of_the_step)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distill import losses
from distill.data import Example, target_batch
from distill.loop import Objective
from distill.output_layer import Head, completion_states, output_head, through_head
from distill.targets.across import uld
from distill.targets.hidden import LayerTerms
from synthgen import logits
from synthgen.logits import LogitsMeta
from synthgen.recipe import TrainSection

Row = TypeVar("Row", bound=Example)

TargetOf = Callable[[tuple[int, int]], losses.Target]
"""The target of tokens (begin, end) of a batch."""


class FromCompletions(Objective[Row]):
    """Base of objectives on the completions of rows."""

    def tokens(self, rows: Sequence[Row]) -> int:
        """Completion tokens."""
        return sum(len(row.completion) for row in rows)


class FromTokens(FromCompletions[Row]):
    """A language model on the tokens of completions alone, every row of them."""

    def __init__(self, model: PreTrainedModel, section: TrainSection) -> None:
        super().__init__()
        self.model, self.section, self.head = model, section, output_head(model)

    def forward(self, rows: Sequence[Row], step: Sequence[Row]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`."""
        states_ND = completion_states(self.model, self.head, [e.prompt for e in rows], [e.completion for e in rows])
        return batch_loss(states_ND, self.head, Rows(rows, step), self.section, None)


class FromStored(FromCompletions[Example]):
    """A language model on the stored distributions of a training set whose metadata is `meta`.

    Without `meta` it learns from the tokens alone, every row of them, as the baseline does. `layer_terms` are added.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        section: TrainSection,
        meta: LogitsMeta | None = None,
        layer_terms: LayerTerms | None = None,
    ) -> None:
        super().__init__()
        self.model, self.section, self.meta, self.layer_terms = model, section, meta, layer_terms
        self.head = output_head(model)

    def forward(self, rows: Sequence[Example], step: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward` and `batch_loss`."""
        added, terms = 0.0, dict[str, float]()
        if self.layer_terms is None:
            states_ND = completion_states(self.model, self.head, [e.prompt for e in rows], [e.completion for e in rows])
        else:
            states_ND, added, terms = self.layer_terms(self.model, self.head, rows, step)
        across = self.section.across
        if across and self.meta:
            size = min(self.meta["vocab_size"], len(self.head.weight_VD) if self.head else states_ND.shape[-1])
            distance = uld(states_ND, self.head, rows, size) / sum(len(e.completion) for e in step)
            added = added + self.section.kd_weight * across.uld_weight * distance
            terms = {**terms, "uld": float(distance.detach())}
        loss, parts = batch_loss(states_ND, self.head, Rows(rows, step), self.section, self.meta)
        if not terms:
            return loss, parts
        total = loss + added
        return total, {**parts, **terms, "loss": float(total.detach())}


@dataclass(frozen=True)
class Rows:
    """Some rows of one optimizer step, and all rows of that step, by whose tokens a loss is divided."""

    rows: Sequence[Example]
    step: Sequence[Example]


def batch_loss(
    states_ND: Tensor,
    head: Head | None,
    batch: Rows,
    section: TrainSection,
    meta: LogitsMeta | None,
    live: TargetOf | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """kd_weight · divergence + (1 − kd_weight) · cross-entropy, each a mean over its own tokens of the whole step.

    The divergence is over every row, cross-entropy over the rows that curation kept. Without `meta` (the baseline), or
    with kd_weight 0, cross-entropy over every row is the whole loss. Losses and gradients of the parts of a step add up
    to the step's. `live` gives the target of tokens (begin, end) in place of the stored ones. Returns the loss and its
    parts.
    """
    rows, step, device = batch.rows, batch.step, states_ND.device
    # First all that the host has to make, then the copies: they wait for what the device is still doing.
    ids_N = torch.from_numpy(np.concatenate([np.array(e.completion, np.int64) for e in rows]))
    tokens = max(1, sum(len(e.completion) for e in step))
    if meta is None or section.kd_weight == 0:
        return _label_loss(states_ND, head, ids_N.to(device), tokens)
    kept_N = torch.from_numpy(
        np.repeat(np.array([e.kept for e in rows], np.float32), [len(e.completion) for e in rows])
    )
    if live is None:
        live = _stored_targets([e.target for e in rows if e.target is not None], meta, device)
    ids_N, kept_N = ids_N.to(device), kept_N.to(device)
    kept = max(1, sum(len(e.completion) for e in step if e.kept))
    shape = shape_of(section)

    def both(z_CV: Tensor, chunk: tuple[int, int]) -> Tensor:
        vocabulary = min(meta["vocab_size"], z_CV.shape[-1])
        return losses.with_cross_entropy(
            z_CV,
            live(chunk),
            ids_N[slice(*chunk)],
            section.loss,
            temperature=meta["temperature"],
            vocabulary=vocabulary,
            **shape,
        )

    means_N2 = torch.stack([torch.full_like(kept_N, 1 / tokens), kept_N / kept], -1)
    mixed = torch.tensor([section.kd_weight, 1 - section.kd_weight], device=device)
    loss, values_N2 = through_head(states_ND, head, both, means_N2 * mixed)
    kd, ce = (values_N2 * means_N2).sum(0).tolist()
    return loss, {"loss": float(loss.detach()), "distillation": kd, "cross_entropy": ce}


def _stored_targets(targets: Sequence[logits.Target], meta: LogitsMeta, device: torch.device) -> TargetOf:
    """The stored targets of tokens (begin, end), copied to the device."""
    target = losses.moved(target_batch(targets, meta), device)
    return lambda chunk: losses.cut(target, *chunk)


class DivergenceShape(TypedDict, total=False):
    """Parameters of `losses.divergence` that a recipe may set."""

    beta: float
    alpha: float


def shape_of(section: TrainSection) -> DivergenceShape:
    """The parameters of the divergence that the section gives; the others have their defaults."""
    shape: DivergenceShape = {}
    if section.beta is not None:
        shape["beta"] = section.beta
    if section.alpha is not None:
        shape["alpha"] = section.alpha
    return shape


def _label_loss(states_ND: Tensor, head: Head | None, ids_N: Tensor, tokens: int) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropy of the tokens `ids_N`, summed and divided by `tokens`; and its parts."""
    labels = losses.Labels(ids_N)

    def label_loss(z_CV: Tensor, chunk: tuple[int, int]) -> Tensor:
        return losses.divergence(z_CV, losses.cut(labels, *chunk), "cross_entropy")

    weights_N = torch.full((len(states_ND),), 1 / tokens, device=states_ND.device)
    ce, _ = through_head(states_ND, head, label_loss, weights_N)
    return ce, {"loss": float(ce.detach()), "cross_entropy": float(ce.detach())}
