"""Divergences between a student's logits and a teacher's distribution, computed in float32.

    values_N = divergence(z_NV, TopK(ids, logp, log_tail, log_z), "reverse_kl", temperature=2.0)
    loss = values_N.sum() / tokens_of_the_whole_optimizer_step

Shapes: N tokens of the loss, V ids of the vocabulary, K kept ids of a top-k, U drawn ids, A outcomes. The logits are
already shifted: row n predicts label n. A divergence has one value for each token, (N,), in nats times temperature².
`synthgen.tables.divergences.TABLE` says which divergence is defined for which kind of target.

For dense targets and a top-k, each divergence except mse is computed from two log-distributions over the same outcomes.
For dense targets, the outcomes are all V ids. For a top-k, the outcomes are the K kept ids and one bucket for all other
ids, in teacher and student alike. In these formulas p is the teacher, q the student and M a mixture, all at the given
temperature:

    forward_kl       Σ p (log p − log q)                           Hinton et al. 2015
    reverse_kl       Σ q (log q − log p)
    jsd              (β KL(p‖M) + (1−β) KL(q‖M)) / (β(1−β)),       M = βp + (1−β)q; GKD, arXiv 2306.13649. The divisor
                     makes β → 0 the forward KL and β → 1 the reverse KL. At β = ½ the value is 4 times that of GKD.
    skew_kl          KL(p ‖ αp + (1−α)q)                           DistiLLM, arXiv 2402.03898
    skew_reverse_kl  KL(q ‖ (1−α)p + αq)
    adaptive_kl      (g_h·forward + g_t·reverse) / (g_h + g_t)     arXiv 2404.02657; g_h is Σ|p − q| over the head (the
                     likeliest outcomes), g_t over the tail (all others)
    mse              ½ mean over V of the squared difference of logits, after subtracting its mean in each row. It is
                     the limit of forward_kl for a growing temperature, and does not depend on the temperature.
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

# adaptive KL: the head is the smallest set of likeliest outcomes that holds this share of the teacher's mass
_HEAD_MASS = 0.5
_HEAD_FIRST = 1024  # adaptive KL: search the head among this many likeliest outcomes before sorting all outcomes


@dataclass(frozen=True)
class Dense:
    """The teacher's logits or log-probabilities at temperature 1, (N, V) in any float type."""

    logits_NV: Tensor


@dataclass(frozen=True)
class TopK:
    """The k most likely tokens, with the fields of `synthgen.logits.TopK`.

    `ids_NK` are the ids, and `logp_NK` their log-probabilities at temperature 1. `log_tail_N` and `log_z_N` are at the
    temperature T of the loss. `log_tail_N` is the log of the residual mass (−inf when this mass is zero). `log_z_N` is
    logsumexp(log p / T). `largest` is the largest id in `ids_NK`. If `largest` is None, it is computed for each chunk
    of tokens, which makes the host wait for the GPU.
    """

    ids_NK: Tensor
    logp_NK: Tensor
    log_tail_N: Tensor
    log_z_N: Tensor
    largest: int | None = None


@dataclass(frozen=True)
class Sampled:
    """Draws at the temperature of the loss: `ids_NU`, and `weights_NU` = counts / draws. Padding has weight 0."""

    ids_NU: Tensor
    weights_NU: Tensor


@dataclass(frozen=True)
class Labels:
    """One token id for each position."""

    ids_N: Tensor


Target = Dense | TopK | Sampled | Labels
KINDS: dict[type, TargetKind] = {Dense: "dense", TopK: "topk", Sampled: "sampled", Labels: "labels"}


def cut(target: Target, begin: int, end: int) -> Target:
    """The positions from `begin` up to, but not including, `end`."""
    return _each(target, lambda part: part[begin:end])


def moved(target: Target, device: torch.device) -> Target:
    """Copy a target to another device."""
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
    """Compute the divergence `name` between student logits `z_NV` and `target`, times temperature²: (N,) float32.

    `beta` in [0, 1] is the weight of jsd. `alpha` in [0, 1) is the skew. Ids at or above `vocabulary` are padding of
    the embedding matrix. Such ids are cut off in student and teacher, so that they have no mass. Raises ValueError when
    `TABLE` has no such divergence for this target, or when dense targets have another width than the logits.
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
            raise ValueError(f"teacher logits have shape {tuple(teacher_NV.shape)}, student logits {tuple(z_NV.shape)}")
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
    """Return (N, 2): `divergence`, and the cross-entropy of the labels over all V ids.

    For draws or a top-k at temperature 1, divergence and cross-entropy are computed from one softmax. The (N, V) logits
    are then read half as often. Reading the logits is the main cost of the loss on a GPU.
    """
    width = z_NV.shape[-1]
    alone = temperature != 1.0 or (vocabulary is not None and vocabulary < width)
    # When the target has ids that the student does not have, the divergence is computed from wider logits. The
    # cross-entropy must not use the wider logits.
    if isinstance(target, TopK):
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
    """The divergence `name` of two log-distributions (N, A) over the same outcomes. With `bucket`, the last outcome is
    the bucket of all other ids.
    """
    if name == "adaptive_kl":
        return _adaptive_kl(logp, logq, bucket)
    return _FORMULAS[name](logp, logq, beta if name == "jsd" else alpha)


def cross_entropy(z_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Return −log q(label) for each token, (N,)."""
    return divergence(z_NV, Labels(labels_N), "cross_entropy")


def kl_full(z_NV: Tensor, logp_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """Return KL(p_T ‖ q_T) · T² over the whole vocabulary. `logp_NV` are the teacher's log-probabilities at T = 1."""
    return divergence(z_NV, Dense(logp_NV), "forward_kl", temperature=temperature)


def _float(values: Tensor) -> Tensor:
    """Convert to float32, because a KL in half precision has an error of half a percent. float64 is kept, for tests."""
    return values if values.dtype == torch.float64 else values.float()


def _expect(logw: Tensor, values: Tensor) -> Tensor:
    """Return Σ w · values over the outcomes. An outcome with weight 0 adds 0, even when its value is infinite."""
    return (logw.exp() * values.masked_fill(logw == -torch.inf, 0)).sum(-1)


def _mixture(logp: Tensor, logq: Tensor, share: float) -> Tensor:
    """Return log(share · p + (1 − share) · q). `share` must be strictly between 0 and 1."""
    neither = (logp == -torch.inf) & (logq == -torch.inf)  # here the gradient of logaddexp would be NaN
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
    """The adaptive KL. With `bucket`, the last outcome always belongs to the tail, because every kept id is more likely
    than the ids in the bucket.
    """
    p, gap = logp.detach().exp(), (logp.exp() - logq.exp()).abs().detach()
    sortable = p[:, :-1] if bucket else p
    best, ids = sortable.topk(min(_HEAD_FIRST, sortable.shape[-1]), dim=-1)
    if best.shape[-1] < sortable.shape[-1] and bool((best.sum(-1) < _HEAD_MASS).any()):
        best, ids = sortable.sort(-1, descending=True)
    inside = best.cumsum(-1) - best < _HEAD_MASS
    head = torch.zeros_like(p, dtype=torch.bool).scatter(-1, ids, inside)
    head_gap, tail_gap = (gap * head).sum(-1), (gap * ~head).sum(-1)
    total = (head_gap + tail_gap).clamp(min=torch.finfo(p.dtype).tiny)  # avoids 0 / 0 when p equals q
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
    """The mse over all ids whose logit is finite in student and teacher. A logit of −inf means that the id is
    forbidden.
    """
    both = (teacher_NV > -torch.inf) & (z_NV > -torch.inf)
    count = both.sum(-1, keepdim=True)
    difference = (z_NV - teacher_NV).masked_fill(~both, 0)
    centered = (difference - difference.sum(-1, keepdim=True) / count).masked_fill(~both, 0)
    return centered.square().sum(-1) / (2 * count[:, 0])


def _with_bucket(
    scaled_NV: Tensor, target: TopK, temperature: float, labels_N: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the log-distributions (N, K + 1) of teacher and student over the K kept ids and a bucket for the rest.

    With `labels_N`, the student's tensor has one more column, the log-probabilities of the labels: (N, K + 2).
    """
    ids, logp = target.ids_NK, target.logp_NK.to(scaled_NV.dtype) / temperature - target.log_z_N[:, None]
    width = scaled_NV.shape[-1]
    largest = target.largest
    if largest is None:
        largest = int(ids.max()) if ids.numel() else 0
    if largest >= width:  # both distributions give probability 0 to ids that only the teacher has
        scaled_NV = functional.pad(scaled_NV, (0, largest + 1 - width), value=-torch.inf)
        logp = logp.masked_fill(ids >= width, -torch.inf)
    logp = torch.cat([logp, target.log_tail_N.to(logp.dtype)[:, None]], -1)
    logq = _Bucketed.apply(scaled_NV, ids, None if labels_N is None else labels_N[:, None])
    return logp.log_softmax(-1), logq  # the softmax makes the teacher's probabilities sum to 1 despite rounding


class _Bucketed(torch.autograd.Function):
    """Compute (N, K + 1): the student's log-probabilities of the kept ids, and the log of the mass of all other ids.

    With `labels_N1`, a further column has the log-probability of the label, (N, K + 2). The mass of the other ids is
    the sum of their probabilities. Computing it as 1 − Σ q over the kept ids would lose digits by cancellation.

    The gradient has a closed form. S is the set of kept ids. The incoming gradient is g_k for column k and g_σ for the
    bucket, and G is its sum over all columns. The gradient of the logit of an id k in S is g_k − G q_k. For an id j
    outside S, the gradient of the logit is g_σ · softmax(z over the other ids)_j − G q_j. The label's gradient is added
    at the label's id.
    """

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
        # For ids outside S, exp(z − logsumexp of the other ids) is at most 1. For ids in S, the sum is wrong, and
        # `kept_NK` overwrites it below.
        out.add_((z_NV - others_N.masked_fill(others_N == -torch.inf, torch.inf)).exp_().mul_(tail_N))
        out.scatter_(-1, ids_NK, kept_NK)
        if labels_N1 is not None:
            out.scatter_add_(-1, labels_N1, grad_NK[:, -1:])
        return out, None, None


def _weighted(target: Sampled | Labels, z_NV: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids and weights (N, U). Draws of ids that the student does not have get weight 0."""
    if isinstance(target, Labels):
        return target.ids_N[:, None], z_NV.new_ones((len(target.ids_N), 1))
    beyond = target.ids_NU >= z_NV.shape[-1]
    return target.ids_NU.masked_fill(beyond, 0), target.weights_NU.to(z_NV.dtype).masked_fill(beyond, 0)


class _SparseCrossEntropy(torch.autograd.Function):
    """Compute −Σ w log softmax(z)[ids] for each of P pairs of ids and weights (N, U). The result is (N, P).

    The backward pass allocates only one (N, V) tensor, the gradient. The forward pass keeps no (N, V) tensor except the
    logits. The order of the additions in the gradient is fixed: the pairs of tensors are added one after the other.
    Within a pair, an id has at most one nonzero weight at each position.
    """

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
