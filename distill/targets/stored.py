"""What a decoder learns by: a divergence from the stored distributions, and cross-entropy on the tokens.

loss, parts = FromShards(model, data.meta, section)(rows, rows_of_the_step)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill import losses
from distill.data import Example, target_batch
from distill.loop import Objective
from distill.output_layer import Head, completion_states, output_head, through_head
from distill.targets.across import uld
from distill.targets.hidden import Inside
from synthgen.recipe import TrainSection


class FromShards(Objective):
    """A causal language model on the stored distributions of a training set whose metadata is `meta`.

    With `labels_alone` (the baseline), on its tokens alone, every row of them. `inside`: and on these terms.
    """

    def __init__(
        self,
        model: Any,
        meta: dict[str, Any],
        section: TrainSection,
        labels_alone: bool = False,
        inside: Inside | None = None,
    ) -> None:
        super().__init__()
        self.model, self.meta, self.section, self.labels_alone = model, meta, section, labels_alone
        self.inside = inside
        self.head = output_head(model)

    def forward(self, rows: Sequence[Example], step: Sequence[Example]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward` and `batch_loss`."""
        more, terms = 0.0, dict[str, float]()
        if self.inside is None:
            states_ND = completion_states(self.model, self.head, [e.prompt for e in rows], [e.completion for e in rows])
        else:
            states_ND, more, terms = self.inside(self.model, self.head, rows, step)
        across = self.section.across
        if across and not self.labels_alone:
            size = min(self.meta["vocab_size"], len(self.head.weight_VD) if self.head else states_ND.shape[-1])
            apart = uld(states_ND, self.head, rows, size) / sum(len(e.completion) for e in step)
            more, terms = (
                more + self.section.kd_weight * across.uld_weight * apart,
                {**terms, "uld": float(apart.detach())},
            )
        loss, parts = batch_loss(states_ND, self.head, rows, self.meta, self.section, self.labels_alone, step)
        if not terms:
            return loss, parts
        total = loss + more
        return total, {**parts, **terms, "loss": float(total.detach())}


def batch_loss(
    states_ND: Tensor,
    head: Head | None,
    batch: Sequence[Example],
    meta: dict[str, Any],
    section: TrainSection,
    labels_alone: bool = False,
    step: Sequence[Example] | None = None,
    live: Callable[[tuple[int, int]], losses.Target] | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """kd_weight · divergence + (1 − kd_weight) · cross-entropy, each a mean over its own tokens of the whole step.

    The divergence is over every row, cross-entropy over the rows that curation kept; with `labels_alone` (the
    baseline) it is over every row and all there is. `batch` is a part of the rows `step` of one optimizer step (all
    of them by default): losses and gradients of its parts add up to the step's. `live` gives the target of tokens
    (begin, end) in place of the stored ones. Returns the loss and its parts.
    """
    step, device = step or batch, states_ND.device
    # First all that the host has to make, then the copies: they wait for what the device is still doing.
    ids_N = torch.from_numpy(np.concatenate([np.array(e.completion, np.int64) for e in batch]))
    tokens = max(1, sum(len(e.completion) for e in step))
    if labels_alone or section.kd_weight == 0:
        labels = losses.Labels(ids_N.to(device))

        def label_loss(z_CV: Tensor, chunk: tuple[int, int]) -> Tensor:
            return losses.divergence(z_CV, losses.cut(labels, *chunk), "cross_entropy")

        weights_N = torch.full((len(states_ND),), 1 / tokens, device=device)
        ce, _ = through_head(states_ND, head, label_loss, weights_N)
        return ce, {"loss": float(ce.detach()), "cross_entropy": float(ce.detach())}
    kept_N = torch.from_numpy(
        np.repeat(np.array([e.kept for e in batch], np.float32), [len(e.completion) for e in batch])
    )
    if live is None:
        target = losses.moved(target_batch([e.target for e in batch if e.target is not None], meta), device)
    ids_N, kept_N = ids_N.to(device), kept_N.to(device)
    kept = max(1, sum(len(e.completion) for e in step if e.kept))
    shape = {} if section.beta is None else {"beta": section.beta}
    shape |= {} if section.alpha is None else {"alpha": section.alpha}

    def both(z_CV: Tensor, chunk: tuple[int, int]) -> Tensor:
        here = losses.cut(target, *chunk) if live is None else live(chunk)
        vocabulary = min(meta["vocab_size"], z_CV.shape[-1])
        more = {"temperature": meta["temperature"], "vocabulary": vocabulary, **shape}
        return losses.with_cross_entropy(z_CV, here, ids_N[slice(*chunk)], section.loss, **more)

    means_N2 = torch.stack([torch.full_like(kept_N, 1 / tokens), kept_N / kept], -1)
    mixed = torch.tensor([section.kd_weight, 1 - section.kd_weight], device=device)
    loss, values_N2 = through_head(states_ND, head, both, means_N2 * mixed)
    kd, ce = (values_N2 * means_N2).sum(0).tolist()
    return loss, {"loss": float(loss.detach()), "distillation": kd, "cross_entropy": ce}
