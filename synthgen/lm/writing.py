"""The state of a batch during decoding: the tokens that each row has so far, and which rows are unfinished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from synthgen import logits
from synthgen.lm.sampling import Kept, Sampler, targets

_RANDOM_STEPS = 32  # number of decoding steps for which random numbers are drawn together
# Finished rows are removed from the batch only when less than this share of its rows is unfinished, because removing
# rows costs time.
_RIDE_ALONG = 0.9


class Matcher(Protocol):
    """The state of one answer that must have a given form, such as a JSON schema."""

    def consume_token(self, token: int) -> object: ...


class Form(Protocol):
    """The required form of answers. The form determines which tokens may come next."""

    def begin(self) -> Matcher:
        """The state before an answer's first token."""

    def allowed(self, answers: Sequence[Matcher]) -> logits.Bools:
        """An array (B, V): for each answer, True for each token that may come next."""


@dataclass(frozen=True)
class Prompt:
    """The tokens of a prompt. `key` is a string of up to 32 hex digits. The random numbers for the prompt's completion
    depend only on `key`.
    """

    ids: Sequence[int]
    key: str
    max_new_tokens: int


@dataclass(frozen=True)
class Written:
    """The completion of one prompt. `ended` tells whether the last token is an end token. `target` holds the stored
    part of the tokens' distributions. `target` is None if no distributions were requested. `broken` tells whether the
    model's logits at some token were not finite numbers, so that the completion is meaningless.
    """

    tokens: list[int]
    ended: bool
    target: logits.Target | None = None
    broken: bool = False


class Batch:
    """The rows of one decoding batch.

    `live` holds, for each row that the model still decodes, the index of its prompt in `prompts`. Finished rows are
    decoded further until removing them saves time. The tokens that a finished row gets after its end token are not part
    of the result.
    """

    def __init__(
        self, prompts: Sequence[Prompt], sampler: Sampler, eos: frozenset[int], device: torch.device, form: Form | None
    ) -> None:
        self.prompts, self.sampler, self.eos, self.device, self.form = prompts, sampler, eos, device, form
        self.live = list(range(len(prompts)))
        self.last = torch.zeros(len(prompts), dtype=torch.long, device=device)
        self._tokens: list[list[int]] = [[] for _ in prompts]
        self._ended = [False] * len(prompts)
        self._broken = [False] * len(prompts)
        self._steps: list[tuple[list[int], Kept]] = []
        self._random = [np.random.Generator(np.random.Philox(key=int(prompt.key, 16))) for prompt in prompts]
        self._drawn: dict[int, logits.Floats] = {}
        self._answers = [form.begin() for _ in prompts] if form else []

    @property
    def longest(self) -> int:
        """The largest `max_new_tokens` of the prompts."""
        return max(prompt.max_new_tokens for prompt in self.prompts)

    def take(self, z_BV: Tensor, tick: Callable[[int], None]) -> None:
        """Choose the next token of each row in `live` and store it in `last`. `tick` receives the number of rows that
        are unfinished after this token.
        """
        allowed = None
        if self.form:
            allowed = torch.from_numpy(self.form.allowed([self._answers[i] for i in self.live])).to(self.device)
        self.last, kept = self.sampler.choose(z_BV, self._numbers(), allowed)
        self._steps.append((list(self.live), kept))
        finite = z_BV.amax(-1).isfinite().tolist()  # the maximum of a row with NaN is NaN
        for i, token, whole in zip(self.live, self.last.tolist(), finite, strict=True):
            if not whole and not self._ended[i]:
                self._broken[i] = self._ended[i] = True
            if self._answers and not self._ended[i]:
                self._answers[i].consume_token(token)
            self._tokens[i].append(token)
            at_end = token in self.eos or len(self._tokens[i]) >= self.prompts[i].max_new_tokens
            self._ended[i] = self._ended[i] or at_end
        tick(sum(not self._ended[i] for i in self.live))

    def drop_ended(self) -> Tensor | None:
        """Remove the finished rows from `live` if that saves time. Returns the indices of the rows that remain, or None
        when no row is removed. When all rows are finished, `live` becomes empty, and None is returned.
        """
        stay = [row for row, i in enumerate(self.live) if not self._ended[i]]
        if not stay:
            self.live = []
        if not stay or len(stay) >= _RIDE_ALONG * len(self.live):
            return None
        index = torch.tensor(stay, device=self.device)
        self.last, self.live = self.last[index], [self.live[row] for row in stay]
        return index

    def written(self) -> list[Written]:
        """The completion of each prompt."""
        kept = targets(self._steps, len(self.prompts), self.sampler.spec)
        replies = []
        for i, prompt in enumerate(self.prompts):
            tokens = self._tokens[i][: prompt.max_new_tokens]
            length = next((n + 1 for n, token in enumerate(tokens) if token in self.eos), len(tokens))
            target = logits.cut(kept[i], length) if kept else None
            replies.append(Written(tokens[:length], tokens[length - 1] in self.eos, target, self._broken[i]))
        return replies

    def _numbers(self) -> Tensor:
        """The random numbers of this decoding step for the rows in `live`: an array (B, 1 + draws)."""
        place = len(self._steps) % _RANDOM_STEPS
        if place == 0:
            shape = (_RANDOM_STEPS, 1 + self.sampler.draws)
            self._drawn = {i: self._random[i].random(shape) for i in self.live}
        return torch.from_numpy(np.stack([self._drawn[i][place] for i in self.live])).to(self.device)
