"""The in-process teacher: any causal language model of `transformers`, batched, sampled, left-padded.

A batch is prefilled once for its shared prefix (few-shot examples) and once for each distinct prompt, then
decoded for every sample on caches that grow in place. The full distribution is at hand at every step, so what
a recipe stores of it is exact. Random numbers come from each request's id alone, batches from the order of the
requests: a shard of the same requests is the same bits, whenever and however often it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from synthgen import logits
from synthgen.errors import TeacherError
from synthgen.recipe import TeacherSection
from synthgen.records import Message, Request
from synthgen.teachers import Reply, prefix
from synthgen.teachers.load import load_weights, pick_device, tokenizer_hash

_RANDOM_STEPS = 32  # random numbers are drawn for this many steps at a time
_NUCLEUS_FIRST = 1024  # top-p looks among this many ids before it sorts them all
_SHARED_PREFIX = 16  # fewer shared tokens are not worth a pass of their own


@dataclass
class _Prefilled:
    """Distinct prompts after their pass: cache and mask without the shared prefix, last logits (U, V), for each
    prompt its row among the distinct, tokens of the shared prefix, and what further passes must be given."""

    cache: Any
    mask: torch.Tensor
    logits_UV: torch.Tensor
    rows: list[int]
    shared: int
    more: dict[str, Any]


class LocalModel:
    """A loaded model. `sample`, `classify` and `logprobs` are exact; see `synthgen.teachers.Teacher`."""

    def __init__(self, model: Any, tokenizer: Any, identity: dict[str, Any], batch_size: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.identity = identity
        self.batch_size = batch_size
        eos = model.generation_config.eos_token_id if model.generation_config else None
        eos = eos if isinstance(eos, list) else [eos]
        self.eos = {int(i) for i in [*eos, tokenizer.eos_token_id] if i is not None}
        self.shares_prefix = prefix.enable(model)
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)

    @classmethod
    def open(cls, section: TeacherSection) -> LocalModel:
        """Load what the recipe names. Raises TeacherError."""
        model, tokenizer, revision = load_weights(section)
        model.to(pick_device(section.device))
        identity = {
            "engine": "transformers",
            "model": section.model,
            "revision": revision,
            "dtype": section.dtype,
            "tokenizer": tokenizer_hash(tokenizer),
            "vocab_size": int(model.config.get_text_config().vocab_size),
            "terms": section.licence,
        }
        return cls(model, tokenizer, identity, section.batch_size)

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt in the model's own chat template, ready for the answer."""
        rendered = self.tokenizer.apply_chat_template(
            [{k: v for k, v in m.items() if v is not None} for m in messages],
            add_generation_prompt=True,
            tokenize=False,
        )
        return list(self.tokenizer(rendered, add_special_tokens=False)["input_ids"])

    @torch.inference_mode()
    def sample(
        self,
        requests: Sequence[Request],
        spec: dict[str, Any] | None,
        tick: Callable[[int], None] = lambda tokens: None,
    ) -> list[Reply]:
        """One reply a request. A prompt that does not fit the context is a failure, not an error."""
        replies: list[Reply] = []
        if len({(r.sampling["temperature"], r.sampling["top_p"]) for r in requests}) > 1:
            raise ValueError("requests of one call must share temperature and top_p")
        for begin in range(0, len(requests), self.batch_size):
            batch = requests[begin : begin + self.batch_size]
            prompts = self._render_each(batch)
            failed = [self._too_long(p, r.sampling["max_new_tokens"]) for p, r in zip(prompts, batch, strict=True)]
            asked = [i for i, failure in enumerate(failed) if failure is None]
            done = dict(
                zip(
                    asked, self._sample([batch[i] for i in asked], [prompts[i] for i in asked], spec, tick), strict=True
                )
            )
            replies += [done.get(i) or Reply(failure=failed[i]) for i in range(len(batch))]
        return replies

    @torch.inference_mode()
    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """p(label) = product of the probabilities of its tokens after the prompt, normalised over the labels."""
        replies: list[Reply] = []
        for begin in range(0, len(requests), self.batch_size):
            batch = requests[begin : begin + self.batch_size]
            prompts = self._render_each(batch)
            failed = [self._too_long(p, 16) for p in prompts]
            asked = [i for i, failure in enumerate(failed) if failure is None]
            done = dict(zip(asked, self._classify([batch[i] for i in asked], [prompts[i] for i in asked]), strict=True))
            replies += [done.get(i) or Reply(failure=failed[i]) for i in range(len(batch))]
        return replies

    @torch.inference_mode()
    def logprobs(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Teacher-forced log-probabilities, one (T, V) float32 tensor a row; entry t is the distribution of
        completion[t]."""
        return [z.float().log_softmax(-1) for z in completion_logits(self.model, prompts, completions)]

    def _render_each(self, requests: Sequence[Request]) -> list[list[int]]:
        cache: dict[int, list[int]] = {}  # samples of one seed share their messages object
        return [
            cache[id(r.teacher_prompt)]
            if id(r.teacher_prompt) in cache
            else cache.setdefault(id(r.teacher_prompt), self.render(r.teacher_prompt))
            for r in requests
        ]

    def _too_long(self, prompt: Sequence[int], new: int) -> tuple[str, str] | None:
        if len(prompt) + new <= self.context:
            return None
        return "context", f"prompt of {len(prompt)} tokens and {new} new ones exceed the context of {self.context}"

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> _Prefilled:
        """Run the distinct prompts once, their shared prefix once for all."""
        device = self.model.device
        distinct = list(dict.fromkeys(tuple(p) for p in prompts))
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        shared = _shared_prefix(distinct) if self.shares_prefix and len(distinct) > 1 else 0
        more: dict[str, Any] = {}
        if shared >= _SHARED_PREFIX:
            more["shared_prefix"] = prefix.compute(self.model, list(distinct[0][:shared]))
        if more.get("shared_prefix") is None:
            shared, more = 0, {}
        longest = max(len(p) for p in distinct) - shared
        ids = torch.full((len(distinct), longest), min(self.eos, default=0))
        mask = torch.zeros((len(distinct), longest), dtype=torch.long)
        for row, prompt in enumerate(distinct):
            rest = prompt[shared:]
            ids[row, longest - len(rest) :] = torch.tensor(rest)
            mask[row, longest - len(rest) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        cache = DynamicCache(config=self.model.config)
        try:
            out = self.model(
                ids,
                attention_mask=mask,
                position_ids=shared + (mask.cumsum(-1) - 1).clamp(min=0),
                past_key_values=cache,
                logits_to_keep=1,
                **more,
            )
        except torch.OutOfMemoryError:
            raise TeacherError(
                f"out of memory with batches of {self.batch_size}", "lower teacher.batch_size in the recipe"
            ) from None
        return _Prefilled(cache, mask, out.logits[:, -1].float(), [row_of[tuple(p)] for p in prompts], shared, more)

    def _sample(
        self,
        requests: Sequence[Request],
        prompts: Sequence[Sequence[int]],
        spec: dict[str, Any] | None,
        tick: Callable[[int], None],
    ) -> list[Reply]:
        if not requests:
            return []
        device = self.model.device
        limits = np.array([r.sampling["max_new_tokens"] for r in requests])
        start = self._prefill(prompts)
        select = torch.tensor(start.rows, device=device)
        _grow_in_place(start.cache, select, int(limits.max()))
        mask, z_BV = start.mask[select], start.logits_UV[select]
        draws = int(spec["draws"]) if spec and spec["kind"] == "sampled" else 0
        random = [np.random.Generator(np.random.Philox(key=int(r.id, 16))) for r in requests]
        live = list(range(len(requests)))  # request at each row of the batch
        tokens: list[list[int]] = [[] for _ in requests]
        ended = [False] * len(requests)
        steps: list[tuple[list[int], tuple[np.ndarray[Any, Any], ...]]] = []
        for step in range(int(limits.max())):
            if step % _RANDOM_STEPS == 0:
                block = {i: random[i].random((_RANDOM_STEPS, 1 + draws)) for i in live}
            u = torch.from_numpy(np.stack([block[i][step % _RANDOM_STEPS] for i in live])).to(device)
            next_B, kept = _choose(z_BV, u, [requests[i].sampling for i in live], spec)
            steps.append((list(live), kept))
            stay = []
            for row, (i, token) in enumerate(zip(live, next_B.tolist(), strict=True)):
                tokens[i].append(token)
                ended[i] = ended[i] or token in self.eos or len(tokens[i]) >= limits[i]
                if not ended[i]:
                    stay.append(row)
            tick(len(stay))
            if not stay:
                break
            if len(stay) < 0.75 * len(live):  # until the copy pays, ended rows ride along, and are cut off below
                index = torch.tensor(stay, device=device)
                start.cache.batch_select_indices(index)
                mask, next_B, live = mask[index], next_B[index], [live[row] for row in stay]
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
            z_BV = (
                self.model(
                    next_B[:, None],
                    attention_mask=mask,
                    position_ids=start.shared + mask.sum(-1, keepdim=True) - 1,
                    past_key_values=start.cache,
                    logits_to_keep=1,
                    **start.more,
                )
                .logits[:, -1]
                .float()
            )
        targets = _targets(steps, len(requests), spec)
        return [
            self._reply(prompt, tokens[i][: limits[i]], targets[i] if targets else None)
            for i, prompt in enumerate(prompts)
        ]

    def _reply(self, prompt: Sequence[int], tokens: list[int], target: logits.Target | None) -> Reply:
        length = next((n + 1 for n, token in enumerate(tokens) if token in self.eos), len(tokens))
        tokens = tokens[:length]
        finish = "stop" if tokens[-1] in self.eos else "length"
        if target is not None:
            target = _cut(target, length)
        text = self.tokenizer.decode([t for t in tokens if t not in self.eos], skip_special_tokens=True)
        return Reply(text, prompt, tokens, finish, target)

    def _classify(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> list[Reply]:
        if not requests:
            return []
        names = requests[0].labels
        labels = [self.tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
        if len({tuple(ids) for ids in labels}) < len(labels) or not all(labels):
            raise TeacherError(f"labels {', '.join(names)} are not distinct token sequences", "rename generate.labels")
        start = self._prefill(prompts)
        logp_UV = start.logits_UV.log_softmax(-1)
        score_UL = logp_UV[:, [ids[0] for ids in labels]].double()
        longer = [n for n, ids in enumerate(labels) if len(ids) > 1]
        if longer:  # the later tokens of all longer labels in one pass, right-padded
            device, many = self.model.device, len(logp_UV)
            start.cache.batch_select_indices(torch.arange(many, device=device).repeat_interleave(len(longer)))
            width = max(len(labels[n]) for n in longer) - 1
            ids = torch.tensor([(labels[n][:-1] + [0] * width)[:width] for n in longer], device=device).repeat(many, 1)
            wide = start.mask.repeat_interleave(len(longer), 0)
            wide = torch.cat([wide, wide.new_ones(len(wide), width)], 1)
            z = self.model(
                ids,
                attention_mask=wide,
                position_ids=start.shared + (wide.cumsum(-1) - 1)[:, -width:],
                past_key_values=start.cache,
                **start.more,
            ).logits
            logp = z.float().log_softmax(-1).view(many, len(longer), width, -1)
            for column, n in enumerate(longer):
                for position, token in enumerate(labels[n][1:]):
                    score_UL[:, n] += logp[:, column, position, token]
        probs = score_UL.softmax(-1).cpu()
        best = probs.argmax(-1).tolist()
        return [
            Reply(names[best[row]], prompt, labels[best[row]], "stop", None, probs[row].tolist())
            for prompt, row in zip(prompts, start.rows, strict=True)
        ]


def completion_logits(
    model: Any, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Logits of each row's completion positions, one (T, V) tensor a row: entry t predicts completion[t].

    Prompts are padded on the left and completions on the right, so that all completions begin in one column and
    the output layer runs on completions alone. Gradients flow.
    """
    left, right = max(map(len, prompts)), max(map(len, completions))
    ids = torch.zeros((len(prompts), left + right), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, left - len(prompt) : left + len(completion)] = torch.tensor([*prompt, *completion])
        mask[row, left - len(prompt) : left + len(completion)] = 1
    ids, mask = ids.to(model.device), mask.to(model.device)
    z_BTV = model(
        ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, :-1],
        logits_to_keep=right,
        use_cache=False,
    ).logits
    return [z_TV[: len(completion)] for z_TV, completion in zip(z_BTV, completions, strict=True)]


class _GrowingLayer(DynamicLayer):
    """A cache layer with room allocated ahead: a step writes one column instead of copying the past."""

    def __init__(self, layer: DynamicLayer, select: torch.Tensor, room: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self.used = layer.keys.shape[2]
        self._slabs = []
        for past in (layer.keys, layer.values):
            slab = past.new_empty((len(select), past.shape[1], self.used + room, past.shape[3]))
            slab[:, :, : self.used] = past[select]
            self._slabs.append(slab)
        self._show()

    def _show(self) -> None:
        self.keys, self.values = (slab[:, :, : self.used] for slab in self._slabs)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append and return all keys and values (views)."""
        end = self.used + key_states.shape[2]
        for slab, new in zip(self._slabs, (key_states, value_states), strict=True):
            slab[:, :, self.used : end] = new
        self.used = end
        self._show()
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows."""
        self._slabs = [slab[indices] for slab in self._slabs]
        self._show()


def _grow_in_place(cache: Any, select: torch.Tensor, room: int) -> None:
    """Rows `select` of the cache; plain layers get room for `room` more tokens, other kinds stay as they are."""
    for number, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[number] = _GrowingLayer(layer, select, room)
        else:
            layer.batch_select_indices(select)


def _shared_prefix(prompts: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts begin with; at least one token of each is left."""
    low, high = min(prompts), max(prompts)  # lexicographic extremes share what all share
    count = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return min(count, min(len(p) for p in prompts) - 1)


def _choose(
    z_BV: torch.Tensor, u_BN: torch.Tensor, sampling: Sequence[dict[str, Any]], spec: dict[str, Any] | None
) -> tuple[torch.Tensor, tuple[np.ndarray[Any, Any], ...]]:
    """Next tokens by inverse transform of the first random number, and what `spec` keeps of the distribution."""
    temperature, top_p = float(sampling[0]["temperature"]), float(sampling[0]["top_p"])
    capture = float(spec["temperature"]) if spec else 0.0
    kept: tuple[np.ndarray[Any, Any], ...] = ()
    cdf = None
    if spec and spec["kind"] == "sampled":
        cdf = (z_BV / capture).softmax(-1).double().cumsum(-1)
        draws = _invert(cdf, u_BN[:, 1:])
        kept = (draws.to(torch.int32).cpu().numpy(),)
    elif spec:
        kept = tuple(part.cpu().numpy() for part in top_k(z_BV, min(int(spec["k"]), z_BV.shape[-1]), capture))
    if temperature == 0:
        return z_BV.argmax(-1), kept
    if cdf is None or temperature != capture or top_p < 1:
        p_BV = (z_BV / temperature).softmax(-1)
        if top_p < 1:
            p_BV = _nucleus(p_BV, top_p)
        cdf = p_BV.double().cumsum(-1)
    return _invert(cdf, u_BN[:, :1])[:, 0], kept


def _nucleus(p_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """The fewest likeliest ids whose mass reaches `top_p`; zero elsewhere."""
    size = min(_NUCLEUS_FIRST, p_BV.shape[-1])
    best, ids = p_BV.topk(size, dim=-1)
    if bool((best.sum(-1) < top_p).any()):  # rare: some row is so flat that only a full sort will do
        best, ids = p_BV.sort(-1, descending=True)
    inside = best.cumsum(-1) - best < top_p
    return torch.zeros_like(p_BV).scatter_(-1, ids, best * inside)


def _invert(cdf_BV: torch.Tensor, u_BN: torch.Tensor) -> torch.Tensor:
    """Smallest id whose cumulative mass exceeds u × total; ids of zero mass are never drawn."""
    found = torch.searchsorted(cdf_BV, u_BN * cdf_BV[:, -1:], right=True)
    return found.clamp(max=cdf_BV.shape[-1] - 1)


def top_k(z_NV: torch.Tensor, k: int, temperature: float) -> tuple[torch.Tensor, ...]:
    """The parts of `logits.TopK`: ids (N, k), log-probabilities (N, k), log of the mass left out (N,) and
    log-normaliser (N,), the last two at `temperature`."""
    logp_NV = z_NV.log_softmax(-1)
    logp, ids = logp_NV.topk(k, dim=-1)
    scaled = logp_NV / temperature
    log_z = scaled.logsumexp(-1) if temperature != 1.0 else torch.zeros_like(logp[:, 0])
    return ids.to(torch.int32), logp, scaled.scatter(-1, ids, -torch.inf).logsumexp(-1) - log_z, log_z


def _targets(
    steps: Sequence[tuple[list[int], tuple[np.ndarray[Any, Any], ...]]], count: int, spec: dict[str, Any] | None
) -> list[logits.Target]:
    """What was kept at each step for each live request, as one target a request."""
    if spec is None:
        return []
    owner = np.concatenate([np.asarray(live) for live, _ in steps])
    order = np.argsort(owner, kind="stable")  # by request, then by step
    bounds = np.cumsum(np.bincount(owner, minlength=count))[:-1]
    parts = [np.split(np.concatenate(part)[order], bounds) for part in zip(*(kept for _, kept in steps), strict=True)]
    if spec["kind"] == "sampled":
        return [logits.count_draws(draws) for draws in parts[0]]
    return [logits.TopK(*arrays) for arrays in zip(*parts, strict=True)]


def _cut(target: logits.Target, length: int) -> logits.Target:
    """The first `length` positions."""
    if isinstance(target, logits.TopK):
        return logits.TopK(*(a[:length] for a in (target.ids, target.logprobs, target.log_tail, target.log_z)))
    end = int(target.uniques[:length].sum())
    return logits.Sampled(target.ids[:end], target.counts[:end], target.uniques[:length])
