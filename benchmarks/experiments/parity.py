"""The task of two experiments: the parity of a string of bits. The rationale lists the running parities.

Small models do not learn this task from answers alone. Tokens 0 and 1 are bits. Token 2 ends the bits and token 3 ends
the completion. Token 4 before the bits asks for the answer. Token 5 before the bits asks for the rationale.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
from harness import llama

from synthgen.teachers.transformers import LocalModel

ASK, END, ANSWER_TASK, EXPLAIN_TASK = 2, 3, 4, 5
VOCABULARY = 6


class BitTokenizer:
    """The parts of a tokenizer that `LocalModel` uses, for the six tokens of this task."""

    eos_token_id = END
    chat_template = None

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        return " ".join(map(str, ids))


def strings(bits: int, train: int, test: int) -> tuple[list[list[int]], list[list[int]]]:
    """Returns (training strings, held-out strings). No string occurs twice. All arms and seeds get the same two
    lists."""
    order = np.random.default_rng(bits)
    distinct: dict[tuple[int, ...], None] = {}
    while len(distinct) < train + test:
        for row in order.integers(0, 2, (1024, bits)):
            distinct[tuple(int(b) for b in row)] = None
    rows = [list(row) for row in distinct][: train + test]
    return rows[:train], rows[train:]


def rationale(bits: list[int]) -> list[int]:
    """The running parities of a string. The last running parity is the answer."""
    return list(accumulate(bits, lambda a, b: a ^ b))


def answer(bits: list[int]) -> int:
    return sum(bits) % 2


def model(width: int, layers: int, seed: int) -> Any:
    """A Llama with rotary positions and the six tokens of this task."""
    return llama(VOCABULARY, width, layers, 4, seed, eos=END)


def right(writer: LocalModel, asked: list[list[int]], bits: list[list[int]], new: int) -> dict[str, list[float]]:
    """Measures of greedy completions, one number for each string.

    `right`: 1 if the last token before the end is the parity. `ended`: 1 if the model wrote the end token. `length`:
    the number of tokens. `links`: the share of running parities that follow correctly from the running parity that the
    model wrote just before. `links` is an empty list if `new` is at most 4, because such short completions have no
    rationale.
    """
    replies = writer.complete(asked, ["0"] * len(asked), 0.0, new)
    last = [[t for t in r.tokens if t != END][-1:] for r in replies]
    return {
        "right": [float(t == [answer(b)]) for t, b in zip(last, bits, strict=True)],
        "ended": [float(r.ended) for r in replies],
        "length": [float(len(r.tokens)) for r in replies],
        "links": [links(r.tokens, b) for r, b in zip(replies, bits, strict=True)] if new > 4 else [],
    }


def links(tokens: list[int], bits: list[int]) -> float:
    """The share of bits whose running parity in `tokens` follows correctly from the running parity before it in
    `tokens`.
    """
    before = [0, *tokens]
    return sum(t == b ^ p for t, b, p in zip(tokens, bits, before, strict=False)) / len(bits)
