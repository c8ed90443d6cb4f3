"""The loss core: divergences between a student's logits and a teacher's distribution, in float32.

    values_N = divergence(z_NV, TopK(ids, logp, log_tail, log_z), "reverse_kl", temperature=2.0)
    loss = values_N.sum() / tokens_of_the_whole_optimizer_step

Shapes: N valid tokens (chosen after the shift: row n of the logits predicts label n), V vocabulary, K or U kept
entries, A outcomes. Every function returns one value a token, (N,), in nats times temperature². The table of
what is defined is `synthgen.tables.divergences.TABLE`.

Each divergence is written once, for two log-distributions over the same outcomes; a target says what the
outcomes are. Dense: all V. Top-k: the K kept ids and one bucket for all the rest, for teacher and student alike.
p is the teacher, q the student, M a mixture, all at the temperature:

    forward_kl       Σ p (log p − log q)                           Hinton et al. 2015
    reverse_kl       Σ q (log q − log p)
    jsd              (β KL(p‖M) + (1−β) KL(q‖M)) / (β(1−β)),       M = βp + (1−β)q; GKD, arXiv 2306.13649, divided
                     so that β → 0 is forward and β → 1 reverse KL at the same size (at β = ½: 4 times GKD's)
    skew_kl          KL(p ‖ αp + (1−α)q)                           DistiLLM, arXiv 2402.03898
    skew_reverse_kl  KL(q ‖ (1−α)p + αq)
    adaptive_kl      (g_h·forward + g_t·reverse) / (g_h + g_t)     arXiv 2404.02657; g: Σ|p − q| over head and tail
    mse              ½ mean over V of the squared difference of logits, each row's mean subtracted: what forward_kl
                     tends to as the temperature grows; the temperature itself does not enter
    cross_entropy    −Σ p log q
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from synthgen.tables.divergences import Divergence, TargetKind, refusal

_HEAD_MASS = 0.5  # adaptive KL: the head is the fewest likeliest outcomes with this much of the teacher's mass
_HEAD_FIRST = 1024  # and is looked for among this many before all are sorted


@dataclass(frozen=True)
class Dense:
    """The teacher's logits or log-probabilities at temperature 1, (N, V) in any float type."""

    logits_NV: Tensor


@dataclass(frozen=True)
class TopK:
    """`ids_NK` with log-probabilities `logp_NK` at temperature 1; at the loss's temperature, `log_tail_N`, the log
    of the mass left out (−inf: none), and `log_z_N` = logsumexp(log p / T). As `synthgen.logits.TopK` stores them.

    `largest`: no id is larger. Without it every chunk of tokens asks, and the host waits for a GPU's answer."""

    ids_NK: Tensor
    logp_NK: Tensor
    log_tail_N: Tensor
    log_z_N: Tensor
    largest: int | None = None


@dataclass(frozen=True)
class Sampled:
    """Draws at the loss's temperature: `ids_NU` and `weights_NU` = counts / draws; weight 0 pads."""

    ids_NU: Tensor
    weights_NU: Tensor


@dataclass(frozen=True)
class Labels:
    """One token id each."""

    ids_N: Tensor


Target = Dense | TopK | Sampled | Labels
KINDS: dict[type, TargetKind] = {Dense: "dense", TopK: "topk", Sampled: "sampled", Labels: "labels"}


def cut(target: Target, begin: int, end: int) -> Target:
    """Tokens `begin` to `end` of a target."""
    return _each(target, lambda part: part[begin:end])


def moved(target: Target, device: torch.device) -> Target:
    """The target on another device."""
    return _each(target, lambda part: part.to(device))


def _each(target: Target, change: Callable[[Tensor], Tensor]) -> Target:
    parts = (getattr(target, field.name) for field in fields(target))
    return type(target)(*(change(part) if isinstance(part, Tensor) else part for part in parts))


def divergence(
    z_NV: Tensor,
    target: Target,
    name: Divergence = "forward_kl",
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
    alpha: float = 0.1,
    vocabulary: int | None = None,
) -> Tensor:
    """The named divergence of student logits `z_NV` from `target`, a token, times temperature²; (N,) float32.

    `beta` (in [0, 1]) is jsd's weight, `alpha` (in [0, 1)) the skew. With `vocabulary`, ids from there on are
    padding of the embedding matrix: cut on both sides, so that they hold no mass. Raises ValueError for a pair
    that `TABLE` refuses, and for dense targets of another width when `vocabulary` is not given.
    """
    reason = refusal(name, KINDS[type(target)])
    if reason:
        raise ValueError(reason)
    if vocabulary is not None:
        z_NV = z_NV[:, :vocabulary]
    z_NV = _float(z_NV)
    if isinstance(target, Dense):
        teacher_NV = _float(target.logits_NV)[:, :vocabulary]
        if teacher_NV.shape != z_NV.shape:
            raise ValueError(f"teacher logits {tuple(teacher_NV.shape)} against student logits {tuple(z_NV.shape)}")
        if name == "mse":
            return _mse(teacher_NV, z_NV)
        logp, logq = (teacher_NV / temperature).log_softmax(-1), (z_NV / temperature).log_softmax(-1)
    elif isinstance(target, TopK):
        logp, logq = _with_bucket(z_NV if temperature == 1.0 else z_NV / temperature, target, temperature)
    else:
        scaled = z_NV if temperature == 1.0 else z_NV / temperature
        return temperature**2 * _SparseCrossEntropy.apply(scaled, *_weighted(target, z_NV))[:, 0]
    return temperature**2 * _between(logp, logq, name, beta, alpha, bucket=isinstance(target, TopK))


def with_cross_entropy(
    z_NV: Tensor,
    target: Target,
    labels_N: Tensor,
    name: Divergence = "forward_kl",
    *,
    temperature: float = 1.0,
    beta: float = 0.5,
    alpha: float = 0.1,
    vocabulary: int | None = None,
) -> Tensor:
    """`divergence`, and the cross-entropy of the labels over all of `z_NV`: (N, 2).

    Draws or a top-k at temperature 1 take both from one softmax: half of the passes over (N, V), which on a GPU are
    what the loss costs.
    """
    width = z_NV.shape[-1]
    alone = temperature != 1.0 or (vocabulary is not None and vocabulary < width)
    if isinstance(target, TopK):  # ids that the student has not widen its logits, but not for labels
        alone |= target.largest is None or target.largest >= width
    if alone or isinstance(target, Dense) or refusal(name, KINDS[type(target)]):
        far_N = divergence(z_NV, target, name, temperature=temperature, beta=beta, alpha=alpha, vocabulary=vocabulary)
        return torch.stack([far_N, cross_entropy(z_NV, labels_N)], -1)
    z_NV = _float(z_NV)
    if isinstance(target, TopK):
        logp, logq = _with_bucket(z_NV, target, 1.0, labels_N)
        far_N = _between(logp, logq[:, :-1], name, beta, alpha, bucket=True)
        return torch.stack([far_N, -logq[:, -1]], -1)
    both: Tensor = _SparseCrossEntropy.apply(z_NV, *_weighted(target, z_NV), *_weighted(Labels(labels_N), z_NV))
    return both


def _between(logp: Tensor, logq: Tensor, name: Divergence, beta: float, alpha: float, bucket: bool) -> Tensor:
    """The named divergence of two log-distributions over the same outcomes, (N, A), the last a `bucket` or not."""
    if name == "adaptive_kl":
        return _adaptive_kl(logp, logq, bucket)
    return _FORMULAS[name](logp, logq, beta if name == "jsd" else alpha)


def cross_entropy(z_NV: Tensor, labels_N: Tensor) -> Tensor:
    """−log q(label)."""
    return divergence(z_NV, Labels(labels_N), "cross_entropy")


def kl_full(z_NV: Tensor, logp_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p_T ‖ q_T) · T² over the whole vocabulary; `logp_NV` are the teacher's log-probabilities at T = 1."""
    return divergence(z_NV, Dense(logp_NV), "forward_kl", temperature=temperature)


def _float(values: Tensor) -> Tensor:
    """At least float32: half floats lose half a percent of a KL. float64 stays, for checks."""
    return values if values.dtype == torch.float64 else values.float()


def _expect(logw: Tensor, values: Tensor) -> Tensor:
    """Σ w · values over the outcomes; an outcome of no weight adds nothing, even where its value is infinite."""
    return (logw.exp() * values.masked_fill(logw == -torch.inf, 0)).sum(-1)


def _mixture(logp: Tensor, logq: Tensor, share: float) -> Tensor:
    """log(share · p + (1 − share) · q), for a share strictly between 0 and 1."""
    neither = (logp == -torch.inf) & (logq == -torch.inf)  # logaddexp has no gradient there
    p, q = (part.masked_fill(neither, 0) for part in (logp, logq))
    mixed = torch.logaddexp(p + math.log(share), q + math.log1p(-share))
    return mixed.masked_fill(neither, -torch.inf)


def _kl(logp: Tensor, logq: Tensor, _: float = 0) -> Tensor:
    return _expect(logp, logp - logq)


def _reverse_kl(logp: Tensor, logq: Tensor, _: float = 0) -> Tensor:
    return _expect(logq, logq - logp)


def _jsd(logp: Tensor, logq: Tensor, beta: float) -> Tensor:
    if beta in (0.0, 1.0):
        return _kl(logp, logq) if beta == 0.0 else _reverse_kl(logp, logq)
    logm = _mixture(logp, logq, beta)
    return _kl(logp, logm) / (1 - beta) + _kl(logq, logm) / beta


def _skew_kl(logp: Tensor, logq: Tensor, alpha: float) -> Tensor:
    return _kl(logp, _mixture(logp, logq, alpha) if alpha else logq)


def _skew_reverse_kl(logp: Tensor, logq: Tensor, alpha: float) -> Tensor:
    return _kl(logq, _mixture(logp, logq, 1 - alpha) if alpha else logp)


def _adaptive_kl(logp: Tensor, logq: Tensor, bucket: bool) -> Tensor:
    """With a `bucket`, the last outcome: it is tail whatever its mass, since every kept id is likelier than its ids."""
    p, gap = logp.detach().exp(), (logp.exp() - logq.exp()).abs().detach()
    sortable = p[:, :-1] if bucket else p
    best, ids = sortable.topk(min(_HEAD_FIRST, sortable.shape[-1]), dim=-1)
    if best.shape[-1] < sortable.shape[-1] and bool((best.sum(-1) < _HEAD_MASS).any()):
        best, ids = sortable.sort(-1, descending=True)
    inside = best.cumsum(-1) - best < _HEAD_MASS
    head = torch.zeros_like(p, dtype=torch.bool).scatter(-1, ids, inside)
    head_gap, tail_gap = (gap * head).sum(-1), (gap * ~head).sum(-1)
    total = (head_gap + tail_gap).clamp(min=torch.finfo(p.dtype).tiny)  # no gap: no loss
    return head_gap / total * _kl(logp, logq) + tail_gap / total * _reverse_kl(logp, logq)


def _cross_entropy(logp: Tensor, logq: Tensor, _: float) -> Tensor:
    return -_expect(logp, logq)


_FORMULAS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "forward_kl": _kl,
    "reverse_kl": _reverse_kl,
    "jsd": _jsd,
    "skew_kl": _skew_kl,
    "skew_reverse_kl": _skew_reverse_kl,
    "cross_entropy": _cross_entropy,
}


def _mse(teacher_NV: Tensor, z_NV: Tensor) -> Tensor:
    """Over the ids that both allow (a logit of −inf forbids one)."""
    both = (teacher_NV > -torch.inf) & (z_NV > -torch.inf)
    count = both.sum(-1, keepdim=True)
    difference = (z_NV - teacher_NV).masked_fill(~both, 0)
    centered = (difference - difference.sum(-1, keepdim=True) / count).masked_fill(~both, 0)
    return centered.square().sum(-1) / (2 * count[:, 0])


def _with_bucket(
    scaled_NV: Tensor, target: TopK, temperature: float, labels_N: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Log-distributions of teacher and student over the K kept ids and a bucket for all the rest, (N, K + 1); with
    labels, the student's has their log-probabilities behind it, (N, K + 2)."""
    ids, logp = target.ids_NK, target.logp_NK.to(scaled_NV.dtype) / temperature - target.log_z_N[:, None]
    width = scaled_NV.shape[-1]
    largest = target.largest
    if largest is None:
        largest = int(ids.max()) if ids.numel() else 0
    if largest >= width:  # kept ids that the student has not: no mass on either side
        scaled_NV = functional.pad(scaled_NV, (0, largest + 1 - width), value=-torch.inf)
        logp = logp.masked_fill(ids >= width, -torch.inf)
    logp = torch.cat([logp, target.log_tail_N.to(logp.dtype)[:, None]], -1)
    logq = _Bucketed.apply(scaled_NV, ids, None if labels_N is None else labels_N[:, None])
    return logp.log_softmax(-1), logq  # the teacher's sums to one already, but for the storage error


class _Bucketed(torch.autograd.Function):
    """log softmax(z) at the kept ids, then the log of the mass of all others, then, if wanted, at a label: (N, K + 1
    or K + 2).

    That mass is summed outside the kept ids, never 1 − Σ q, which cancels. With its own backward, for S the kept ids
    and G the sum of the gradients: g_k − G q_k in S, and g_σ z's softmax over the others − G q_j outside; to the
    label's is added its own."""

    @staticmethod
    def forward(ctx: Any, z_NV: Tensor, ids_NK: Tensor, labels_N1: Tensor | None) -> Tensor:
        lse_N = z_NV.logsumexp(-1, keepdim=True)
        others_N = z_NV.scatter(-1, ids_NK, -torch.inf).logsumexp(-1, keepdim=True)
        ctx.save_for_backward(z_NV, ids_NK, lse_N, others_N, labels_N1)
        found = [z_NV.gather(-1, ids_NK) - lse_N, others_N - lse_N]
        return torch.cat([*found, *([] if labels_N1 is None else [z_NV.gather(-1, labels_N1) - lse_N])], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_NK,) = grads
        z_NV, ids_NK, lse_N, others_N, labels_N1 = ctx.saved_tensors
        count = ids_NK.shape[-1]
        total_N, tail_N = grad_NK.sum(-1, keepdim=True), grad_NK[:, count : count + 1]
        out = (z_NV - lse_N).exp_().mul_(-total_N)
        kept_NK = out.gather(-1, ids_NK) + grad_NK[:, :count]
        # exp(z − lse of the others) is at most 1 outside S; in S it may be anything, and is written over.
        out.add_((z_NV - others_N.masked_fill(others_N == -torch.inf, torch.inf)).exp_().mul_(tail_N))
        out.scatter_(-1, ids_NK, kept_NK)
        if labels_N1 is not None:
            out.scatter_add_(-1, labels_N1, grad_NK[:, -1:])
        return out, None, None


def _weighted(target: Sampled | Labels, z_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Ids and weights (N, U); draws of ids that the student has not weigh nothing."""
    if isinstance(target, Labels):
        return target.ids_N[:, None], z_NV.new_ones((len(target.ids_N), 1))
    beyond = target.ids_NU >= z_NV.shape[-1]
    return target.ids_NU.masked_fill(beyond, 0), target.weights_NU.to(z_NV.dtype).masked_fill(beyond, 0)


class _SparseCrossEntropy(torch.autograd.Function):
    """−Σ w log softmax(z)[ids] of each pair of ids and weights (N, U), (N, P); with its own backward: one (N, V) tensor
    for the gradient, none kept between. (Pairs are added one after the other: in each, an id comes once with a weight,
    so that the sum has one order.)"""

    @staticmethod
    def forward(ctx: Any, z_NV: Tensor, *pairs: Tensor) -> Tensor:
        lse_N = z_NV.logsumexp(-1)
        ctx.save_for_backward(z_NV, lse_N, *pairs)
        found = [
            weights_NU.sum(-1) * lse_N - (weights_NU * z_NV.gather(-1, ids_NU)).sum(-1)
            for ids_NU, weights_NU in zip(pairs[::2], pairs[1::2], strict=True)
        ]
        return torch.stack(found, -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        z_NV, lse_N, *pairs = ctx.saved_tensors
        scaled = [
            (ids_NU, weights_NU * grads[0][:, n, None])
            for n, (ids_NU, weights_NU) in enumerate(zip(pairs[::2], pairs[1::2], strict=True))
        ]
        out = (z_NV - lse_N[:, None]).exp_().mul_(sum(w_NU.sum(-1, keepdim=True) for _, w_NU in scaled))
        for ids_NU, w_NU in scaled:
            out.scatter_add_(-1, ids_NU, -w_NU.to(out.dtype))
        return out, *(None for _ in pairs)
