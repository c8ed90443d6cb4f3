"""Rows that are written side by side, a token at a time: what each has so far, and which of them still write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from synthgen import logits
from synthgen.lm.sampling import Kept, Sampler, cut, targets

_RANDOM_STEPS = 32  # random numbers are drawn for this many steps at a time
_RIDE_ALONG = 0.9  # while this share of a batch still writes, dropping the others would cost more than it saves


class Matcher(Protocol):
    """The state of one answer that is held to a form."""

    def consume_token(self, token: int) -> object: ...


class Form(Protocol):
    """What answers are held to: which tokens may come next."""

    def begin(self) -> Matcher:
        """The state of an answer without tokens."""

    def allowed(self, answers: Sequence[Matcher]) -> logits.Bools:
        """(B, V): True where a token may be next."""


@dataclass(frozen=True)
class Prompt:
    """Tokens to write after. `key` is up to 32 hex digits: its random numbers are a function of it alone."""

    ids: Sequence[int]
    key: str
    max_new_tokens: int


@dataclass(frozen=True)
class Written:
    """What was written after one prompt: its tokens with the end token, if it `ended` with one; and, where they were
    asked for, the distributions that the tokens were drawn from."""

    tokens: list[int]
    ended: bool
    target: logits.Target | None = None


class Batch:
    """The rows that one batch writes.

    `live` has the number of the prompt of each row of the logits. Ended rows stay among them until dropping them pays;
    what they write after their end is cut off.
    """

    def __init__(
        self, prompts: Sequence[Prompt], sampler: Sampler, eos: frozenset[int], device: torch.device, form: Form | None
    ) -> None:
        self.prompts, self.sampler, self.eos, self.device, self.form = prompts, sampler, eos, device, form
        self.live = list(range(len(prompts)))
        self.last = torch.zeros(len(prompts), dtype=torch.long, device=device)
        self._tokens: list[list[int]] = [[] for _ in prompts]
        self._ended = [False] * len(prompts)
        self._steps: list[tuple[list[int], Kept]] = []
        self._random = [np.random.Generator(np.random.Philox(key=int(prompt.key, 16))) for prompt in prompts]
        self._drawn: dict[int, logits.Floats] = {}
        self._answers = [form.begin() for _ in prompts] if form else []

    @property
    def longest(self) -> int:
        """Most tokens that a row may have."""
        return max(prompt.max_new_tokens for prompt in self.prompts)

    def take(self, z_BV: Tensor, tick: Callable[[int], None]) -> None:
        """Choose the next token of each live row, which is then in `last`; `tick` is told how many still write."""
        allowed = None
        if self.form:
            allowed = torch.from_numpy(self.form.allowed([self._answers[i] for i in self.live])).to(self.device)
        self.last, kept = self.sampler.choose(z_BV, self._numbers(), allowed)
        self._steps.append((list(self.live), kept))
        for i, token in zip(self.live, self.last.tolist(), strict=True):
            if self._answers and not self._ended[i]:
                self._answers[i].consume_token(token)
            self._tokens[i].append(token)
            at_end = token in self.eos or len(self._tokens[i]) >= self.prompts[i].max_new_tokens
            self._ended[i] = self._ended[i] or at_end
        tick(sum(not self._ended[i] for i in self.live))

    def drop_ended(self) -> Tensor | None:
        """The rows to go on with, if dropping those that have ended pays; None to go on with all that are `live`."""
        stay = [row for row, i in enumerate(self.live) if not self._ended[i]]
        if not stay:
            self.live = []
        if not stay or len(stay) >= _RIDE_ALONG * len(self.live):
            return None
        index = torch.tensor(stay, device=self.device)
        self.last, self.live = self.last[index], [self.live[row] for row in stay]
        return index

    def written(self) -> list[Written]:
        """What each prompt got."""
        kept = targets(self._steps, len(self.prompts), self.sampler.spec)
        replies = []
        for i, prompt in enumerate(self.prompts):
            tokens = self._tokens[i][: prompt.max_new_tokens]
            length = next((n + 1 for n, token in enumerate(tokens) if token in self.eos), len(tokens))
            target = cut(kept[i], length) if kept else None
            replies.append(Written(tokens[:length], tokens[length - 1] in self.eos, target))
        return replies

    def _numbers(self) -> Tensor:
        """Random numbers (B, 1 + draws) of this step for the live rows."""
        place = len(self._steps) % _RANDOM_STEPS
        if place == 0:
            shape = (_RANDOM_STEPS, 1 + self.sampler.draws)
            self._drawn = {i: self._random[i].random(shape) for i in self.live}
        return torch.from_numpy(np.stack([self._drawn[i][place] for i in self.live])).to(self.device)
