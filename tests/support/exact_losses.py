"""The losses by their definitions: probabilities in float64 over the full vocabulary. Autograd computes the gradients
of the losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from distill import losses
from distill.data import sampled_batch
from distill.losses import Dense, Labels, Sampled, TopK, divergence
from synthgen import logits
from synthgen.lm.sampling import invert, top_k
from synthgen.tables.divergences import TABLE

Loss = Callable[[torch.Tensor], torch.Tensor]

V, N, DRAWS = 257, 40, 20
TEMPERATURES = [0.5, 1.0, 2.0]
DEFINED = [(name, kind) for name, row in TABLE.items() for kind, reason in row.items() if reason is None]
REFUSED = [(name, kind) for name, row in TABLE.items() for kind, reason in row.items() if reason]
SHAPES = {
    "jsd": [{"beta": b} for b in (0.0, 0.1, 0.5, 0.9, 1.0)],
    "skew_kl": [{}, {"alpha": 0.5}, {"alpha": 0.0}],
    "skew_reverse_kl": [{}, {"alpha": 0.5}, {"alpha": 0.0}],
}
HEADS = {"plain": {}, "scaled": {"scale": 0.25}, "capped": {"softcap": 3.0}, "both": {"scale": 2.0, "softcap": 3.0}}


def teacher_and_student(seed: int = 0, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities of a random teacher, logits of a random student), both of shape (N, V)."""
    generator = torch.Generator().manual_seed(seed)
    teacher = torch.randn(N, V, generator=generator) * scale
    student = torch.randn(N, V, generator=generator) * scale
    return teacher.log_softmax(-1), student


def value_and_gradient(loss: Loss, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss of each token, gradient of the sum of the losses)."""
    z = z.clone().requires_grad_()
    value = loss(z)
    (gradient,) = torch.autograd.grad(value.sum(), z)
    return value.detach(), gradient


def loss_of(target: losses.Target, name: str, **parameters: Any) -> Loss:
    """The package's loss as a function of the student's logits."""
    return lambda z: divergence(z, target, name, **parameters)


def exact_of(name: str, target: losses.Target, logp: torch.Tensor, temperature: float, **shape: float) -> Loss:
    """The loss by its definition, as a function of the student's logits."""
    return lambda z: exact(name, target, logp, z, temperature, **shape)


def draw(logp: torch.Tensor, draws: int, temperature: float, seed: int) -> logits.Sampled:
    """The counts of `draws` random tokens at each position, as they are stored."""
    u = torch.from_numpy(np.random.default_rng(seed).random((len(logp), draws)))
    cdf = (logp / temperature).softmax(-1).double().cumsum(-1)
    return logits.count_draws(invert(cdf, u).numpy())


def target_of(kind: str, logp: torch.Tensor, temperature: float, k: int = 8) -> losses.Target:
    """A target of one kind from log-probabilities (N, V), as the package makes it."""
    if kind == "dense":
        return Dense(logp)
    if kind == "labels":
        return Labels(torch.arange(len(logp)) * 3 % logp.shape[-1])
    if kind == "sampled":
        return Sampled(*sampled_batch([draw(logp, DRAWS, temperature, 0)], DRAWS))
    ids, kept, tail, log_z = top_k(logp, k, temperature)
    return TopK(ids.long(), kept, tail, log_z)


def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """KL(a ‖ b) of each row."""
    return (a * (a.log() - b.log())).masked_fill(a == 0, 0).sum(-1)


def head_of(p: torch.Tensor, bucket: bool) -> torch.Tensor:
    """The mask of the smallest set of outcomes with half of the teacher's probability, found by a loop."""
    head = torch.zeros_like(p, dtype=torch.bool)
    for row, inside in zip(p, head, strict=True):
        mass = 0.0
        for i in row[: -1 if bucket else None].argsort(descending=True).tolist():
            if mass >= 0.5:
                break
            inside[i], mass = True, mass + float(row[i])
    return head


def exact(
    name: str,
    target: losses.Target,
    logp: torch.Tensor,
    z: torch.Tensor,
    temperature: float,
    *,
    beta: float = 0.5,
    alpha: float = 0.1,
) -> torch.Tensor:
    """The loss by its definition, in float64 probabilities over the full vocabulary. Autograd computes the gradient of
    the loss.
    """
    p, q = (logp.double() / temperature).softmax(-1), (z.double() / temperature).softmax(-1)
    if name == "mse":
        a, b = logp.double(), z.double()
        return 0.5 * ((b - b.mean(-1, keepdim=True)) - (a - a.mean(-1, keepdim=True))).square().mean(-1)
    if isinstance(target, Labels):
        p = functional.one_hot(target.ids_N, z.shape[-1]).double()
    if isinstance(target, Sampled):
        p = torch.zeros_like(p).scatter_add_(-1, target.ids_NU, target.weights_NU.double())
    if isinstance(target, Labels | Sampled):
        return temperature**2 * -(p * q.log()).sum(-1)
    if isinstance(target, TopK):
        outside = torch.ones_like(p, dtype=torch.bool).scatter(-1, target.ids_NK, False)
        p, q = (torch.cat([x.gather(-1, target.ids_NK), (x * outside).sum(-1, keepdim=True)], -1) for x in (p, q))
        if target.ids_NK.shape[-1] == z.shape[-1]:
            p, q = p[:, :-1], q[:, :-1]
    if name == "cross_entropy":
        value = -(p * q.log()).sum(-1)
    elif name == "forward_kl" or (name == "jsd" and beta == 0):
        value = kl(p, q)
    elif name == "reverse_kl" or (name == "jsd" and beta == 1):
        value = kl(q, p)
    elif name == "jsd":
        m = beta * p + (1 - beta) * q
        value = (beta * kl(p, m) + (1 - beta) * kl(q, m)) / (beta * (1 - beta))
    elif name == "skew_kl":
        value = kl(p, alpha * p + (1 - alpha) * q)
    elif name == "skew_reverse_kl":
        value = kl(q, (1 - alpha) * p + alpha * q)
    else:
        head = head_of(p.detach(), isinstance(target, TopK) and target.ids_NK.shape[-1] < z.shape[-1])
        gap = (p - q).abs().detach()
        g_head, g_tail = (gap * head).sum(-1), (gap * ~head).sum(-1)
        value = (g_head * kl(p, q) + g_tail * kl(q, p)) / (g_head + g_tail)
    return temperature**2 * value


def close(value: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest error. Errors are relative to the expected value where it is above one, and absolute elsewhere."""
    return float(((value.double() - expected).abs() / expected.abs().clamp(min=1)).max())
