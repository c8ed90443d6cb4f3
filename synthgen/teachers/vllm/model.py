"""The vLLM teacher. This teacher returns the same kinds of answers, targets and probabilities as the 'transformers'
teacher, but faster.

vLLM returns only token ids, and this module decodes them. If vLLM decoded the text of all most probable tokens, this
would take more time than the rest of a reply. Log-probabilities are computed from the raw logits, so they do not depend
on the sampling parameters. The random numbers of a row depend only on the row's id. The row's tokens and
log-probabilities may still depend on the other rows in the batch, because vLLM uses different kernels for different
batches.

When the installed vLLM lacks a feature, an error names vLLM's version and the missing names
(`synthgen.teachers.vllm.probe`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import AutoConfig, AutoTokenizer, GenerationConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import RequestOutputKind, SamplingParams

from synthgen.errors import TeacherError
from synthgen.lm.files import cannot_load, find_weights
from synthgen.lm.render import render, render_each
from synthgen.lm.tokens import tokenizer_hash
from synthgen.lm.turns import completion_ids
from synthgen.logits import LogitsSpec, Sampled, Target
from synthgen.records import Message
from synthgen.requests import Request
from synthgen.tables.engines import VllmTeacher
from synthgen.teachers.base import Identity, Reply, TeacherOptions, Tick, no_tick
from synthgen.teachers.labels import apart, most_likely
from synthgen.teachers.structured import mismatch, unmatched
from synthgen.teachers.vllm.engine import Engine, Job, Poison
from synthgen.teachers.vllm.flat import positions, top_k
from synthgen.teachers.vllm.probe import known, missing, require, version

_MOST_IDS = 128  # maximum number of token ids in one request for log-probabilities
_LABEL_TOKENS = 16  # number of tokens of the model's context that are reserved for a label
_NEEDED = {"sample": "generate", "classify": "classify", "score": "score"}  # capability -> key of `probe._NEEDS`


class _Failed(Exception):
    """Raised when a request cannot be answered because of the request's own content."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


class VllmModel:
    """A model that vLLM runs, as a teacher (see `synthgen.teachers.base.Teacher`). vLLM's engine starts at the first
    request.
    """

    def __init__(self, engine: Engine, tokenizer: Any, identity: Identity, eos: set[int], context: int) -> None:
        self.engine = engine
        self.tokenizer = tokenizer
        self.identity = identity
        self.eos = eos
        self.context = context
        self.form: dict[str, Any] = {}  # the arguments of StructuredOutputsParams
        self.can = frozenset({"open_turn", *(name for name, feature in _NEEDED.items() if not missing(feature))})

    @classmethod
    def open(cls, section: VllmTeacher, options: TeacherOptions | None = None) -> VllmModel:
        """Locate the model that the recipe names. The weights are loaded at the first request. Raises TeacherError."""
        require("generate")
        if strange := [name for name in section.extra if name not in known(section.extra, AsyncEngineArgs)]:
            raise TeacherError(
                f"teacher.extra: vLLM {version()} has no engine argument '{strange[0]}'", "correct the name"
            )
        folder, revision = find_weights(section.model)
        name = str(folder or section.model)
        more = {} if folder else {"revision": section.revision}
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False, **more)
            config = AutoConfig.from_pretrained(name, trust_remote_code=False, **more)
        except Exception as error:  # the hub client and tokenizers raise their own exceptions
            raise cannot_load(name, error) from None
        if tokenizer.chat_template is None:
            raise TeacherError(f"the tokenizer of '{name}' has no chat template", "use an instruction-tuned model")
        text = config.get_text_config()
        identity: Identity = {
            "engine": "vllm",
            "model": section.model,
            "revision": revision or str(getattr(config, "_commit_hash", None) or section.revision or "unknown"),
            "dtype": section.dtype if section.dtype != "auto" else str(text.dtype or "auto").removeprefix("torch."),
            "quantization": section.quantization,
            "version": version(),
            "tokenizer": tokenizer_hash(tokenizer),
            "vocab_size": int(text.vocab_size),
            "license": section.license,
        }
        context = min(section.max_model_len or 1 << 30, int(getattr(text, "max_position_embeddings", 0) or 1 << 30))
        model = cls(Engine(arguments(section, name)), tokenizer, identity, _ends(name, more, tokenizer), context)
        if options and (options.json_schema is not None or options.regex is not None):
            require("structured")
            model.form = {"json": options.json_schema} if options.regex is None else {"regex": options.regex}
        return model

    def close(self) -> None:
        """Stop the engine and its processes."""
        self.engine.close()

    def render(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a prompt in the model's chat template, up to the place where the answer begins."""
        return render(self.tokenizer, messages)

    def sample(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """One reply for each request. When a request is too long, is rejected by vLLM or kills the engine, its reply
        has a failure. No exception is raised.
        """
        return self._together(requests, spec, tick)

    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request. The probability of a label is the product of the probabilities of the label's
        tokens after the prompt, normalized over the labels. The labels' total probability before normalization is the
        score `label_mass`.
        """
        return self._together(requests, None, no_tick)

    def score(
        self,
        requests: Sequence[Request],
        spec: LogitsSpec | None,
        tick: Tick = no_tick,
    ) -> list[Reply]:
        """One reply for each request, with the log-probabilities of its completion's tokens. If `spec` is given, the
        reply also has the k most probable tokens at each position of the completion.

        To score a completion, vLLM computes the whole prompt again, because its prefix cache holds no logits. vLLM also
        generates one token after the completion, so the context must have room for one more token.
        """
        return self._together(requests, spec, tick)

    async def start(self) -> int:
        """Start the engine. Returns the number of requests to keep in flight. This number is 10% larger than the number
        that the engine processes at a time, so that the engine never waits for the next request.
        """
        return await self.engine.ask(self.engine.ready())

    async def ask(self, request: Request, spec: LogitsSpec | None, tick: Tick) -> Reply:
        """The reply to one request of any kind. May be called from any event loop. Many calls may run concurrently."""
        self._check(request.kind, spec)
        [prompt] = render_each(self.tokenizer, [(request.messages, request.open_turn)])
        return await self.engine.ask(self._answer(request, prompt, spec, tick))

    def _together(self, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick) -> list[Reply]:
        for kind in dict.fromkeys(request.kind for request in requests):
            self._check(kind, spec)
        prompts = render_each(self.tokenizer, [(r.messages, r.open_turn) for r in requests])
        asked = [self._answer(r, prompt, spec, tick) for r, prompt in zip(requests, prompts, strict=True)]
        return self.engine.call(_all(asked))

    async def _answer(self, request: Request, prompt: list[int], spec: LogitsSpec | None, tick: Tick) -> Reply:
        try:
            if request.kind == "classify":
                return await self._classify(request, prompt)
            if request.kind == "score":
                return await self._score(request, prompt, spec, tick)
            return await self._sample(request, prompt, spec, tick)
        except _Failed as failed:
            return Reply(failure=(failed.kind, failed.reason))

    async def _run(self, job: Job) -> tuple[Any, Sampled | None]:
        """Call `Engine.run`. Raises `_Failed` when the request itself caused an error."""
        try:
            return await self.engine.run(job)
        except Poison:
            reason = "vLLM's engine crashed twice on this request, the second time without other requests"
            raise _Failed("engine_died", reason) from None
        except (ValueError, VLLMValidationError) as error:
            raise _Failed("bad_request", str(error).strip()[:500]) from None

    def _check(self, kind: str, spec: LogitsSpec | None) -> None:
        """Raise TeacherError when the installed vLLM cannot answer requests of this kind with `spec`."""
        require(_NEEDED[kind])
        if spec is None or kind == "classify":
            return
        if kind == "score" and spec.kind == "sampled":
            raise TeacherError(
                f"vLLM {version()} gives full distributions only along text that it writes",
                "score with logits.kind: topk, or with the 'transformers' teacher",
            )
        require("sampled" if spec.kind == "sampled" else "topk")
        if spec.kind == "topk" and spec.temperature != 1.0:
            raise TeacherError(
                f"vLLM cannot give top-k logits at temperature {spec.temperature}: the normalizer at a "
                "temperature other than 1 needs the log-probabilities of the whole vocabulary",
                "set logits.temperature: 1.0, or logits.kind: sampled, which works at any temperature",
            )

    async def _sample(self, request: Request, prompt: list[int], spec: LogitsSpec | None, tick: Tick) -> Reply:
        if failure := self._too_long(prompt, int(request.sampling["max_new_tokens"])):
            return Reply(failure=failure)
        draws = (request.id, spec) if spec and spec.kind == "sampled" else None
        # Only answers that become rows must have the required form, not the intermediate answers of a strategy.
        form = self.form if request.target else {}
        params = sample_params(request, spec, self.eos, self.identity["vocab_size"], form)
        output, drawn = await self._run(Job(prompt, params, draws))
        done = output.outputs[0]
        tokens = list(done.token_ids)
        tick(len(tokens))
        if done.finish_reason not in ("stop", "length") or not tokens:
            return Reply(failure=("engine", f"vLLM ended the request with '{done.finish_reason}'"))
        text = self.tokenizer.decode([t for t in tokens if t not in self.eos], skip_special_tokens=True)
        if form and (wrong := mismatch(text, form["json"]) if "json" in form else unmatched(text, form["regex"])):
            return Reply(failure=("schema", wrong))
        target: Target | None = drawn
        if spec and spec.kind == "topk":
            target = top_k(*positions(done.logprobs), self.identity["vocab_size"])
        return Reply(text, prompt, tokens, "stop" if tokens[-1] in self.eos else "length", target)

    async def _classify(self, request: Request, prompt: list[int]) -> Reply:
        if failure := self._too_long(prompt, _LABEL_TOKENS):
            return Reply(failure=failure)
        labels = [tuple(self.tokenizer(name, add_special_tokens=False)["input_ids"]) for name in request.labels]
        if len(set(labels)) < len(labels) or not all(labels):
            named = ", ".join(request.labels)
            raise TeacherError(f"labels {named} are not distinct token sequences", "rename some of generate.labels")
        nexts: dict[tuple[int, ...], list[int]] = {}  # maps the beginning of labels to the tokens that can follow
        for label in labels:
            for place, token in enumerate(label):
                known = nexts.setdefault(label[:place], [])
                if token not in known:
                    known.append(token)
        asked = [(b, ids[n : n + _MOST_IDS]) for b, ids in nexts.items() for n in range(0, len(ids), _MOST_IDS)]
        found = await _all([self._next(prompt, before, ids) for before, ids in asked])
        logp = {key: value for part in found for key, value in part.items()}
        score = np.array([sum(logp[label[: n + 1]] for n in range(len(label))) for label in labels])
        likely = max((key for key in logp if len(key) == 1), key=logp.__getitem__)  # `_next` adds the likeliest token
        reply = most_likely(request.labels, apart(labels, np.exp(score).tolist()), str(self.tokenizer.decode(likely)))
        best = labels[request.labels.index(reply.text)] if reply.failure is None else ()
        return replace(reply, prompt_token_ids=prompt, token_ids=list(best))

    async def _next(self, prompt: list[int], before: tuple[int, ...], ids: list[int]) -> dict[tuple[int, ...], float]:
        """For each of `ids`, the log-probability that it is the next token after `prompt` and the tokens `before`; also
        the log-probability of the most probable next token. The key of each log-probability is (*before, id).
        """
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            logprob_token_ids=ids,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output, _ = await self._run(Job([*prompt, *before], params))
        tokens, logprobs = positions(output.outputs[0].logprobs)
        found = dict(zip(tokens[0].tolist(), logprobs[0].tolist(), strict=True))
        return {(*before, token): found[token] for token in [*ids, int(tokens[0][0])]}

    async def _score(self, request: Request, prompt: list[int], spec: LogitsSpec | None, tick: Tick) -> Reply:
        text = request.completion[0]["content"] or ""
        completion = completion_ids(self.tokenizer, self.eos, text, request.completion_ids)
        if not completion:
            return Reply(failure=("empty", "the completion has no tokens"))
        if failure := self._too_long(prompt, len(completion) + 1):
            return Reply(failure=failure)
        vocab_size = self.identity["vocab_size"]
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            prompt_logprobs=min(spec.k, vocab_size) if spec else 0,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        output, _ = await self._run(Job([*prompt, *completion], params))
        ids, logprobs = positions(output.prompt_logprobs, len(prompt))
        if ids[:, 0].tolist() != completion:
            raise TeacherError(
                f"vLLM {version()} did not score the tokens that it was given", "report this with the version of vLLM"
            )
        tick(len(completion))
        target = top_k(ids, logprobs, vocab_size) if spec else None
        finish = "stop" if completion[-1] in self.eos else "length"
        return Reply(text, prompt, completion, finish, target, token_logprobs=logprobs[:, 0].tolist())

    def _too_long(self, prompt: Sequence[int], new: int) -> tuple[str, str] | None:
        if len(prompt) + new <= self.context:
            return None
        return "context", f"prompt of {len(prompt)} tokens and {new} new tokens exceed the context of {self.context}"


def arguments(section: VllmTeacher, model: str) -> dict[str, Any]:
    """The arguments of `AsyncEngineArgs`. Keys that are null in the recipe are left out, so vLLM uses its defaults."""
    wanted = {
        "model": model,
        "revision": section.revision,
        "trust_remote_code": False,
        "dtype": section.dtype,
        "tensor_parallel_size": section.tensor_parallel_size,
        "data_parallel_size": section.data_parallel_size,
        "quantization": section.quantization,
        "gpu_memory_utilization": section.gpu_memory_utilization,
        "max_model_len": section.max_model_len,
        "max_num_seqs": section.max_num_seqs,
        "max_logprobs": -1,
        "logprobs_mode": "raw_logprobs",
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # the checkpoint's generation config would silently change the sampling
        "use_tqdm_on_load": False,
        **section.extra,
    }
    return {name: value for name, value in wanted.items() if value is not None}


def sample_params(
    request: Request, spec: LogitsSpec | None, eos: set[int], vocab_size: int, form: dict[str, Any]
) -> SamplingParams:
    """vLLM's parameters for one request: the request's sampling parameters, and which log-probabilities to return."""
    more: dict[str, Any] = {}
    if spec:  # for draws, vLLM returns the largest log-probability, which shows to which position the draws belong
        more = {"logprobs": min(spec.k, vocab_size) if spec.kind == "topk" else 1, "flat_logprobs": True}
    if form:
        from vllm.sampling_params import StructuredOutputsParams

        more["structured_outputs"] = StructuredOutputsParams(**form)
    return SamplingParams(
        temperature=request.sampling["temperature"],
        top_p=request.sampling["top_p"],
        max_tokens=int(request.sampling["max_new_tokens"]),
        seed=int(request.id, 16) >> 65,  # the upper 63 bits of the 128-bit id
        stop_token_ids=sorted(eos),
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        **more,
    )


def _ends(name: str, more: dict[str, Any], tokenizer: Any) -> set[int]:
    """The token ids that end an answer, from the checkpoint's generation config and from the tokenizer."""
    try:
        found = GenerationConfig.from_pretrained(name, **more).eos_token_id
    except OSError:  # the checkpoint has no generation config
        found = None
    return {int(i) for i in [*(found if isinstance(found, list) else [found]), tokenizer.eos_token_id] if i is not None}


async def _all(work: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run coroutines concurrently. Returns the coroutines' results in the order of `work`. The first error cancels the
    other coroutines.
    """
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def open_vllm(section: VllmTeacher, options: TeacherOptions) -> VllmModel:
    """Locate the model that the recipe names. The weights are loaded at the first request. Raises TeacherError."""
    return VllmModel.open(section, options)
