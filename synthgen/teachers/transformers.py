"""The in-process teacher: answers requests with any causal language model of `transformers`.

The full distribution is available at every decoding step, so the stored part is exact. The random numbers of a request
depend only on the request's id. The division into batches depends only on the requests and their order. Therefore, the
same requests always lead to a shard with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from synthgen.errors import TeacherError
from synthgen.lm.model import LABEL_TOKENS, LanguageModel
from synthgen.lm.sampling import Sampler
from synthgen.lm.writing import Prompt, Written
from synthgen.logits import LogitsSpec
from synthgen.records import Message
from synthgen.requests import Request
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import Identity, Reply, TeacherOptions, Tick, no_tick
from synthgen.teachers.labels import apart, most_likely
from synthgen.teachers.score import score, too_long
from synthgen.teachers.structured import Form


@dataclass
class LocalModel(LanguageModel):
    """A language model as a teacher (see `synthgen.teachers.base.Teacher`).

    `license` is the license of the model's output. `form` is the form that completions must have if they become rows,
    such as a JSON schema.
    """

    license: str = "unknown"
    form: Form | None = None

    can = frozenset({"sample", "classify", "score", "open_turn"})

    @classmethod
    def open(cls, section: TeacherSection, options: TeacherOptions | None = None, *, lazy: bool = False) -> LocalModel:
        """Load the model that `section` names. `options` may contain the form that answers must have. Raises
        TeacherError.

        With `lazy`, weights are loaded when they are first needed. The files of the model must exist when `open` is
        called, because their hash is part of the teacher's identity.
        """
        model = super().open(section, lazy=lazy)
        assert model.weights.revision, "what comes from files has one"
        model.license = section.license
        if options and (options.json_schema is not None or options.regex is not None):
            size, tokens = model.weights.vocab_size, model.tokens
            model.form = Form(tokens.tokenizer, set(tokens.eos), size, options.json_schema, options.regex)
        return model

    @property
    def identity(self) -> Identity:
        """See `synthgen.teachers.base.Teacher`."""
        return {
            "engine": "transformers",
            "model": self.weights.name,
            "revision": self.weights.revision,
            "dtype": self.weights.dtype,
            "tokenizer": self.tokens.hash,
            "vocab_size": self.weights.vocab_size,
            "license": self.license,
        }

    @property
    def model(self) -> PreTrainedModel:
        """The transformers model. Its weights are loaded if necessary."""
        return self.weights.model

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self.tokens.tokenizer

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt in the model's chat template, up to the place where the answer begins."""
        return self.tokens.render(messages)

    def close(self) -> None:
        """Does nothing, because the model's memory is freed with the object."""

    def sample(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """One reply for each request. When a prompt and its `max_new_tokens` exceed the context, the reply has a
        failure, and no exception is raised.
        """
        if len({(r.sampling["temperature"], r.sampling["top_p"]) for r in requests}) > 1:
            raise ValueError("requests of one call must share temperature and top_p")

        def act(batch: list[Request], prompts: list[list[int]]) -> list[Reply]:
            first = batch[0]
            form = self.form if first.target else None
            temperature, top_p = first.sampling["temperature"], first.sampling["top_p"]
            assert temperature is not None
            assert top_p is not None
            sampler = Sampler(temperature, top_p, spec)
            asked = [Prompt(ids, r.id, r.sampling["max_new_tokens"]) for ids, r in zip(prompts, batch, strict=True)]
            written = self.write(asked, sampler, form=form, tick=tick)
            return [self._reply(ids, one, form) for ids, one in zip(prompts, written, strict=True)]

        return self._in_batches(requests, [r.sampling["max_new_tokens"] for r in requests], act)

    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request. The probability of a label is the product of the probabilities of the label's
        tokens after the prompt, less the probabilities of longer labels that begin with this label, normalized over the
        labels. The labels' total probability before normalization is the score `label_mass`.
        """

        def act(batch: list[Request], prompts: list[list[int]]) -> list[Reply]:
            names = batch[0].labels
            labels = [self.tokens.ids(name) for name in names]
            if len({tuple(ids) for ids in labels}) < len(labels) or not all(labels):
                raise TeacherError(
                    f"labels {', '.join(names)} are not distinct token sequences", "rename some of generate.labels"
                )
            replies = []
            for prompt, (begun, likely) in zip(prompts, self.label_probs(prompts, labels), strict=True):
                reply = most_likely(names, apart(labels, begun), self.tokens.decode([likely]))
                best = labels[names.index(reply.text)] if reply.failure is None else ()
                replies.append(replace(reply, prompt_token_ids=prompt, token_ids=best))
            return replies

        return self._in_batches(requests, [LABEL_TOKENS] * len(requests), act)

    @torch.inference_mode()
    def score(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """One reply for each request, with the distributions over its completion. See `synthgen.teachers.score`."""
        return score(self, requests, spec, tick)

    def _in_batches(
        self,
        requests: Sequence[Request],
        new_tokens: Sequence[int],
        act: Callable[[list[Request], list[list[int]]], list[Reply]],
    ) -> list[Reply]:
        """Call `act` on batches of requests. Returns replies in the order of `requests`. Prompts of similar length
        share a batch, which keeps padding small.
        """
        prompts = self.tokens.render_each([(r.messages, r.open_turn) for r in requests])
        context = self.context
        replies = [
            Reply(failure=too_long(prompt, new, context)) for prompt, new in zip(prompts, new_tokens, strict=True)
        ]
        asked = sorted((i for i, r in enumerate(replies) if r.failure is None), key=lambda i: len(prompts[i]))
        for begin in range(0, len(asked), self.batch_size):
            batch = asked[begin : begin + self.batch_size]
            for i, reply in zip(batch, act([requests[i] for i in batch], [prompts[i] for i in batch]), strict=True):
                replies[i] = reply
        return replies

    def _reply(self, prompt: Sequence[int], written: Written, form: Form | None) -> Reply:
        if written.broken:
            reason = f"the model's logits are not finite numbers in {self.weights.dtype}; use another teacher.dtype"
            return Reply(failure=("engine", reason))
        text = self.tokens.decode(written.tokens)
        if form and (wrong := form.wrong(text)):
            return Reply(failure=("schema", wrong))
        return Reply(text, prompt, written.tokens, "stop" if written.ended else "length", written.target)
