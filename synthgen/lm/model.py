"""A causal language model in this process. The model writes completions, gives probabilities of labels, and scores
given completions.

    model = LanguageModel.open(section, lazy=True)           # weights are loaded when first needed
    model.complete([model.tokens.render(messages)], keys, temperature=1.0, max_new_tokens=64)
    model.logprobs(prompts, completions)                     # of given completions, one (T, V) tensor for each row

The prefill of a batch computes the tokens that all prompts begin with (few-shot examples) once, and then the rest of
each distinct prompt once. All completions are then decoded with caches that grow in place. At every decoding step, the
full distribution over the vocabulary is available. The random numbers for a completion depend only on its prompt's key,
so they do not depend on the other prompts in the batch.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel

from synthgen.errors import TeacherError
from synthgen.lm import prefix
from synthgen.lm.batched import check_padding, compare
from synthgen.lm.cache import grow_in_place, is_recurrent, select_rows
from synthgen.lm.forward import completion_logits, packs, prefill
from synthgen.lm.sampling import Sampler
from synthgen.lm.tokens import Tokens
from synthgen.lm.weights import Weights
from synthgen.lm.writing import Batch, Form, Prompt, Written
from synthgen.tables.engines import TeacherSection

LABEL_TOKENS = 16
"""Number of tokens of the model's context that are reserved for a label."""


@dataclass
class _Prefilled:
    """The state of U distinct prompts after prefill.

    `cache` and `mask` do not contain the shared prefix. `logits_UV` predicts the first token after each distinct
    prompt. `rows` holds, for each prompt of the batch, its index among the distinct prompts. `shared` is the number of
    tokens of the shared prefix. `inputs` are keyword arguments that give the prefix to later forward passes.
    """

    cache: Cache
    mask: Tensor
    logits_UV: Tensor
    rows: list[int]
    shared: int
    inputs: dict[str, prefix.Prefix]


@dataclass
class LanguageModel:
    """A causal language model: its tokens, its weights, and the maximum number of prompts in a batch."""

    tokens: Tokens
    weights: Weights
    batch_size: int
    _reads: weakref.ref[PreTrainedModel] | None = None  # the models that were checked; see `synthgen.lm.batched`
    _writes: weakref.ref[PreTrainedModel] | None = None

    @classmethod
    def open(cls, section: TeacherSection, *, lazy: bool = False) -> Self:
        """Open the model that a recipe names. With `lazy`, its weights are loaded when they are first needed.

        Raises TeacherError.
        """
        weights = Weights.open(section) if lazy else Weights.load(section)
        assert weights.files is not None
        return cls(Tokens.of_files(weights.files, weights.generation_config), weights, section.batch_size)

    @classmethod
    def of(cls, model: PreTrainedModel, tokens: Tokens, batch_size: int) -> Self:
        """Make a `LanguageModel` from a transformers model that is already in memory."""
        return cls(tokens, Weights.of(model), batch_size)

    @property
    def context(self) -> int:
        """The maximum number of tokens that the model can read."""
        return self.weights.context

    @torch.inference_mode()
    def logprobs(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[Tensor]:
        """The log-probabilities along given completions: one (T, V) float32 tensor for each row. Row t of the tensor is
        the distribution that predicts completion[t]. Raises TeacherError when the model cannot read batches.
        """
        if self._reads is None or self._reads() is not self.weights.model:
            check_padding(self.weights.model)
            self._reads = weakref.ref(self.weights.model)
        rows = completion_logits(self.weights.model, prompts, completions, share=True)
        return [z.float().log_softmax(-1) for z in rows]

    def complete(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[str], temperature: float, max_new_tokens: int
    ) -> list[Written]:
        """Complete each prompt, in batches of prompts of similar length."""
        asked = [Prompt(ids, key, max_new_tokens) for ids, key in zip(prompts, keys, strict=True)]
        order = sorted(range(len(asked)), key=lambda i: len(asked[i].ids))
        written: dict[int, Written] = {}
        for begin in range(0, len(order), self.batch_size):
            places = order[begin : begin + self.batch_size]
            written |= zip(places, self.write([asked[i] for i in places], Sampler(temperature)), strict=True)
        return [written[i] for i in range(len(asked))]

    @torch.inference_mode()
    def write(
        self,
        prompts: Sequence[Prompt],
        sampler: Sampler,
        *,
        form: Form | None = None,
        tick: Callable[[int], None] = lambda tokens: None,
    ) -> list[Written]:
        """Complete each prompt of one batch. After each step, `tick` receives the number of unfinished rows.

        Raises TeacherError when memory runs out, or when the model cannot write in batches.
        """
        start = self._prefill([prompt.ids for prompt in prompts])
        device = self.weights.model.device
        batch = Batch(prompts, sampler, self.tokens.eos, device, form)
        select = torch.tensor(start.rows, device=device)
        grow_in_place(start.cache, select, batch.longest)
        mask, z_BV = start.mask[select], start.logits_UV[select]
        while True:
            batch.take(z_BV, tick)
            index = batch.drop_ended()
            if not batch.live:
                return batch.written()
            if index is not None:
                select_rows(start.cache, index)
                mask = mask[index]
            mask = torch.cat([mask, mask.new_ones(len(batch.live), 1)], 1)
            z_BV = self._step(start, mask, batch.last)

    def _step(self, start: _Prefilled, mask: Tensor, last_B: Tensor) -> Tensor:
        """Run the model on `last_B`, the last token of each row. Returns the logits (B, V) that predict the next token.
        `mask` already has a column for the last token.
        """
        cached = _cached(self.weights.model, start.cache)
        out = self.weights.model(
            last_B[:, None],
            attention_mask=mask if "past_key_values" in cached else mask[:, -1:],
            position_ids=start.shared + mask.sum(-1, keepdim=True) - 1,
            logits_to_keep=1,
            **cached,
            **start.inputs,
        )
        return out.logits[:, -1].float()

    def _check_writing(self) -> None:
        """Raise TeacherError when the model writes a text of a batch with other logits than alone. Models whose rows
        may be packed are not checked.
        """
        model = self.weights.model
        if packs(model) or (self._writes is not None and self._writes() is model):
            return

        def last_logits(texts: Sequence[Sequence[int]]) -> Tensor:
            cache, mask, logits_UV = self._padded(model, [text[:-1] for text in texts], 0, {})
            rows = torch.arange(len(texts), device=model.device)
            grow_in_place(cache, rows, 1)
            start = _Prefilled(cache, mask, logits_UV, rows.tolist(), 0, {})
            last_B = torch.tensor([text[-1] for text in texts], device=model.device)
            return self._step(start, torch.cat([mask, mask.new_ones(len(texts), 1)], 1), last_B)

        compare(model, "write", last_logits)
        self._writes = weakref.ref(model)

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> _Prefilled:
        """Run the model once on the shared prefix of all prompts, and once on the rest of each distinct prompt."""
        self._check_writing()
        model = self.weights.model
        distinct = list(dict.fromkeys(tuple(p) for p in prompts))
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        shared, inputs = prefix.of_prompts(model, distinct)
        rests = [prompt[shared:] for prompt in distinct]
        try:
            found = prefill(model, rests, shared, inputs) if packs(model) else None
            # If a value is NaN or infinite, the rows of a bin affect each other, because 0 · NaN is NaN in attention.
            if found is None or not bool(found[2].amax(-1).isfinite().all()):
                found = self._padded(model, rests, shared, inputs)
        except torch.OutOfMemoryError:
            raise TeacherError(
                f"out of memory with batches of {self.batch_size}", "lower teacher.batch_size in the recipe"
            ) from None
        cache, mask, logits_UV = found
        return _Prefilled(cache, mask, logits_UV.float(), [row_of[tuple(p)] for p in prompts], shared, inputs)

    def _padded(
        self, model: PreTrainedModel, rests: Sequence[Sequence[int]], shared: int, inputs: dict[str, prefix.Prefix]
    ) -> tuple[Cache, Tensor, Tensor]:
        """The same as `prefill`, for rows that cannot be packed. The rows are padded on the left."""
        longest = max(map(len, rests))
        ids = torch.full((len(rests), longest), min(self.tokens.eos, default=0))
        mask = torch.zeros((len(rests), longest), dtype=torch.long)
        for row, rest in enumerate(rests):
            ids[row, longest - len(rest) :] = torch.tensor(rest)
            mask[row, longest - len(rest) :] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        cache = DynamicCache(config=model.config)
        out = model(
            ids,
            attention_mask=mask,
            position_ids=shared + (mask.cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=1,
            **_cached(model, cache),
            **inputs,
        )
        return cache, mask, out.logits[:, -1]

    @torch.inference_mode()
    def label_probs(
        self, prompts: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
    ) -> list[tuple[list[float], int]]:
        """For each prompt of one batch: the probability that the answer begins with each label, and the most probable
        first token of the answer. Labels are distinct token sequences.

        p(label) is the product of the probabilities of the label's tokens after the prompt.
        """
        start = self._prefill(prompts)
        logp_UV = start.logits_UV.log_softmax(-1)
        likely_U = logp_UV.argmax(-1).tolist()
        score_UL = logp_UV[:, [ids[0] for ids in labels]].double()
        if any(len(ids) > 1 for ids in labels):
            if is_recurrent(start.cache):
                self._read_later_tokens(list(dict.fromkeys(map(tuple, prompts))), labels, score_UL)
            else:
                self._score_later_tokens(start, labels, score_UL)
        probs = score_UL.exp().cpu().tolist()
        return [(probs[row], likely_U[row]) for row in start.rows]

    def _score_later_tokens(self, start: _Prefilled, labels: Sequence[Sequence[int]], score_UL: Tensor) -> None:
        """For labels of several tokens, add to `score_UL` the log-probabilities of all tokens after the first. These
        log-probabilities are computed in one forward pass with padding on the right.
        """
        model, many = self.weights.model, len(score_UL)
        longer = [n for n, ids in enumerate(labels) if len(ids) > 1]
        select_rows(start.cache, torch.arange(many, device=model.device).repeat_interleave(len(longer)))
        width = max(len(labels[n]) for n in longer) - 1
        rows = [([*labels[n][:-1], *[0] * width])[:width] for n in longer]
        ids = torch.tensor(rows, device=model.device).repeat(many, 1)
        wide = start.mask.repeat_interleave(len(longer), 0)
        wide = torch.cat([wide, wide.new_ones(len(wide), width)], 1)
        z = model(
            ids,
            attention_mask=wide,
            position_ids=start.shared + (wide.cumsum(-1) - 1)[:, -width:],
            **_cached(model, start.cache),
            **start.inputs,
        ).logits
        logp = z.float().log_softmax(-1).view(many, len(longer), width, -1)
        for column, n in enumerate(longer):
            for position, token in enumerate(labels[n][1:]):
                score_UL[:, n] += logp[:, column, position, token]

    def _read_later_tokens(
        self, distinct: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], score_UL: Tensor
    ) -> None:
        """The same as `_score_later_tokens`, for models with recurrent states. Some of these models read several tokens
        after a cache as if nothing stood before them, so each prompt is read again with each label.
        """
        pairs = [(row, n) for row in range(len(distinct)) for n, ids in enumerate(labels) if len(ids) > 1]
        read = self.logprobs([distinct[row] for row, _ in pairs], [labels[n] for _, n in pairs])
        for (row, n), logp_TV in zip(pairs, read, strict=True):
            score_UL[row, n] += sum(float(logp_TV[t, token]) for t, token in enumerate(labels[n]) if t)


def _cached(model: PreTrainedModel, cache: Cache) -> dict[str, Cache]:
    """The argument that gives the cache to the model. It has another name in models that have only recurrent states,
    such as Mamba. Such models read only the new tokens' part of a mask.
    """
    name = "cache_params" if "cache_params" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: cache}
