"""The interfaces of teachers. There are two protocols. Capabilities are probed, never assumed.

A local engine (`Teacher`) answers many requests at a time:

    teacher = open_teacher(recipe.teacher)
    replies = teacher.sample(requests, spec)      # text, token ids, and the distributions that `spec` asks for
    probs = teacher.classify(requests)            # probabilities of each request's labels
    given = teacher.score(requests, spec)         # the distributions along given completions

A remote engine (`RemoteTeacher`) handles one request at a time. `synthgen.generation.scheduler` calls it, stores its
replies, and decides when and how often to send a request. `synthgen.tables.engines` lists which engine opens which
teacher.
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
    "connection",  # the connection broke, or the body was incomplete
    "server",  # 5xx
    "bad_request",  # the server rejects this request
    "context",  # prompt and answer exceed the model's context
    "content_filter",  # the provider withheld the answer
    "schema",  # the server's reply or the answer is not the expected JSON
    "empty",  # the reply contains no answer
    "too_large",  # the reply is larger than such an answer can be
    "engine",  # the engine ended the request without an answer
    "engine_died",  # the engine died, and died again with this request alone
)


Tick = Callable[[int], None]
"""A callback with the number of tokens generated since its last call."""


def no_tick(tokens: int) -> None:
    """A `Tick` that does nothing."""


class Identity(TypedDict):
    """The identity of a teacher as stored in a manifest: exact revision, number type, hash and size of the tokenizer's
    vocabulary ("" and 0 when there is none), license.
    """

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
    """The settings of a recipe for all answers of its teachers: the required form, and the distributions to return.

    `name` is the name of the JSON schema; `spec` is the part of the distributions that is stored.
    """

    name: str = ""
    json_schema: dict[str, object] | None = None
    regex: str | None = None
    spec: LogitsSpec | None = None


@dataclass(frozen=True)
class Reply:
    """The reply to one request: an answer, or `failure` = (kind, reason).

    `label_probs` sums to 1 over the request's labels (kind 'classify' only). `token_logprobs` are the log-probabilities
    of the given completion's tokens, in nats (kind 'score' only). `finish_reason` is one of `records.FINISH_REASONS`.
    `tool_calls` is JSON text. `usage` is the server's token count, when there is a server; `served_model` is the model
    name that the server reports. `sampling` and `tools` (JSON text) are the values that were sent, when they differ
    from the request's. `cost_usd` is None when the price is unknown. The reply costs `price_share` times the price.
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
    """The interface of local engines."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def can(self) -> frozenset[str]:
        """The capabilities that this teacher has, among "sample", "classify", "score", "embed" and "open_turn" (it can
        continue an open message).
        """

    def sample(self, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick = ...) -> list[Reply]:
        """One reply a request, in order, with the part of the distributions that `spec` asks for."""

    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """Probabilities of each request's `labels`."""

    def score(self, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick = ...) -> list[Reply]:
        """Log-probabilities of each request's `completion`, and the part of its distributions that `spec` asks for."""

    def close(self) -> None:
        """Release the model, its memory and its processes."""


class Embeds(Teacher, Protocol):
    """A local engine that embeds texts."""

    def embed(self, requests: Sequence[Request]) -> list[Reply]:
        """The tokens of each text, or a failure when the text is too long."""


@runtime_checkable
class StreamingTeacher(Teacher, Protocol):
    """A local engine that is fastest when it always has a certain number of single requests."""

    async def start(self) -> int:
        """Start the engine. Returns the number of concurrent requests that keep it busy."""

    async def ask(self, request: Request, spec: LogitsSpec | None, tick: Tick) -> Reply:
        """The reply to one request of any kind. May be called from any event loop."""


@dataclass(frozen=True, slots=True)
class Call:
    """The content that is sent for one request. `key` is a hash of everything that determines the reply. It also has
    token counts: an estimate of the prompt, and the maximum of prompt and completion. `alternatives` is the number of
    candidates returned with each token of the reply. `token_ids` asks for tokens as ids, if the server supports it.
    """

    payload: bytes
    key: bytes
    prompt_tokens: int
    most_prompt: int
    most_completion: int
    alternatives: int = 0
    token_ids: bool = False


class Refused(Exception):
    """An attempt that gave no reply.

    `after` is the number of seconds that the server asks to wait. `pace` means that requests came too fast (429), which
    is not a failure. `retry` means that another attempt may succeed. `billed` means that the provider may charge for
    the attempt. `fatal` means that no request can succeed (an invalid key).
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
    """Converts requests to the content that is sent."""

    def call(self, request: Request) -> Call:
        """The content for a request. The same request gives the same call in any run."""


class RemoteTeacher(Caller, Protocol):
    """The interface of engines behind an API."""

    @property
    def identity(self) -> Identity:
        """Who it is."""

    @property
    def can(self) -> frozenset[str]:
        """As of `Teacher`."""

    @property
    def paid(self) -> bool:
        """Whether replies cost money and must be stored before they count."""

    async def send(self, call: Call) -> bytes:
        """Make one attempt. Returns the body of the reply. Raises Refused."""

    def read(self, request: Request, body: bytes) -> Reply:
        """Parse a body into a reply. Never raises; an invalid body gives a reply with a `failure`."""

    async def alive(self) -> bool:
        """Whether the server responds at all. Never raises."""

    async def close(self) -> None:
        """Close the connections."""
