"""Scoring: the teacher's distributions along completions that somebody else wrote, by teacher-forced passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from synthgen import logits
from synthgen.lm.forward import completion_logits
from synthgen.lm.render import completion_ids
from synthgen.lm.sampling import cumulative, invert, top_k
from synthgen.requests import Request
from synthgen.teachers.base import Reply

if TYPE_CHECKING:
    from synthgen.teachers.transformers import LocalModel

_BATCH_TOKENS = 512  # completion tokens whose logits are held at once: 100 MB for a vocabulary of 50,000
_ROWS = 64  # positions whose cumulative probabilities, in float64, are held at once


def score(
    teacher: LocalModel, requests: Sequence[Request], spec: dict[str, Any] | None, tick: Callable[[int], None]
) -> list[Reply]:
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
            replies[i] = _reply(teacher, requests[i], prompts[i], completions[i], z_TV.float(), spec)
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


def _reply(
    teacher: LocalModel,
    request: Request,
    prompt: Sequence[int],
    tokens: list[int],
    z_TV: torch.Tensor,
    spec: dict[str, Any] | None,
) -> Reply:
    ids_T = torch.tensor(tokens, device=z_TV.device)
    said = z_TV.gather(-1, ids_T[:, None])[:, 0] - z_TV.logsumexp(-1)
    finish = "stop" if tokens and tokens[-1] in teacher.eos else "length"
    target = _target(request, z_TV, spec) if spec else None
    text = request.completion[0]["content"]
    return Reply(text, prompt, tokens, finish, target, token_logprobs=said.tolist())


def _target(request: Request, z_TV: torch.Tensor, spec: dict[str, Any]) -> logits.Target:
    temperature = float(spec["temperature"])
    if spec["kind"] == "topk":
        k = min(int(spec["k"]), z_TV.shape[-1])
        return logits.TopK(*(part.cpu().numpy() for part in top_k(z_TV, k, temperature)))
    u = np.random.Generator(np.random.Philox(key=int(request.id, 16))).random((len(z_TV), int(spec["draws"])))
    u_TN = torch.from_numpy(u).to(z_TV.device)
    draws = [
        invert(cumulative(z, temperature), u_N).to(torch.int32).cpu().numpy()
        for z, u_N in zip(z_TV.split(_ROWS), u_TN.split(_ROWS), strict=True)
    ]
    return logits.count_draws(np.concatenate(draws))
