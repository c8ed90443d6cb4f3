"""ENGINES: the engines that answer requests. An entry holds all facts about an engine: its section of the recipe, its
capabilities and its functions.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, field_validator

from synthgen.tables.reference import Reference
from synthgen.tables.section import Count, Json, ModelName, PathName, Section


class AnyTeacher(Section):
    """The keys that the section of every engine has."""

    engine: str
    """The engine, which runs or calls the model. The engine determines the other keys."""
    model: str
    """Name of the model."""
    revision: str | None = None
    """Commit, tag or branch on the hub; the newest commit when left out."""
    license: str = "unknown"
    """License of the model's output and weights: an SPDX id, or a key of data/licenses.yaml. The audit judges this
    license.
    """
    account: Literal["ours", "third_party"] | None = None
    """Whose account asks the model, if it is a service. `third_party`: replies that somebody else has recorded."""


class TeacherSection(AnyTeacher):
    """A model that transformers runs in this process."""

    engine: Literal["transformers"] = "transformers"
    model: ModelName
    """Hub id, folder, .gguf file, or package:NAME[/FILE] for a GGUF file inside an installed package. A folder begins
    with `.`, `/` or `~`."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the weights and of the computation."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the model runs. auto is the first GPU, or the CPU on a machine without a GPU."""
    batch_size: Count = 64
    """Number of requests that are answered together. `synthgen tune` measures the best value."""


_SET = "synthgen sets this value"


_VLLM_OURS = {
    **dict.fromkeys(("max_logprobs", "logprobs_mode", "generation_config", "logits_processors"), _SET),
    "trust_remote_code": "code from a model's repository is not run",
}


class VllmTeacher(AnyTeacher):
    """A model that vLLM runs in a separate process: on one GPU, on all GPUs of the machine, or on the CPU."""

    engine: Literal["vllm"]
    model: ModelName
    """Hub id, folder, .gguf file, or package:NAME[/FILE] for a GGUF file inside an installed package. A folder begins
    with `.`, `/` or `~`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number type of the weights and of the computation. auto is the number type of the checkpoint."""
    tensor_parallel_size: Count = 1
    """Number of GPUs for each copy of the model."""
    data_parallel_size: Count = 1
    """Number of copies of the model."""
    quantization: str | None = None
    """Quantization method, by vLLM's name; the method of the checkpoint when left out."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of each GPU's memory that vLLM may use. Leave room for log-probabilities when you score long prompts."""
    max_model_len: Count | None = None
    """Maximum number of tokens of prompt and completion together; the model's own limit when left out."""
    max_num_seqs: Count | None = None
    """Maximum number of completions that one copy of the model generates together. When left out, vLLM decides.
    `synthgen tune` measures the best value.
    """
    extra: dict[str, Json] = {}
    """Further arguments of vLLM's engine, by vLLM's names."""

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Json]) -> dict[str, Json]:
        for key in extra:
            if key in _VLLM_OURS or key in cls.model_fields:
                raise ValueError(
                    f"'{key}' cannot be set here: {_VLLM_OURS.get(key, 'it is a key of the teacher section')}"
                )
        return extra


class Prices(Section):
    """Dollars per million tokens."""

    input: Annotated[float, Field(ge=0)]
    """Price of prompt tokens."""
    output: Annotated[float, Field(ge=0)]
    """Price of completion tokens."""
    cached_input: Annotated[float, Field(ge=0)] | None = None
    """Price of prompt tokens that the provider had cached; the same as `input` when left out."""
    service_tier: str | None = None
    """The service tier that these prices are for; the provider's usual tier when left out."""


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _between(value: object, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


# Parameters of `extra` that affect the rows or the cost that is reserved from the budget. Each is mapped to a function
# that checks its value, and to a text that says which values are valid.
_EXTRA: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens"),
        (lambda v: _whole(v) and _between(v, 1, 2**31), "a whole number of at least 1"),
    ),
    "temperature": (lambda v: _between(v, 0, 1e6), "a number of at least 0"),
    "top_p": (lambda v: _between(v, 1e-9, 1), "a number above 0 and at most 1"),
    "seed": (_whole, "a whole number"),
    "tools": (lambda v: isinstance(v, list) and all(isinstance(tool, dict) for tool in v), "a list of tools"),
    "service_tier": (lambda v: isinstance(v, str), "the name of a tier"),
}


class ApiTeacher(AnyTeacher):
    """A server that speaks OpenAI's chat completions: OpenAI itself, vLLM, llama.cpp and most providers."""

    engine: Literal["openai"]
    model: str
    """Name of the model at the server."""
    base_url: str = "https://api.openai.com/v1"
    """Address of the server, including /v1 at the end."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the API key; null for a server that needs none."""
    revision: str | None = None
    """The version of the model, if you know it. Every row's id depends on the revision."""
    tokenizer: ModelName | None = None
    """Hub id or folder of the model's tokenizer. The tokenizer converts the server's tokens to ids. `logits` requires
    this key.
    """
    rpm: Count | None = None
    """Number of requests that your account may send in a minute."""
    tpm: Count | None = None
    """Number of tokens that your account may use in a minute."""
    max_in_flight: Count = 64
    """Maximum number of requests that wait for an answer at the same time."""
    timeout: Annotated[float, Field(gt=0)] = 300.0
    """Number of seconds to wait for one answer."""
    max_retries: Annotated[int, Field(ge=0)] = 4
    """Number of times that a request is sent again before it becomes a failure. When the server asks to slow down
    (429), sending again does not count."""
    prices: Prices | None = None
    """Prices of this model, for estimates and budgets; the prices in data/prices.yaml when left out."""
    extra: dict[str, Json] = {}
    """Additional parameters of the request's body. null removes a parameter that is sent by default."""

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Json]) -> dict[str, Json]:
        for key in ("messages", "model", "stream", "n", "best_of", "logprobs", "top_logprobs", "response_format"):
            if key in extra:
                raise ValueError(f"'{key}' cannot be set here: synthgen decides its value")
        for key, value in extra.items():
            if key in _EXTRA and value is not None and not _EXTRA[key][0](value):
                raise ValueError(f"'{key}' is {value!r}, but must be {_EXTRA[key][1]}")
        return extra

    @field_validator("api_key_env")
    @classmethod
    def _name(cls, name: str | None) -> str | None:
        if name is not None and name not in os.environ and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,99}", name):
            raise ValueError(
                "it must be the name of an environment variable, such as OPENAI_API_KEY, not the key itself"
            )
        return name

    @field_validator("base_url")
    @classmethod
    def _no_secrets(cls, url: str) -> str:
        host = url.partition("://")[2].partition("/")[0]
        if not url.startswith(("http://", "https://")) or not host:
            raise ValueError("the address must begin with http:// or https://")
        if "@" in host or "?" in url:
            raise ValueError(
                "the address must not contain a password or key: name its environment variable in api_key_env"
            )
        return url.rstrip("/")


class ReplayTeacher(AnyTeacher):
    """Recorded replies, looked up by the text of the last message. This engine is for tests, for benchmarks, and for
    replies from other sources."""

    engine: Literal["replay"]
    path: PathName
    """A corpus folder, or a JSONL file of {"prompt": text of the last message, "text": reply}."""
    model: str = "replay"
    """Name of the teacher in the rows."""
    max_in_flight: Count = 64
    """Maximum number of requests that are answered at the same time."""
    latency: Annotated[float, Field(ge=0)] = 0.0
    """Number of seconds that every reply takes."""


LocalTeacher = TeacherSection | VllmTeacher


def _weights(teacher: AnyTeacher) -> TeacherSection:
    """The section with which transformers loads the weights of a vLLM teacher."""
    assert isinstance(teacher, VllmTeacher)
    dtype = "float32" if teacher.dtype == "auto" else teacher.dtype
    return TeacherSection(model=teacher.model, revision=teacher.revision, license=teacher.license, dtype=dtype)


def _itself(teacher: AnyTeacher) -> TeacherSection:
    assert isinstance(teacher, TeacherSection)
    return teacher


def _most_k(teacher: AnyTeacher) -> int | None:
    """The largest k for top-k distributions. OpenAI's own server returns at most the 20 most probable tokens. None for
    other servers, whose limits are unknown.
    """
    assert isinstance(teacher, ApiTeacher)
    return 20 if "api.openai.com" in teacher.base_url else None


@dataclass(frozen=True)
class Engine:
    """An engine: its section of the recipe, its capabilities, and the functions that open it."""

    section: type[AnyTeacher]
    in_process: bool
    """Whether the model runs in this process or in a process that synthgen starts. When this field is true, `opens`
    returns a `Teacher`, otherwise a `RemoteTeacher`.
    """
    opens: Reference
    """(section, TeacherOptions) → teacher; see `synthgen.teachers.base`."""
    package: str = ""
    """A package that the engine needs. synthgen checks that it is installed before it imports the engine."""
    extra: str = ""
    """The pip extra of synthgen-distill that installs the packages that the engine imports."""
    batch_key: str = ""
    """The key of the section that `synthgen tune` optimizes: the key that sets how many requests are answered
    together.
    """
    batch_key_is_free: bool = False
    """Whether `synthgen tune` can change the value of `batch_key` while the teacher is open, by setting the teacher's
    attribute `batch_size`. Otherwise the teacher is opened again for each value.
    """
    sends_tools: bool = False
    """Whether the tools of a seed are offered to the model."""
    prices: Reference | None = None
    """(section) → `Prices`, or None when the prices are unknown. For an engine without this function, answers cost
    nothing.
    """
    previews: Reference | None = None
    """(section, TeacherOptions) → `Caller` that shows what would be sent. The `Caller` needs no API key and no
    connection.
    """
    batches: Reference | None = None
    """(teacher, `Batching`) → coroutine that gets replies from the provider's Batch API and stores them in the
    cache.
    """
    top_k: bool = False
    """Whether the engine returns, for each token of its completions, the most probable tokens with their probabilities
    at temperature 1. An engine that can score also returns them for given completions.
    """
    any_temperature: bool = False
    """Whether the engine can also compute a top-k's normalizer at temperatures other than 1."""
    draws: bool = False
    """Whether the engine draws tokens from the full distribution at each position of its own completions."""
    draws_along: bool = False
    """Whether the engine also draws tokens at each position of completions that it did not write."""
    tokens_as_text: bool = False
    """Whether the engine returns the tokens of its distributions as text. The section's `tokenizer` then converts these
    texts to ids.
    """
    most_k: Callable[[AnyTeacher], int | None] | None = None
    """The largest `logits.k` that this teacher supports, if there is a limit."""
    json_schema: bool = False
    """Whether the engine's answers can be constrained to a JSON schema."""
    regex: bool = False
    """Whether the engine's answers can be constrained to a regular expression."""
    weights: Callable[[AnyTeacher], TeacherSection] | None = None
    """(section) → the section with which transformers loads the same weights. None when the weights are not on this
    machine.
    """
    may_change: tuple[str, ...] = ()
    """Keys of the section that do not affect the answers. The values of these keys may change when a run is resumed."""


ASK_ONE: Reference = "synthgen.generation.one_teacher:ask_one"
"""(recipe, teacher's name, requests, folder of the generated rows, ui) → replies. This function asks one teacher of a
recipe, with any engine, outside of generation.
"""

_PACE = ("api_key_env", "rpm", "tpm", "max_in_flight", "timeout", "max_retries")

ENGINES: dict[str, Engine] = {
    "transformers": Engine(
        TeacherSection,
        in_process=True,
        top_k=True,
        any_temperature=True,
        draws=True,
        draws_along=True,
        json_schema=True,
        regex=True,
        weights=_itself,
        opens="synthgen.teachers.local:open_local",
        extra="train",
        batch_key="batch_size",
        batch_key_is_free=True,
    ),
    "vllm": Engine(
        VllmTeacher,
        in_process=True,
        top_k=True,
        draws=True,
        json_schema=True,
        regex=True,
        weights=_weights,
        may_change=("tensor_parallel_size", "data_parallel_size", "gpu_memory_utilization", "max_num_seqs"),
        opens="synthgen.teachers.vllm.model:open_vllm",
        package="vllm",
        extra="vllm",
        batch_key="max_num_seqs",
    ),
    "openai": Engine(
        ApiTeacher,
        in_process=False,
        top_k=True,
        tokens_as_text=True,
        most_k=_most_k,
        json_schema=True,
        may_change=_PACE,
        opens="synthgen.teachers.openai:open_api",
        extra="api",
        sends_tools=True,
        prices="synthgen.generation.prices:listed",
        previews="synthgen.teachers.openai:preview",
        batches="synthgen.generation.batch:fill_cache",
    ),
    "replay": Engine(
        ReplayTeacher,
        in_process=False,
        opens="synthgen.teachers.replay:open_replay",
        may_change=("max_in_flight",),
    ),
}
