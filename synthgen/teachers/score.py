"""Scoring: the teacher's distributions along completions that somebody else wrote, by teacher-forced passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from synthgen import logits
from synthgen.lm.forward import completion_logits
from synthgen.lm.render import completion_ids
from synthgen.lm.sampling import cumulative, invert, top_k
from synthgen.requests import Request
from synthgen.teachers.base import Reply, Tick

_BATCH_TOKENS = 512  # completion tokens whose logits are held at once: 100 MB for a vocabulary of 50,000
_ROWS = 64  # positions whose cumulative probabilities, in float64, are held at once


class Scorer(Protocol):
    """What scoring needs of a loaded model."""

    @property
    def model(self) -> Any: ...

    tokenizer: Any
    eos: set[int]
    batch_size: int

    def render_each(self, requests: Sequence[Request]) -> list[list[int]]:
        """Token ids of each request's prompt."""

    def too_long(self, prompt: Sequence[int], new: int) -> tuple[str, str] | None:
        """The failure of a request whose prompt and `new` tokens do not fit the context."""


def score(teacher: Scorer, requests: Sequence[Request], spec: logits.LogitsSpec | None, tick: Tick) -> list[Reply]:
    """One reply a request: its completion's tokens, their log-probabilities, and what `spec` keeps."""
    prompts = teacher.render_each(requests)
    completions = [completion_ids(teacher.tokenizer, teacher.eos, request) for request in requests]
    replies = [
        Reply(failure=teacher.too_long(p, len(c)) if c else ("empty", "the completion has no tokens"))
        for p, c in zip(prompts, completions, strict=True)
    ]
    asked = sorted(
        (i for i, r in enumerate(replies) if r.failure is None), key=lambda i: len(prompts[i]) + len(completions[i])
    )
    for batch in batches(asked, [len(c) for c in completions], teacher.batch_size):
        rows = completion_logits(
            teacher.model, [prompts[i] for i in batch], [completions[i] for i in batch], share=True
        )
        for i, z_TV in zip(batch, rows, strict=True):
            finish = "stop" if completions[i][-1] in teacher.eos else "length"
            reply = _reply(requests[i], completions[i], z_TV.float(), spec)
            replies[i] = replace(reply, prompt_token_ids=prompts[i], finish_reason=finish)
        tick(sum(len(completions[i]) for i in batch))
    return replies


def batches(order: Sequence[int], lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """`order` cut where a batch would hold more than `most` rows or `_BATCH_TOKENS` tokens; one row always fits."""
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) == most or sum(lengths[j] for j in batch) + lengths[i] > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _reply(request: Request, tokens: list[int], z_TV: torch.Tensor, spec: logits.LogitsSpec | None) -> Reply:
    ids_T = torch.tensor(tokens, device=z_TV.device)
    logp_T = z_TV.gather(-1, ids_T[:, None])[:, 0] - z_TV.logsumexp(-1)
    target = _target(request, z_TV, spec) if spec else None
    return Reply(
        request.completion[0]["content"] or "", token_ids=tokens, target=target, token_logprobs=logp_T.tolist()
    )


def _target(request: Request, z_TV: torch.Tensor, spec: logits.LogitsSpec) -> logits.Target:
    temperature = spec.temperature
    if spec.kind == "topk":
        k = min(spec.k, z_TV.shape[-1])
        return logits.TopK(*(part.cpu().numpy() for part in top_k(z_TV, k, temperature)))
    u = np.random.Generator(np.random.Philox(key=int(request.id, 16))).random((len(z_TV), spec.draws))
    u_TN = torch.from_numpy(u).to(z_TV.device)
    draws = [
        invert(cumulative(z, temperature), u_N).to(torch.int32).cpu().numpy()
        for z, u_N in zip(z_TV.split(_ROWS), u_TN.split(_ROWS), strict=True)
    ]
    return logits.count_draws(np.concatenate(draws))
