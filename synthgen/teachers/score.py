"""Scoring: computes a teacher's distribution at each token of given completions, in one forward pass over prompts and
completions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from synthgen import logits
from synthgen.lm.forward import batches, completion_logits
from synthgen.lm.model import LanguageModel
from synthgen.lm.sampling import cumulative, invert, top_k
from synthgen.logits import LogitsSpec
from synthgen.requests import Request
from synthgen.teachers.base import Reply, Tick

_ROWS = 64  # number of positions whose cumulative probabilities (float64) are in memory together


def score(model: LanguageModel, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick) -> list[Reply]:
    """One reply for each request, with the token ids of the request's completion, the log-probabilities of these
    tokens, and the part of the distributions that `spec` describes.
    """
    prompts = model.tokens.render_each([(r.messages, r.open_turn) for r in requests])
    completions = [model.tokens.completion(r.completion[0]["content"] or "", r.completion_ids) for r in requests]
    replies = [
        Reply(failure=too_long(p, len(c), model.context) if c else ("empty", "the completion has no tokens"))
        for p, c in zip(prompts, completions, strict=True)
    ]
    asked = sorted(
        (i for i, r in enumerate(replies) if r.failure is None), key=lambda i: len(prompts[i]) + len(completions[i])
    )
    for batch in batches(asked, [len(c) for c in completions], model.batch_size):
        rows = completion_logits(
            model.weights.model, [prompts[i] for i in batch], [completions[i] for i in batch], share=True
        )
        for i, z_TV in zip(batch, rows, strict=True):
            ended = completions[i][-1] in model.tokens.eos
            replies[i] = _reply(requests[i], prompts[i], completions[i], ended, z_TV.float(), spec)
        tick(sum(len(completions[i]) for i in batch))
    return replies


def too_long(prompt: Sequence[int], new: int, context: int) -> tuple[str, str] | None:
    """A failure when the tokens of `prompt` and `new` more tokens exceed the context. None when they fit."""
    if len(prompt) + new <= context:
        return None
    return "context", f"prompt of {len(prompt)} tokens and {new} new tokens exceed the context of {context}"


def _reply(
    request: Request,
    prompt: Sequence[int],
    tokens: list[int],
    ended: bool,
    z_TV: torch.Tensor,
    spec: LogitsSpec | None,
) -> Reply:
    ids_T = torch.tensor(tokens, device=z_TV.device)
    logprobs_T = z_TV.gather(-1, ids_T[:, None])[:, 0] - z_TV.logsumexp(-1)
    target = _target(request, z_TV, spec) if spec else None
    text = request.completion[0]["content"] or ""
    finish = "stop" if ended else "length"
    return Reply(text, prompt, tokens, finish, target, token_logprobs=logprobs_T.tolist())


def _target(request: Request, z_TV: torch.Tensor, spec: LogitsSpec) -> logits.Target:
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
