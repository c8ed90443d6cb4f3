"""Sections of the recipe about who is asked: the kinds of teacher, their prices, the budget."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]  # of a teacher, and of its logits' folder


class Section(BaseModel):
    """A mapping of the recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


class TeacherSection(Section):
    """Who is asked."""

    engine: Literal["transformers"] = "transformers"
    model: str
    """Hub id, folder, .gguf file, or package:NAME[/FILE] for a GGUF inside an installed package."""
    revision: str | None = None
    licence: str = "unknown"
    """Terms of the teacher: SPDX id or a key of data/licences.yaml."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    batch_size: Count = 64


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
    licence: str = "unknown"
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
    licence: str = "unknown"
    max_in_flight: Count = 64
    latency: Annotated[float, Field(ge=0)] = 0.0
    """Seconds that every reply takes."""


AnyTeacher = Annotated[TeacherSection | ApiTeacher | ReplayTeacher, Field(discriminator="engine")]


def with_engine(teacher: Any) -> Any:
    """A teacher's raw values with the engine that is meant when none is named."""
    return {"engine": "transformers", **teacher} if isinstance(teacher, dict) else teacher


class Budget(Section):
    """The most that a run may spend, however often it is resumed."""

    usd: Annotated[float, Field(ge=0)] | None = None
    tokens: Count | None = None
