"""The parity of a string of bits, with its running parities as the rationale: a task that answers alone do not teach.

Tokens: 0 and 1 are bits, 2 ends the bits, 3 ends the completion; 4 and 5 in front say which task is meant.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
from harness import llama

from synthgen.teachers.transformers import LocalModel

ASK, END, ANSWER_TASK, EXPLAIN_TASK = 2, 3, 4, 5
VOCABULARY = 6


class Nothing:
    """A tokenizer of these tokens, as far as it is asked."""

    eos_token_id = END

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def strings(bits: int, train: int, test: int) -> tuple[list[list[int]], list[list[int]]]:
    """Distinct strings to learn from and held out, the same for every arm and seed."""
    order = np.random.default_rng(bits)
    found: dict[tuple[int, ...], None] = {}
    while len(found) < train + test:
        for row in order.integers(0, 2, (1024, bits)):
            found[tuple(int(b) for b in row)] = None
    rows = [list(row) for row in found][: train + test]
    return rows[:train], rows[train:]


def rationale(bits: list[int]) -> list[int]:
    """Running parities; the last one is the answer."""
    return list(accumulate(bits, lambda a, b: a ^ b))


def answer(bits: list[int]) -> int:
    return sum(bits) % 2


def model(width: int, layers: int, seed: int) -> Any:
    """A Llama with rotary positions on these tokens."""
    return llama(VOCABULARY, width, layers, 4, seed, eos=END)


def right(writer: LocalModel, asked: list[list[int]], bits: list[list[int]], new: int) -> dict[str, list[float]]:
    """Of greedy completions: is the last token before the end the parity, did it end, and how long is it?"""
    replies = writer.complete(asked, ["0"] * len(asked), 0.0, new)
    last = [[t for t in r.token_ids if t != END][-1:] for r in replies]
    return {
        "right": [float(t == [answer(b)]) for t, b in zip(last, bits, strict=True)],
        "ended": [float(r.finish_reason == "stop") for r in replies],
        "length": [float(len(r.token_ids)) for r in replies],
    }
