"""Engines that answer requests: the recipe's section of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from synthgen.tables.reference import Reference
from synthgen.tables.section import Count, Section


class TeacherSection(Section):
    """Who is asked."""

    engine: Literal["transformers"] = "transformers"
    model: str
    """Hub id, folder, .gguf file, or package:NAME[/FILE] for a GGUF inside an installed package."""
    revision: str | None = None
    license: str = "unknown"
    """Terms of the teacher: SPDX id or a key of data/licenses.yaml."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    batch_size: Count = 64


_SET = "synthgen sets it"


_VLLM_OURS = {
    **dict.fromkeys(("max_logprobs", "logprobs_mode", "generation_config", "logits_processors"), _SET),
    "trust_remote_code": "code from a model's repository is not run",
}


class VllmTeacher(Section):
    """A model that vLLM runs in this process: one GPU, all GPUs of the machine, or the CPU."""

    engine: Literal["vllm"]
    model: str
    """As of the 'transformers' teacher."""
    revision: str | None = None
    license: str = "unknown"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """'auto' is the checkpoint's own."""
    tensor_parallel_size: Count = 1
    """GPUs that one copy of the model is cut over."""
    data_parallel_size: Count = 1
    """Copies of the model."""
    quantization: str | None = None
    """vLLM's name of the method; the checkpoint's own unless given."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of each GPU's memory; leave room for the log-probabilities of long prompts when you score."""
    max_model_len: Count | None = None
    """Tokens of prompt and completion; the model's own limit unless given."""
    max_num_seqs: Count | None = None
    """Rows that one copy writes at once; vLLM's own choice unless given."""
    extra: dict[str, Any] = {}
    """Further arguments of vLLM's engine, by its own names."""

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for key in extra:
            if key in _VLLM_OURS or key in cls.model_fields:
                raise ValueError(f"'{key}' cannot be set here: {_VLLM_OURS.get(key, 'it has a key of its own')}")
        return extra


class Prices(Section):
    """Dollars per million tokens."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cached_input: Annotated[float, Field(ge=0)] | None = None
    """Of prompt tokens that the provider had cached; the price of the others unless given."""


class ApiTeacher(Section):
    """A server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp and most providers."""

    engine: Literal["openai"]
    model: str
    base_url: str = "https://api.openai.com/v1"
    api_key_env: str | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key; null for a server without keys."""
    revision: str | None = None
    """What you know of the version behind the name; it is part of every row's id."""
    license: str = "unknown"
    tokenizer: str | None = None
    """Hub id or folder of the model's tokenizer: turns the server's tokens into ids; needed for logits."""
    rpm: Count | None = None
    """Requests a minute that your account allows."""
    tpm: Count | None = None
    """Tokens a minute that your account allows."""
    max_in_flight: Count = 64
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """Seconds for one answer."""
    attempts: Count = 5
    """Times a request is sent before it is a failure; refusals for pace (429) are not counted."""
    prices: Prices | None = None
    extra: dict[str, Any] = {}
    """Further parameters of the request's body; null takes out one that is sent otherwise."""

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        for key in ("messages", "model", "stream", "n"):
            if key in extra:
                raise ValueError(f"'{key}' cannot be set here: the request has its own")
        return extra

    @field_validator("base_url")
    @classmethod
    def _no_secrets(cls, url: str) -> str:
        host = url.partition("://")[2].partition("/")[0]
        if not url.startswith(("http://", "https://")) or not host:
            raise ValueError("an address begins with http:// or https://")
        if "@" in host or "?" in url:
            raise ValueError("no password or key in an address: name its environment variable in api_key_env")
        return url.rstrip("/")


class ReplayTeacher(Section):
    """Recorded replies, by the text that was asked: for benchmarks, tests, and rows made elsewhere."""

    engine: Literal["replay"]
    path: str
    """A corpus folder, or JSONL of {"prompt": text of the last message, "text": reply}."""
    model: str = "replay"
    revision: str | None = None
    license: str = "unknown"
    max_in_flight: Count = 64
    latency: Annotated[float, Field(ge=0)] = 0.0
    """Seconds that every reply takes."""


LocalTeacher = TeacherSection | VllmTeacher


AnyTeacher = Annotated[LocalTeacher | ApiTeacher | ReplayTeacher, Field(discriminator="engine")]


def with_engine(teacher: Any) -> Any:
    """A teacher's raw values with the engine that is meant when none is named."""
    return {"engine": "transformers", **teacher} if isinstance(teacher, dict) else teacher


def refuse_form(teacher: Any, wanted: Any) -> None:
    """Raise ValueError for a form of answers that this teacher cannot be held to. `wanted` is recipe.generate."""
    if wanted.json_schema is not None and isinstance(teacher, ReplayTeacher):
        raise ValueError(f"generate.json_schema: the '{teacher.engine}' teacher cannot be held to a schema")
    if wanted.regex is not None and not isinstance(teacher, LocalTeacher):
        raise ValueError(f"generate.regex: the '{teacher.engine}' teacher cannot be held to a pattern")


def refuse_logits(teacher: Any, wanted: Any, scoring: bool) -> None:
    """Raise ValueError for distributions that an engine does not give. `wanted` is recipe.logits; `scoring`: along
    given completions.

    vLLM gives the top at temperature 1, and draws at any, but draws only of what it writes itself. An API shows the
    top at temperature 1, as text."""
    if isinstance(teacher, TeacherSection):
        return
    if isinstance(teacher, VllmTeacher):
        if wanted.kind == "topk" and wanted.temperature != 1.0:
            raise ValueError(
                f"logits.temperature is {wanted.temperature}: the normalizer of a top-k at another temperature than 1 "
                "needs the whole distribution, which vLLM does not give; use 1, or kind: sampled"
            )
        if wanted.kind == "sampled" and scoring:
            raise ValueError(
                "logits.kind: vLLM gives no draws along completions that it did not write; use kind: topk, or the "
                "transformers engine"
            )
        return
    if isinstance(teacher, ReplayTeacher):
        raise ValueError("logits: a replay teacher has text alone; set logits: null")
    if wanted.kind == "sampled":
        raise ValueError(
            "logits.kind: 'sampled' needs the whole distribution, which an API does not give; "
            "use kind: topk (k at most 20 at most providers), or logits: null"
        )
    if wanted.temperature != 1.0:
        raise ValueError(
            f"logits.temperature is {wanted.temperature}: the normalizer at another temperature than 1 needs the "
            "whole distribution, which an API does not give; use 1"
        )
    if isinstance(teacher, ApiTeacher) and teacher.tokenizer is None:
        raise ValueError("logits: an API gives tokens as text; name the model's tokenizer in teacher.tokenizer")
    if isinstance(teacher, ApiTeacher) and "api.openai.com" in teacher.base_url and wanted.k > 20:
        raise ValueError(f"logits.k is {wanted.k}: this server gives 20 at most")


@dataclass(frozen=True)
class Engine:
    """What answers requests: its section of the recipe, what it can give, and the functions that open it."""

    section: type[Section]
    in_process: bool
    """Whether the model runs in this process. `opens` then gives a `Teacher`, otherwise a `RemoteTeacher`."""
    opens: Reference
    """(section, TeacherOptions) → teacher; see `synthgen.teachers.base`."""
    package: str = ""
    """A package without which the engine cannot work; it is looked for before anything is imported."""
    extra: str = ""
    """The extra of our package that installs what the engine imports."""
    batch_key: str = ""
    """The key that `synthgen tune` finds the best value of: how many requests are answered at once."""
    batch_key_is_free: bool = False
    """Whether an opened teacher takes another value as its attribute `batch_size`; otherwise it is opened again."""
    sends_tools: bool = False
    """Whether the tools that a seed brings are offered to the model."""
    prices: Reference | None = None
    """section → `Prices`, or None where they are unknown. Without this function answers cost nothing."""
    previews: Reference | None = None
    """(section, TeacherOptions) → `Caller`: what would be sent, without a key and without a connection."""
    batches: Reference | None = None
    """The provider's Batch API: (teacher, `Batching`) → coroutine that brings replies into the cache."""


ENGINES: dict[str, Engine] = {
    "transformers": Engine(
        TeacherSection,
        in_process=True,
        opens="synthgen.teachers.local:open_local",
        extra="train",
        batch_key="batch_size",
        batch_key_is_free=True,
    ),
    "vllm": Engine(
        VllmTeacher,
        in_process=True,
        opens="synthgen.teachers.vllm.model:open_vllm",
        package="vllm",
        extra="vllm",
        batch_key="max_num_seqs",
    ),
    "openai": Engine(
        ApiTeacher,
        in_process=False,
        opens="synthgen.teachers.openai:open_api",
        extra="api",
        sends_tools=True,
        prices="synthgen.generation.prices:listed",
        previews="synthgen.teachers.openai:preview",
        batches="synthgen.generation.batch:fill_cache",
    ),
    "replay": Engine(ReplayTeacher, in_process=False, opens="synthgen.teachers.replay:open_replay"),
}
