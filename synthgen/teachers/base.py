"""Teachers: who is asked. Two protocols; capabilities are probed, never assumed.

A local engine (`Teacher`) answers many requests at a time:

    teacher = open_teacher(recipe.teacher)
    replies = teacher.sample(requests, spec)      # text, token ids, and the distributions that `spec` asks for
    probs = teacher.classify(requests)            # probabilities of each request's labels
    given = teacher.score(requests, spec)         # the distributions along completions that are given

A remote one (`RemoteTeacher`) is asked one request at a time by `synthgen.generation.scheduler`, which keeps what
comes back and decides when and how often to ask. Which engine opens which teacher: `synthgen.tables.engines`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

from synthgen.logits import LogitsSpec, Target
from synthgen.records import Sampling, Usage
from synthgen.requests import Request

FAILURES = (
    "timeout",  # no answer in time
    "connection",  # the connection broke, or half a body came
    "server",  # 5xx
    "bad_request",  # the server will not take this request
    "context",  # prompt and answer do not fit the model
    "content_filter",  # the provider withheld the answer
    "schema",  # not the JSON that was due, of the server or of the answer
    "empty",  # no answer in the reply
    "too_large",  # more bytes than such an answer can have
    "engine",  # the engine ended the request without an answer
    "engine_died",  # it died, and died again with this request alone
)


Tick = Callable[[int], None]
"""Is called with the number of tokens that were made since the last call."""


def no_tick(tokens: int) -> None:
    """A `Tick` that shows nothing."""


class Identity(TypedDict):
    """Who a teacher is, as a manifest stores it: exact revision, number type, hash and size of the tokenizer's
    vocabulary ("" and 0 where there is none), license."""

    engine: str
    model: str
    revision: str
    dtype: str
    tokenizer: str
    vocab_size: int
    license: str
    base_url: NotRequired[str]
    quantization: NotRequired[str | None]
    version: NotRequired[str]


@dataclass(frozen=True)
class TeacherOptions:
    """What a recipe says of every answer of its teachers: a form that it must have, and distributions beside it.

    `name` is that of the JSON schema; `spec` says which part of the distributions is kept.
    """

    name: str = ""
    json_schema: dict[str, object] | None = None
    regex: str | None = None
    spec: LogitsSpec | None = None


@dataclass(frozen=True)
class Reply:
    """What came back for one request: an answer, or `failure` = (kind, reason).

    `label_probs` sums to 1 over the request's labels (kind 'classify' only). `token_logprobs` are those of the
    given completion's tokens, in nats (kind 'score' only). `finish_reason` is one of `records.FINISH_REASONS`.
    `tool_calls` is JSON text. `usage` is what the server counted, where there is a server; `served_model` is the model
    that it says has answered. `sampling` and `tools` (JSON text) are what was sent, where they differ from the
    request's. `cost_usd` is None
    where the price is unknown; `price_share` of the price is what such a reply costs.
    """

    text: str = ""
    prompt_token_ids: Sequence[int] = ()
    token_ids: Sequence[int] = ()
    finish_reason: str = ""
    target: Target | None = None
    label_probs: Sequence[float] | None = None
    failure: tuple[str, str] | None = None
    reasoning: str | None = None
    tool_calls: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = 0.0
    scores: Sequence[tuple[str, float]] = ()
    price_share: float = 1.0
    token_logprobs: Sequence[float] | None = None
    served_model: str | None = None
    sampling: Sampling | None = None
    tools: str | None = None


class Teacher(Protocol):
    """What every local engine offers."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def can(self) -> frozenset[str]:
        """Of "sample", "classify", "score", "embed", "open_turn" (going on with an open message): what it offers."""

    def sample(self, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick = ...) -> list[Reply]:
        """One reply a request, in order, with what `spec` keeps of the distributions."""

    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """Probabilities of each request's `labels`."""

    def score(self, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick = ...) -> list[Reply]:
        """Log-probabilities of each request's `completion`, and what `spec` keeps of its distributions."""

    def close(self) -> None:
        """Let go of the model, its memory and its processes."""


class Embeds(Teacher, Protocol):
    """A local engine that reads texts."""

    def embed(self, requests: Sequence[Request]) -> list[Reply]:
        """The tokens of each text, or why it cannot be read whole."""


@runtime_checkable
class StreamingTeacher(Teacher, Protocol):
    """A local engine that is fastest when requests come one at a time, and another as soon as one is done."""

    async def start(self) -> int:
        """Start the engine; how many requests it should have at once to be full."""

    async def ask(self, request: Request, spec: LogitsSpec | None, tick: Tick) -> Reply:
        """The reply to one request of any kind, from any event loop."""


@dataclass(frozen=True, slots=True)
class Call:
    """What one request sends. `key` hashes all that decides the reply. Tokens: an estimate of the prompt, and the
    most that prompt and completion can have. `alternatives` come with each token of the reply; `token_ids`: as ids,
    where the server can."""

    payload: bytes
    key: bytes
    prompt_tokens: int
    most_prompt: int
    most_completion: int
    alternatives: int = 0
    token_ids: bool = False


class Refused(Exception):
    """An attempt that brought no reply.

    `after`: seconds that the server asks to wait. `pace`: it was too fast (429), which is no failure. `retry`:
    another attempt may work. `billed`: the model may have worked. `fatal`: no request can work (a wrong key).
    """

    def __init__(
        self,
        kind: str,
        reason: str,
        *,
        retry: bool = False,
        after: float | None = None,
        pace: bool = False,
        billed: bool = False,
        fatal: bool = False,
    ) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason
        self.retry, self.after, self.pace, self.billed, self.fatal = retry, after, pace, billed, fatal


class Caller(Protocol):
    """Turns requests into what is sent."""

    def call(self, request: Request) -> Call:
        """What to send; the same request makes the same call in any run."""


class RemoteTeacher(Caller, Protocol):
    """What every engine behind a wire offers."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def can(self) -> frozenset[str]:
        """As of `Teacher`."""

    @property
    def paid(self) -> bool:
        """Whether replies must be kept before they count."""

    async def send(self, call: Call) -> bytes:
        """One attempt; the body of the reply. Raises Refused."""

    def read(self, request: Request, body: bytes) -> Reply:
        """The reply that a body holds; never raises: what is wrong with it is its `failure`."""

    async def alive(self) -> bool:
        """Whether the other side is there at all; never raises."""

    async def close(self) -> None:
        """Let go of connections."""
