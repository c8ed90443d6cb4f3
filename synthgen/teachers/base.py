"""The interfaces of teachers: one protocol for local engines and one for remote engines. The attribute `can` of a
teacher names its capabilities, and callers check them.

A local engine (`Teacher`) answers many requests at a time:

    teacher = open_teacher(recipe.teacher)
    replies = teacher.sample(requests, spec)      # text, token ids, and the distributions that `spec` asks for
    probs = teacher.classify(requests)            # probabilities of each request's labels
    given = teacher.score(requests, spec)         # the distributions over the tokens of given completions

A remote engine (`RemoteTeacher`) handles one request at a time. `synthgen.generation.scheduler` calls the engine,
stores the replies, and decides when and how often to send a request. `synthgen.tables.engines` names the function that
opens each engine's teachers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

from synthgen.logits import LogitsSpec, Target
from synthgen.records import Sampling, Usage
from synthgen.requests import Request
from synthgen.teachers.usage import Bill

FAILURES = (
    "timeout",  # no answer arrived in time
    "connection",  # the connection broke, or the body was incomplete
    "server",  # an error of the server (status 5xx)
    "bad_request",  # the server rejected this request
    "context",  # prompt and answer exceed the model's context
    "content_filter",  # the provider withheld the answer
    "refusal",  # the model or the provider refused to answer
    "finish",  # the finish reason does not say that the answer is complete
    "usage",  # the server's token counts or costs are impossible
    "schema",  # the server's reply or the answer does not have the expected form
    "tool_call",  # a tool call of the reply is not valid
    "logprobs",  # the log-probabilities are missing or impossible, or do not belong to the answer
    "empty",  # the reply contains no answer
    "too_large",  # the request is too large for the server, or the reply is larger than a valid reply can be
    "engine",  # the engine ended the request without an answer
    "engine_died",  # the engine died during this request, and died again when this request ran alone
)


Tick = Callable[[int], None]
"""A callback that receives the number of tokens that were generated since its last call."""


def no_tick(tokens: int) -> None:
    """A `Tick` that does nothing."""


class Identity(TypedDict):
    """The identity of a teacher as stored in a manifest.

    `revision` is the exact revision, and `dtype` the number type of the weights. `tokenizer` is a hash of the
    tokenizer. Without a tokenizer, `tokenizer` is "" and `vocab_size` is 0.
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
    """The settings of a recipe that hold for all answers of its teachers: the form that answers must have, and the
    distributions to return.

    `name` is the name of the JSON schema. `spec` describes the part of the distributions that is stored.
    """

    name: str = ""
    json_schema: dict[str, object] | None = None
    regex: str | None = None
    spec: LogitsSpec | None = None


@dataclass
class Reply:
    """The reply to one request: an answer, or `failure` = (kind, reason). A reply is never changed; `replace` makes a
    changed copy. The class is not frozen, because making an object of a frozen class would take four times as long.

    `label_probs` sums to 1 over the request's labels (kind 'classify' only). If the text names a label and contains
    more than this label, `answer` is the label. `token_logprobs` are the log-probabilities of the given completion's
    tokens, in nats (kind 'score' only). `finish_reason` is one of `records.FINISH_REASONS`. `tool_calls` is JSON text.
    `usage` holds the token counts that a server reports. `served_model` is the model name that the server reports.
    `sampling` and `tools` (JSON text) hold the values that were sent, if these differ from the values in the request.
    `cost_usd` is None when the price is unknown. `batched` means that the reply is from a batch, which costs less.
    `bill` is what the server says about the cost. `invalid` means that the server's response is not a chat completion
    at all, so it is not cached. `substitute` is the name of the model that answered instead of the model that was
    asked.
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
    batched: bool = False
    token_logprobs: Sequence[float] | None = None
    served_model: str | None = None
    sampling: Sampling | None = None
    tools: str | None = None
    bill: Bill | None = None
    invalid: bool = False
    substitute: str | None = None
    answer: str | None = None

    def costing(self, usd: float | None) -> Reply:
        """A copy of the reply with `usd` in `cost_usd`. This copy takes a fifth of the time of `replace`."""
        other = object.__new__(Reply)
        other.__dict__.update(self.__dict__)
        other.cost_usd = usd
        return other


class Teacher(Protocol):
    """The interface of local engines."""

    @property
    def identity(self) -> Identity:
        """The teacher's identity for the manifest."""

    @property
    def can(self) -> frozenset[str]:
        """The capabilities of this teacher. Each capability is one of "sample", "classify", "score", "embed" and
        "open_turn". A teacher with "open_turn" can continue a prompt whose last message is unfinished.
        """

    def sample(self, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick = ...) -> list[Reply]:
        """One reply for each request, in order, with the part of the distributions that `spec` describes."""

    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request, with the probabilities of the request's `labels`."""

    def score(self, requests: Sequence[Request], spec: LogitsSpec | None, tick: Tick = ...) -> list[Reply]:
        """One reply for each request, with the log-probabilities of its `completion` and the part of the distributions
        that `spec` describes.
        """

    def close(self) -> None:
        """Release the model, its memory and its processes."""


class Embeds(Teacher, Protocol):
    """A local engine that embeds texts."""

    def embed(self, requests: Sequence[Request]) -> list[Reply]:
        """One reply for each request, with the token ids of the request's text. When the text is too long, the reply
        has a failure instead.
        """


@runtime_checkable
class StreamingTeacher(Teacher, Protocol):
    """A local engine that is fastest when a certain number of single requests is always in flight."""

    async def start(self) -> int:
        """Start the engine. Returns how many concurrent requests keep the engine busy."""

    async def ask(self, request: Request, spec: LogitsSpec | None, tick: Tick) -> Reply:
        """The reply to one request of any kind. May be called from any event loop."""


@dataclass(frozen=True, slots=True)
class Call:
    """The content that is sent for one request.

    `key` is a hash of everything that determines the reply. `prompt_tokens` is an estimate of the number of prompt
    tokens. `most_prompt` and `most_completion` are upper bounds of the numbers of prompt and completion tokens.
    `alternatives` is the number of the most probable tokens that the server returns for each position of the reply. If
    `token_ids` is true, a server that can write tokens as ids is asked to do so.
    """

    payload: bytes
    key: bytes
    prompt_tokens: int
    most_prompt: int
    most_completion: int
    alternatives: int = 0
    token_ids: bool = False


class Refused(Exception):
    """Raised when an attempt to send a request brought no reply.

    `after` is the number of seconds that the server asks to wait. `pace` means that requests were sent too fast (status
    429), which is not a failure of the request. `retry` means that another attempt may succeed. `billed` means that the
    provider may charge for the attempt. `fatal` means that no request to this server can succeed, for example because
    the API key is invalid. `lost` means that the machine that sent the request died, so the attempt does not count as
    one of the request's tries.
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
        lost: bool = False,
    ) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason
        self.retry, self.after, self.pace, self.billed, self.fatal = retry, after, pace, billed, fatal
        self.lost = lost


class Caller(Protocol):
    """Converts requests to the content that is sent."""

    def call(self, request: Request) -> Call:
        """The content to send for a request. The same request has the same content in every run."""


class RemoteTeacher(Caller, Protocol):
    """The interface of engines behind an API."""

    @property
    def identity(self) -> Identity:
        """The teacher's identity for the manifest."""

    @property
    def can(self) -> frozenset[str]:
        """The capabilities of this teacher. See `Teacher.can`."""

    @property
    def paid(self) -> bool:
        """Whether replies cost money. Paid replies are stored in the cache before they are used."""

    async def send(self, call: Call) -> bytes:
        """Send the call once, without retries. Returns the body of the reply. Raises Refused when there is no reply."""

    def read(self, request: Request, body: bytes) -> Reply:
        """Parse a body into a reply. Never raises. For an invalid body, the reply has a `failure`."""

    async def alive(self) -> bool:
        """Whether the server responds at all, tested with one request. Never raises."""

    async def close(self) -> None:
        """Close the connections."""
