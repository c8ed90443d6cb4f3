"""Objectives on completions: a divergence from stored distributions, and cross-entropy on the tokens.

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
from distill.targets.across import uld, without_target
from distill.targets.hidden import LayerTerms
from synthgen import logits
from synthgen.errors import CorpusError
from synthgen.logits import LogitsMeta
from synthgen.recipe import TrainSection

Row = TypeVar("Row", bound=Example)

TargetOf = Callable[[tuple[int, int]], losses.Target]
"""Returns the target of the tokens [begin, end) of a batch."""


def expand(rows: Sequence[Example]) -> list[Example]:
    """Return each row, followed by the examples in its `also`."""
    return [example for row in rows for example in (row, *row.also)]


class FromCompletions(Objective[Row]):
    """The base class of objectives on the completions of rows."""

    def tokens(self, rows: Sequence[Row]) -> int:
        """The number of completion tokens of `rows`, including the turns in `also`."""
        return sum(len(example.completion) for example in expand(rows))


class FromTokens(FromCompletions[Row]):
    """The loss of a language model on the tokens of the completions of all rows, without distributions."""

    def __init__(self, model: PreTrainedModel, section: TrainSection) -> None:
        super().__init__()
        self.model, self.section, self.head = model, section, output_head(model)

    def forward(self, rows: Sequence[Row], step: Sequence[Row]) -> tuple[Tensor, dict[str, float]]:
        """See `Objective.forward`."""
        pieces = expand(rows)
        states_ND = completion_states(self.model, self.head, [e.prompt for e in pieces], [e.completion for e in pieces])
        return batch_loss(states_ND, self.head, Rows(pieces, expand(step)), self.section, None)


class FromStored(FromCompletions[Example]):
    """The loss of a language model on stored distributions with the metadata `meta`.

    Without `meta`, the loss is cross-entropy on the tokens of all rows, which is the baseline's loss. `layer_terms` are
    added to the loss.
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
        rows, step = expand(rows), expand(step)
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
    """Some rows of one optimizer step, and all rows of that step. A loss is divided by the number of tokens of the
    whole step.
    """

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
    """Return kd_weight · divergence + (1 − kd_weight) · cross-entropy, and the terms of this loss by name.

    The divergence is a mean over the tokens of all rows. Cross-entropy is a mean over the tokens of kept rows. Both
    means are over the whole step. If a step is computed in portions, the losses and gradients of the portions therefore
    add up to those of the step. Without `meta` (the baseline), or with kd_weight 0, the loss is cross-entropy over all
    rows. With `train.across`, some tokens have no distribution (see `without_target`), so every divergence from their
    targets is zero. In kept rows, the cross-entropy of tokens without a distribution also gets the weight of the
    divergence. `live` is a function that returns the targets of the tokens [begin, end). If `live` is given, the stored
    targets are not used. Masked tokens have the weight zero and are not counted in the means (see `Example.masked`).
    """
    rows, step, device = batch.rows, batch.step, states_ND.device
    # Prepare all arrays on the host before copying them, because a copy waits until the device has finished its work.
    ids_N = torch.from_numpy(np.concatenate([np.array(e.completion, np.int64) for e in rows]))
    tokens = max(1, sum(e.learned for e in step))
    learned_N = _learned(rows)
    if meta is None or section.kd_weight == 0:
        return _label_loss(states_ND, head, ids_N.to(device), learned_N.to(device) / tokens)
    kept_N = learned_N * torch.from_numpy(
        np.repeat(np.array([e.kept for e in rows], np.float32), [len(e.completion) for e in rows])
    )
    silent_N = None
    if live is None:
        targets = _targets(rows, len(ids_N), states_ND.shape[-1] if head is None else len(head.weight_VD))
        live = _stored_targets(targets, meta, device)
        if section.across:
            silent_N = torch.from_numpy(np.concatenate([without_target(target) for target in targets]))
    ids_N, kept_N, learned_N = ids_N.to(device), kept_N.to(device), learned_N.to(device)
    kept = max(1, sum(e.learned for e in step if e.kept))
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

    means_N2 = torch.stack([learned_N / tokens, kept_N / kept], -1)
    mixed = torch.tensor([section.kd_weight, 1 - section.kd_weight], device=device)
    weights_N2 = means_N2 * mixed
    if silent_N is not None:
        weights_N2[:, 1] += section.kd_weight / tokens * kept_N * silent_N.to(device)
    loss, values_N2 = through_head(states_ND, head, both, weights_N2)
    kd, ce = (values_N2 * means_N2).sum(0).tolist()
    return loss, {"loss": float(loss.detach()), "distillation": kd, "cross_entropy": ce}


def _learned(rows: Sequence[Example]) -> Tensor:
    """1 for each completion token of the rows, and 0 for each masked token: (N,)."""
    learned = [np.ones(len(e.completion), np.float32) if e.masked is None else ~e.masked for e in rows]
    return torch.from_numpy(np.concatenate(learned).astype(np.float32))


def _targets(rows: Sequence[Example], tokens: int, width: int) -> list[logits.Target]:
    """The targets of the rows. Raises CorpusError when the targets do not cover all `tokens`, or have a token that a
    student with `width` tokens lacks.
    """
    _check_width(rows, width)
    targets = [e.target for e in rows if e.target is not None]
    if sum(map(len, targets)) != tokens:
        raise CorpusError(
            "some of the rows' tokens have no stored distributions",
            "set train.kd_weight: 0 to learn from the tokens alone",
        )
    return targets


def _check_width(rows: Sequence[Example], width: int) -> None:
    """Raise CorpusError when the stored distribution of a row has a token that the student lacks. Entries of a top-k
    that have no probability are ignored.
    """
    for row in rows:
        ids = getattr(row.target, "ids", None)
        if ids is None or not ids.size or int(ids.max()) < width:
            continue
        if isinstance(row.target, logits.TopK):
            ids = ids[np.isfinite(row.target.logprobs)]
        if ids.size and int(ids.max()) >= width:
            raise CorpusError(
                f"row {row.id}: its stored distribution has the token id {int(ids.max())}, but the student has only "
                f"{width} tokens",
                "train a student with as many tokens as the teacher has, or generate with a smaller logits.k",
            )


def _stored_targets(targets: Sequence[logits.Target], meta: LogitsMeta, device: torch.device) -> TargetOf:
    """Copy the stored targets to the device. Returns the function that gives the target of the tokens [begin, end)."""
    target = losses.moved(target_batch(targets, meta), device)
    return lambda chunk: losses.cut(target, *chunk)


class DivergenceShape(TypedDict, total=False):
    """The parameters of `losses.divergence` that a recipe may set."""

    beta: float
    alpha: float


def shape_of(section: TrainSection) -> DivergenceShape:
    """The parameters of the divergence that the section sets. The other parameters keep their defaults."""
    shape: DivergenceShape = {}
    if section.beta is not None:
        shape["beta"] = section.beta
    if section.alpha is not None:
        shape["alpha"] = section.alpha
    return shape


def _label_loss(
    states_ND: Tensor, head: Head | None, ids_N: Tensor, weights_N: Tensor
) -> tuple[Tensor, dict[str, float]]:
    """Return the cross-entropy of the tokens `ids_N`, summed with the weights `weights_N`, and the terms of this loss
    by name.
    """
    labels = losses.Labels(ids_N)

    def label_loss(z_CV: Tensor, chunk: tuple[int, int]) -> Tensor:
        return losses.divergence(z_CV, losses.cut(labels, *chunk), "cross_entropy")

    ce, _ = through_head(states_ND, head, label_loss, weights_N)
    return ce, {"loss": float(ce.detach()), "cross_entropy": float(ce.detach())}
