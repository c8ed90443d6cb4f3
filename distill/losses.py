"""The loss core: divergences between a student's logits and a teacher's distribution, in float32.

Shapes: N valid tokens, V vocabulary, K or U kept entries. Every function returns one value a token, (N,), in
nats times temperature²; the caller divides by the valid tokens of the whole optimizer step. Conventions and
formulas: Hinton et al. 2015 (temperature, T²); random-sampling distillation, ACL 2025 (sampled targets).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_NO_TAIL = 1e-7  # mass left out below this is none


class _SparseCrossEntropy(torch.autograd.Function):
    """−Σ w log softmax(z)[ids] with its own backward: one (N, V) tensor for the gradient, none kept between."""

    @staticmethod
    def forward(ctx: Any, z_NV: Tensor, ids_NU: Tensor, weights_NU: Tensor) -> Tensor:
        lse_N = z_NV.logsumexp(-1)
        total_N = weights_NU.sum(-1)
        ctx.save_for_backward(z_NV, ids_NU, weights_NU, lse_N, total_N)
        return total_N * lse_N - (weights_NU * z_NV.gather(-1, ids_NU)).sum(-1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad_N,) = grads
        z_NV, ids_NU, weights_NU, lse_N, total_N = ctx.saved_tensors
        out = (z_NV - lse_N[:, None]).exp_()
        out.mul_((total_N * grad_N)[:, None])
        out.scatter_add_(-1, ids_NU, -(weights_NU * grad_N[:, None]).to(out.dtype))
        return out, None, None


def cross_entropy(z_NV: Tensor, labels_N: Tensor) -> Tensor:
    """−log q(label)."""
    ones = torch.ones((len(labels_N), 1), dtype=z_NV.float().dtype, device=z_NV.device)
    return _SparseCrossEntropy.apply(z_NV.float(), labels_N[:, None], ones)


def kl_full(z_NV: Tensor, logp_NV: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(p_T ‖ q_T) · T² over the whole vocabulary; `logp_NV` are the teacher's log-probabilities at T = 1."""
    logp = (logp_NV.float() / temperature).log_softmax(-1)
    logq = (z_NV.float() / temperature).log_softmax(-1)
    return temperature**2 * functional.kl_div(logq, logp, reduction="none", log_target=True).sum(-1)


def kl_topk(
    z_NV: Tensor, ids_NK: Tensor, logp_NK: Tensor, log_tail_N: Tensor, log_z_N: Tensor, temperature: float = 1.0
) -> Tensor:
    """KL · T² over the K kept entries and one bucket that holds all the rest, for teacher and student alike:

        Σ_S p (log p − log q) + ρ (log ρ − log σ),   ρ = 1 − Σ_S p,   σ = 1 − Σ_S q

    `logp_NK` at T = 1; `log_tail_N` the log of the teacher's mass left out at T (−inf: none), `log_z_N` its
    logsumexp(log p / T). A lower bound on the full KL; equal to it when K = V.
    """
    scaled = z_NV.float() / temperature
    lse = scaled.logsumexp(-1)
    logq = scaled.gather(-1, ids_NK) - lse[:, None]
    logp = logp_NK.float() / temperature - log_z_N.float()[:, None]
    log_rho = log_tail_N.float()
    total = torch.logaddexp(logp.logsumexp(-1), log_rho)  # one, but for the storage error
    logp, log_rho = logp - total[:, None], log_rho - total
    value = (logp.exp() * (logp - logq)).sum(-1)
    has_tail = log_rho.exp() > _NO_TAIL
    if bool(has_tail.any()):
        outside = scaled.scatter(-1, ids_NK, -torch.inf)[has_tail]
        log_sigma = outside.logsumexp(-1) - lse[has_tail]  # never log(1 − Σ q), which cancels
        rho = log_rho[has_tail]
        value = value.index_add(0, has_tail.nonzero()[:, 0], rho.exp() * (rho - log_sigma))
    return temperature**2 * value


def sampled_cross_entropy(z_NV: Tensor, ids_NU: Tensor, weights_NU: Tensor, temperature: float = 1.0) -> Tensor:
    """−Σ p̂ log q_T · T² for p̂ = counts / draws at the same temperature (weight 0 pads).

    E[p̂] = p_T, so the expected gradient is that of the full KL; the value is the KL plus the teacher's entropy.
    """
    scaled = z_NV.float() if temperature == 1.0 else z_NV.float() / temperature
    return temperature**2 * _SparseCrossEntropy.apply(scaled, ids_NU, weights_NU.float())
