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

from synthgen import logits
from synthgen.errors import TeacherError
from synthgen.lm import prefix
from synthgen.lm.cache import grow_in_place
from synthgen.lm.forward import completion_logits
from synthgen.lm.load import load_description, load_weights, pick_device, tokenizer_hash
from synthgen.lm.render import render, render_each, render_open
from synthgen.lm.sampling import choose, cut, targets
from synthgen.records import Message, Sampling
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import Identity, Reply, TeacherOptions, Tick, no_tick
from synthgen.teachers.score import score
from synthgen.teachers.structured import Form

_RANDOM_STEPS = 32  # random numbers are drawn for this many steps at a time
_LABEL_TOKENS = 16  # room kept in the context for a label
_RIDE_ALONG = 0.9  # while this share of a batch still writes, dropping the others would cost more than it saves


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
    """A loaded model. `sample`, `classify`, `score` and `logprobs` are exact; see `synthgen.teachers.Teacher`."""

    can = frozenset({"sample", "classify", "score", "open_turn"})

    form: Form | None = None
    """What completions that become rows are held to."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        identity: Identity,
        batch_size: int,
        load: Callable[[], Any] | None = None,
        device: torch.device | None = None,
    ) -> None:
        """With `load`, `model` is only what it says of itself; the weights come, to `device`, when first wanted."""
        self.tokenizer = tokenizer
        self.identity = identity
        self.batch_size = batch_size
        self.config = model.config
        eos = model.generation_config.eos_token_id if model.generation_config else None
        eos = eos if isinstance(eos, list) else [eos]
        self.eos = {int(i) for i in [*eos, tokenizer.eos_token_id] if i is not None}
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        self.device = device or model.device
        self._load, self._model = load, None if load else model
        self.shares_prefix = False if load else prefix.enable(model)

    @classmethod
    def open(cls, section: TeacherSection, options: TeacherOptions | None = None, *, lazy: bool = False) -> LocalModel:
        """Load what the recipe names; `options` says which form answers must have, if any. Raises TeacherError.

        `lazy`: weights are loaded when they are first wanted, and can be dropped: `unload`.
        """
        device = pick_device(section.device)
        load: Callable[[], Any] | None = None
        if lazy:
            model, tokenizer, revision, weights = load_description(section)
            load = lambda: weights().to(device)  # noqa: E731
        else:
            model, tokenizer, revision = load_weights(section)
            model.to(device)
        size = int(model.config.get_text_config().vocab_size)
        identity: Identity = {
            "engine": "transformers",
            "model": section.model,
            "revision": revision,
            "dtype": section.dtype,
            "tokenizer": tokenizer_hash(tokenizer),
            "vocab_size": size,
            "license": section.license,
        }
        found = cls(model, tokenizer, identity, section.batch_size, load, device)
        if options and (options.json_schema is not None or options.regex is not None):
            found.form = Form(tokenizer, found.eos, size, options.json_schema, options.regex)
        return found

    @property
    def model(self) -> Any:
        """The model, loaded."""
        if self._model is None:
            assert self._load is not None
            self._model = self._load()
            self.shares_prefix = prefix.enable(self._model)
        return self._model

    @property
    def is_loaded(self) -> bool:
        return self._model is not None

    def unload(self) -> None:
        """Drop the weights of a model that was opened lazily; they are loaded again when they are wanted."""
        if self._load is not None:
            self._model = None

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt in the model's own chat template, ready for the answer."""
        return render(self.tokenizer, messages)

    def render_open(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation whose last message is not finished: the template up to where its text ends."""
        return render_open(self.tokenizer, messages)

    def close(self) -> None:
        """Nothing: the memory goes with the object."""

    @torch.inference_mode()
    def sample(
        self,
        requests: Sequence[Request],
        spec: logits.LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """One reply a request. A prompt that does not fit the context is a failure, not an error."""
        if len({(r.sampling["temperature"], r.sampling["top_p"]) for r in requests}) > 1:
            raise ValueError("requests of one call must share temperature and top_p")
        return self._in_batches(
            requests,
            [r.sampling["max_new_tokens"] for r in requests],
            lambda some, prompts: self._sample(some, prompts, spec, tick),
        )

    @torch.inference_mode()
    def complete(
        self, prompts: Sequence[Sequence[int]], keys: Sequence[str], temperature: float, max_new_tokens: int
    ) -> list[Reply]:
        """One reply a prompt of token ids; its random numbers come from its key, up to 32 hexadecimal digits."""
        sampling: Sampling = {"temperature": temperature, "top_p": 1.0, "max_new_tokens": max_new_tokens}
        asked = [Request("sample", [], sampling, id=key, target=False) for key in keys]
        order = sorted(range(len(asked)), key=lambda i: len(prompts[i]))
        replies: dict[int, Reply] = {}
        for begin in range(0, len(order), self.batch_size):
            some = order[begin : begin + self.batch_size]
            found = self._sample([asked[i] for i in some], [prompts[i] for i in some], None, no_tick)
            replies |= zip(some, found, strict=True)
        return [replies[i] for i in range(len(asked))]

    @torch.inference_mode()
    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """p(label) = product of the probabilities of its tokens after the prompt, normalized over the labels."""
        return self._in_batches(requests, [_LABEL_TOKENS] * len(requests), self._classify)

    def _in_batches(
        self,
        requests: Sequence[Request],
        new_tokens: Sequence[int],
        act: Callable[[list[Request], list[list[int]]], list[Reply]],
    ) -> list[Reply]:
        """Replies in order of `requests`; prompts of like length go together, so that little of a batch is padding."""
        prompts = self.render_each(requests)
        replies = [Reply(failure=self.too_long(prompt, new)) for prompt, new in zip(prompts, new_tokens, strict=True)]
        asked = sorted((i for i, r in enumerate(replies) if r.failure is None), key=lambda i: len(prompts[i]))
        for begin in range(0, len(asked), self.batch_size):
            batch = asked[begin : begin + self.batch_size]
            for i, reply in zip(batch, act([requests[i] for i in batch], [prompts[i] for i in batch]), strict=True):
                replies[i] = reply
        return replies

    @torch.inference_mode()
    def score(
        self,
        requests: Sequence[Request],
        spec: logits.LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """Teacher-forced passes over given completions; see `synthgen.teachers.score`."""
        return score(self, requests, spec, tick)

    @torch.inference_mode()
    def logprobs(self, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Teacher-forced log-probabilities, one (T, V) float32 tensor a row; entry t is the distribution of
        completion[t]."""
        return [z.float().log_softmax(-1) for z in completion_logits(self.model, prompts, completions, share=True)]

    def render_each(self, requests: Sequence[Request]) -> list[list[int]]:
        """Token ids of each request's prompt."""
        return render_each(self.tokenizer, requests)

    def too_long(self, prompt: Sequence[int], new: int) -> tuple[str, str] | None:
        """The failure of a request whose prompt and `new` tokens do not fit the context."""
        if len(prompt) + new <= self.context:
            return None
        return "context", f"prompt of {len(prompt)} tokens and {new} new ones exceed the context of {self.context}"

    def _prefill(self, prompts: Sequence[Sequence[int]]) -> _Prefilled:
        """Run the distinct prompts once, their shared prefix once for all."""
        device = self.model.device
        distinct = list(dict.fromkeys(tuple(p) for p in prompts))
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        shared = prefix.common(distinct) if self.shares_prefix and len(distinct) > 1 else 0
        more: dict[str, Any] = {}
        if shared >= prefix.WORTH_SHARING:
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
        spec: logits.LogitsSpec | None,
        tick: Tick,
    ) -> list[Reply]:
        device = self.model.device
        limits = np.array([r.sampling["max_new_tokens"] for r in requests])
        start = self._prefill(prompts)
        select = torch.tensor(start.rows, device=device)
        grow_in_place(start.cache, select, int(limits.max()))
        mask, z_BV = start.mask[select], start.logits_UV[select]
        draws = spec.draws if spec and spec.kind == "sampled" else 0
        random = [np.random.Generator(np.random.Philox(key=int(r.id, 16))) for r in requests]
        live = list(range(len(requests)))  # request at each row of the batch
        tokens: list[list[int]] = [[] for _ in requests]
        ended = [False] * len(requests)
        steps: list[tuple[list[int], tuple[np.ndarray[Any, Any], ...]]] = []
        form = self.form if requests[0].target else None
        answers = [form.begin() for _ in requests] if form else []
        allowed = None
        for step in range(int(limits.max())):
            if step % _RANDOM_STEPS == 0:
                block = {i: random[i].random((_RANDOM_STEPS, 1 + draws)) for i in live}
            u = torch.from_numpy(np.stack([block[i][step % _RANDOM_STEPS] for i in live])).to(device)
            if form:
                allowed = torch.from_numpy(form.allowed([answers[i] for i in live])).to(device)
            next_B, kept = choose(z_BV, u, [requests[i].sampling for i in live], spec, allowed)
            steps.append((list(live), kept))
            stay = []
            for row, (i, token) in enumerate(zip(live, next_B.tolist(), strict=True)):
                if form and not ended[i]:
                    answers[i].consume_token(token)
                tokens[i].append(token)
                ended[i] = ended[i] or token in self.eos or len(tokens[i]) >= limits[i]
                if not ended[i]:
                    stay.append(row)
            tick(len(stay))
            if not stay:
                break
            if len(stay) < _RIDE_ALONG * len(live):  # until the copy pays, ended rows ride along, and are cut off below
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
        kept_rows = targets(steps, len(requests), spec)
        return [
            self._reply(prompt, tokens[i][: limits[i]], kept_rows[i] if kept_rows else None, form)
            for i, prompt in enumerate(prompts)
        ]

    def _reply(
        self, prompt: Sequence[int], tokens: list[int], target: logits.Target | None, form: Form | None
    ) -> Reply:
        length = next((n + 1 for n, token in enumerate(tokens) if token in self.eos), len(tokens))
        tokens = tokens[:length]
        finish = "stop" if tokens[-1] in self.eos else "length"
        if target is not None:
            target = cut(target, length)
        text = self.tokenizer.decode([t for t in tokens if t not in self.eos], skip_special_tokens=True)
        if form and (wrong := form.wrong(text)):
            return Reply(failure=("schema", wrong))
        return Reply(text, prompt, tokens, finish, target)

    def _classify(self, requests: Sequence[Request], prompts: Sequence[Sequence[int]]) -> list[Reply]:
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
