"""Samples the next token of each row of a batch, and computes the part of the token's distribution that is stored.

Tokens are drawn by inverse transform sampling with random numbers from the caller, so the tokens that are drawn for a
row do not depend on the other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from synthgen import logits
from synthgen.logits import LogitsSpec

# Top-p first sorts only this many of the most probable ids. If the mass of these ids is less than `top_p`, 16 times as
# many ids are sorted. If the mass is still less than `top_p`, all ids are sorted.
_NUCLEUS_FIRST = 64

Kept = tuple[logits.Ints, ...]
"""The stored part of all rows' distributions at one decoding step: the arrays of `logits.TopK`, or an array of drawn
ids (B, N).
"""


@dataclass(frozen=True)
class Sampler:
    """The sampling parameters. Temperature 0 means greedy decoding. `spec` describes the part of each token's
    distribution that is stored, or is None when nothing is stored.
    """

    temperature: float
    top_p: float = 1.0
    spec: LogitsSpec | None = None

    @property
    def draws(self) -> int:
        """The number of ids that are drawn and stored at each position. 0 when the target is not of kind 'sampled'."""
        return self.spec.draws if self.spec and self.spec.kind == "sampled" else 0

    def choose(
        self, z_BV: torch.Tensor, u_BN: torch.Tensor, allowed_BV: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Kept]:
        """Choose each row's next token among its allowed tokens. Returns the tokens (B,), and the part of the
        distributions that is stored.

        The first random number of each row chooses the next token. The other random numbers of the row choose the ids
        that are stored in a target of kind 'sampled'.
        """
        capture = self.spec.temperature if self.spec else 0.0
        kept: Kept = ()
        cdf = None
        if self.draws:
            cdf = cumulative(z_BV, capture)
            kept = (invert(cdf, u_BN[:, 1:]).to(torch.int32).cpu().numpy(),)
        elif self.spec:
            kept = tuple(part.cpu().numpy() for part in top_k(z_BV, min(self.spec.k, z_BV.shape[-1]), capture))
        if allowed_BV is not None:
            z_BV, cdf = z_BV.masked_fill(~allowed_BV, -torch.inf), None
        if self.temperature == 0:
            return z_BV.argmax(-1), kept
        if self.top_p < 1:
            ids, p = nucleus(z_BV, self.temperature, self.top_p)
            return ids.gather(-1, invert(p.double().cumsum(-1), u_BN[:, :1]))[:, 0], kept
        if cdf is None or self.temperature != capture:
            cdf = cumulative(z_BV, self.temperature)
        return invert(cdf, u_BN[:, :1])[:, 0], kept


def cumulative(z_BV: torch.Tensor, temperature: float) -> torch.Tensor:
    """The cumulative probabilities (B, V) of the ids in float64, for use with `invert`."""
    return (z_BV if temperature == 1.0 else z_BV / temperature).softmax(-1).double().cumsum(-1)


def nucleus(z_BV: torch.Tensor, temperature: float, top_p: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest set of most probable ids whose mass reaches `top_p`. Returns ids (B, n), most probable first, and
    their probabilities. The probabilities are not renormalized, and the ids outside the set have probability zero.
    """
    lse = (z_BV / temperature).logsumexp(-1, keepdim=True)
    size = _NUCLEUS_FIRST
    while True:
        best, ids = z_BV.topk(min(size, z_BV.shape[-1]), dim=-1)
        p = (best / temperature - lse).exp()
        if size >= z_BV.shape[-1] or bool((p.sum(-1) >= top_p).all()):
            break
        size = size * 16 if size == _NUCLEUS_FIRST else z_BV.shape[-1]
    return ids, p * (p.cumsum(-1) - p < top_p)


def invert(cdf_BV: torch.Tensor, u_BN: torch.Tensor) -> torch.Tensor:
    """For each random number u in [0, 1), the smallest id whose cumulative probability exceeds u times the row's total
    probability. Ids with zero probability are never returned.
    """
    found = torch.searchsorted(cdf_BV, u_BN * cdf_BV[:, -1:], right=True)
    return found.clamp(max=cdf_BV.shape[-1] - 1)


def top_k(z_NV: torch.Tensor, k: int, temperature: float) -> tuple[torch.Tensor, ...]:
    """The arrays of `logits.TopK`: ids (N, k), log-probabilities (N, k), the log of the remaining mass (N,) and the
    log-normalizer (N,). The log-probabilities are computed at temperature 1, and the remaining mass and the
    log-normalizer at `temperature`.
    """
    logp_NV = z_NV.log_softmax(-1)
    logp, ids = logp_NV.topk(k, dim=-1)
    scaled = logp_NV / temperature
    log_z = scaled.logsumexp(-1) if temperature != 1.0 else torch.zeros_like(logp[:, 0])
    return ids.to(torch.int32), logp, scaled.scatter(-1, ids, -torch.inf).logsumexp(-1) - log_z, log_z


def targets(steps: Sequence[tuple[list[int], Kept]], count: int, spec: LogitsSpec | None) -> list[logits.Target]:
    """Combine the stored parts of all decoding steps into one target for each of `count` prompts. Each step is a pair:
    the indices of the prompts that were still in the batch, and the stored parts of these prompts' distributions.
    """
    if spec is None:
        return []
    owner = np.concatenate([np.asarray(live) for live, _ in steps])
    order = np.argsort(owner, kind="stable")  # sort by prompt, then by step
    bounds = np.cumsum(np.bincount(owner, minlength=count))[:-1]
    parts = [np.split(np.concatenate(part)[order], bounds) for part in zip(*(kept for _, kept in steps), strict=True)]
    if spec.kind == "sampled":
        return [logits.count_draws(draws) for draws in parts[0]]
    return [logits.TopK(*arrays) for arrays in zip(*parts, strict=True)]


def with_end(target: logits.Target, end: int) -> logits.Target:
    """The target with one more position, at which the token `end` has probability 1. Servers do not send the most
    probable tokens for the position where a reply ends, but it is known that the reply ends there.
    """
    if isinstance(target, logits.Sampled):
        draws = int(target.counts.sum()) // max(1, len(target))
        return logits.Sampled(
            np.append(target.ids, np.asarray(end, target.ids.dtype)),
            np.append(target.counts, np.asarray(draws, target.counts.dtype)),
            np.append(target.uniques, np.asarray(1, target.uniques.dtype)),
        )
    width = target.ids.shape[1]
    ids, logprobs = np.full((1, width), end, target.ids.dtype), np.full((1, width), logits.FLOOR, target.logprobs.dtype)
    logprobs[0, 0] = 0.0
    return logits.TopK(
        np.concatenate([target.ids, ids]),
        np.concatenate([target.logprobs, logprobs]),
        np.append(target.log_tail, np.float32(-np.inf)),
        np.append(target.log_z, np.float32(0.0)),
    )
