"""Adds canaries to the stream of training rows. Canaries are made-up secrets that a student learns beside the rows of
its corpus.

The canaries exist only during training. They are made from the recipe's settings, and are neither in the corpus nor in
the cache. See `synthgen.auditing.privacy.canaries`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distill.data import Example
from distill.streaming.stream import Stream
from synthgen import logits
from synthgen.auditing.privacy.canaries import Canary, make
from synthgen.lm.tokens import Tokens
from synthgen.logits import LogitsMeta
from synthgen.recipe.canaries import Canaries


def planted(settings: Canaries | None, tokens: Tokens, meta: LogitsMeta | None) -> list[Example]:
    """The canaries as training rows. Each canary has as many rows as its number of repeats. Without settings, there are
    no rows.

    If the student learns from distributions, `meta` describes them. The distribution at each token of a canary then
    gives this token the probability 1, as a teacher that knows the secret would do. Raises TeacherError when the chat
    template refuses a conversation.
    """
    if settings is None:
        return []
    canaries = make(settings.count, settings.repeats, settings.seed)
    rows = [(one, _example(one, tokens, meta)) for one in canaries]
    return [example for one, example in rows for _ in range(one.repeats)]


def _example(canary: Canary, tokens: Tokens, meta: LogitsMeta | None) -> Example:
    prompt, completion = canary.messages()
    ids = tokens.answer(prompt, completion)
    target = None if meta is None else certain(ids, meta)
    return Example(f"canary-{canary.number}", tokens.render(prompt), ids, target, kept=True)


def certain(ids: Sequence[int], meta: LogitsMeta) -> logits.Target:
    """Stored distributions of the kind in `meta` that give each of `ids` the probability 1. All other outcomes of a
    top-k have, at the temperature in `meta`, the smallest probability that can be stored. With the probability 0,
    divergences such as reverse_kl would be infinite.
    """
    given, one = np.asarray(ids, np.int32), np.ones(len(ids), np.uint16)
    if meta["kind"] == "sampled":
        return logits.Sampled(given, one * np.uint16(meta["draws"]), one)
    others = min(meta["k"], meta["vocab_size"]) - 1
    tail = logits.FLOOR if others + 1 < meta["vocab_size"] else -np.inf  # without further tokens, there is no residual
    further = (given[:, None] + 1 + np.arange(others)) % meta["vocab_size"]
    logprobs = np.full((len(given), 1 + others), logits.FLOOR * meta["temperature"], np.float32)
    logprobs[:, 0] = 0.0
    return logits.TopK(
        np.concatenate([given[:, None], further], 1).astype(np.int32),
        logprobs,
        np.full(len(given), tail, np.float32),
        np.zeros(len(given), np.float32),
    )


def batches_with(stream: Stream, canaries: Sequence[Example]) -> Callable[[Sequence[int], int, int], list[Example]]:
    """The same as `Stream.batch`, for the rows of the stream and the canaries. The canaries have the numbers from
    len(stream) on.
    """

    def batch(numbers: Sequence[int], rank: int, processes: int) -> list[Example]:
        mine = range(rank, len(numbers), processes)
        return [
            canaries[number - len(stream)] if number >= len(stream) else stream.rows([number], targets=place in mine)[0]
            for place, number in enumerate(numbers)
        ]

    return batch
