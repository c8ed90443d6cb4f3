"""Converts vLLM's flat log-probabilities to arrays without a loop over tokens. Imports only numpy.

Every position has 1 + k entries. The first entry is the token at this position of the prompt or completion. This token
is listed even when it is also among the k most probable tokens. The k most probable tokens follow in order of
probability. The first position of a prompt has no entries.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from synthgen.logits import Floats, Ints, TopK


def positions(flat: Any, first: int = 0) -> tuple[Ints, Floats]:
    """Ids and log-probabilities from position `first` on, both (T, 1 + k). Raises ValueError when positions have
    different numbers of entries, which vLLM never returns for the requests of this package.
    """
    starts, ends = flat.start_indices[first:], flat.end_indices[first:]
    if not starts:
        return np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32)
    width = ends[0] - starts[0]
    count = len(starts)
    if width < 1 or ends[-1] - starts[0] != width * count or ends[count // 2] - starts[count // 2] != width:
        raise ValueError(f"log-probabilities of {count} positions are not {width} each")
    chosen = slice(starts[0], ends[-1])
    ids = np.asarray(flat.token_ids[chosen], np.int32)
    logprobs = np.asarray(flat.logprobs[chosen], np.float64)
    return ids.reshape(count, width), logprobs.reshape(count, width)


def top_k(ids: Ints, logprobs: Floats, vocab_size: int) -> TopK:
    """The k most probable tokens of each position, at temperature 1, from the result of `positions` with k > 0.

    The tail mass is the probability of all other ids: one minus the probability of these tokens. Because of rounding
    errors, the tail mass is limited to a range: it is above zero, and at most the mass that the other ids would have if
    each were as probable as the last of the k tokens.
    """
    best, logp = ids[:, 1:], logprobs[:, 1:]
    if (logp[:, 1:] > logp[:, :-1]).any():
        order = np.argsort(-logp, axis=1, kind="stable")
        best, logp = np.take_along_axis(best, order, 1), np.take_along_axis(logp, order, 1)
    count, k = best.shape
    rest = vocab_size - k
    if rest <= 0:
        tail = np.full(count, -np.inf)
    else:
        left = 1.0 - np.exp(logp).sum(axis=1)
        most = np.log(rest) + logp[:, -1] if count else np.zeros(0)
        tail = np.minimum(np.log(np.maximum(left, 1e-300)), most)
    return TopK(best, logp.astype(np.float32), tail.astype(np.float32), np.zeros(count, np.float32))
