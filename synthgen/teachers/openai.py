"""A teacher behind an OpenAI-compatible server. It requests chat completions, and log-probabilities if the server
returns them.

`ApiModel.send` sends a request once. The scheduler handles retries and pacing. Files and batches are sent with the
`openai` package. Chat completions are sent with aiohttp directly. This takes 0.4 ms of CPU time for a request. The
`openai` package takes 2.8 ms, even when it runs on aiohttp, so with it one process could send only a seventh of the
requests.

The API key is read from the environment when the teacher is opened. It is written to no file, and it is removed from
the server's messages before they are shown or stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from synthgen.errors import TeacherError, missing_extra
from synthgen.records import Sampling, Usage
from synthgen.requests import Request
from synthgen.tables.engines import ApiTeacher
from synthgen.teachers.base import Call, Identity, Refused, Reply, TeacherOptions
from synthgen.teachers.chat import (
    error_of,
    finish_reason,
    outgoing,
    parsed,
    reasoning_of,
    retry_after,
    usage_of,
    why_empty,
)
from synthgen.teachers.labels import classified
from synthgen.teachers.server_tokens import TokenMap, UnknownToken
from synthgen.teachers.structured import mismatch

if TYPE_CHECKING:
    import aiohttp

_PATH = "/chat/completions"
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_LABEL_TOKENS = 16  # maximum number of tokens that the model may generate when the answer is a label
_TEMPLATE_TOKENS = 256  # upper bound of the tokens that a chat template adds to a prompt
_MESSAGE_TOKENS = 16
_ERROR_BYTES = 1 << 16
_CONTEXT = ("context length", "context_length", "context window", "maximum context", "too many tokens", "too long")
BATCH_SHARE = 0.5  # the price of a reply from a batch, as a share of the usual price
_BATCHED = b'"synthgen_batch":true'
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "seed": "seed",
}  # maps names in the request's body to keys of `Sampling`
_QUOTA = ("insufficient_quota", "billing", "credit balance", "payment")


class ApiModel:
    """One model on one server, as a teacher (see `synthgen.teachers.base.RemoteTeacher`)."""

    paid = True
    can = frozenset({"sample", "classify"})

    def __init__(self, section: ApiTeacher, options: TeacherOptions, key: str | None, tokens: TokenMap | None) -> None:
        self.section, self.tokens = section, tokens
        self.schema, self.name = options.json_schema, options.name
        self.k = options.spec.k if options.spec and section.tokenizer else 0
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        self._opening: asyncio.Future[None] | None = None
        self._vllm: bool | None = None
        self.identity: Identity = {
            "engine": "openai",
            "model": section.model,
            "base_url": section.base_url,
            "revision": section.revision or "unversioned",
            "dtype": "unknown",
            "tokenizer": tokens.hash if tokens else "",
            "vocab_size": tokens.size if tokens else 0,
            "license": section.license,
        }

    @classmethod
    def open(cls, section: ApiTeacher, options: TeacherOptions) -> ApiModel:
        """Read the API key and the tokenizer. Sends nothing. Raises TeacherError."""
        key = os.environ.get(section.api_key_env) if section.api_key_env else None
        if section.api_key_env and not key:
            raise TeacherError(
                f"the environment variable {section.api_key_env} must hold the teacher's API key, and is not set",
                f"export {section.api_key_env}=…, or api_key_env: null for a server without keys",
            )
        return cls(section, options, key, TokenMap.open(section.tokenizer) if section.tokenizer else None)

    def call(self, request: Request) -> Call:
        """The content to send for a request: its body as JSON. Keys always have the same order, because the cache key
        is a hash of the endpoint, the body and the sample index.
        """
        body = self._body(request)
        most = body.get("max_completion_tokens") or body.get("max_tokens") or 1 << 20
        payload = _COMPACT.encode(body).encode()
        index = request.sampling.get("sample_index", 0)
        key = hashlib.blake2b(f"{self.section.base_url}{_PATH}\0{index}\0".encode() + payload, digest_size=20).digest()
        bound = len(payload) + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(body["messages"])
        shown = body.get("top_logprobs") or 0
        return Call(
            payload, key, len(payload) // 4, bound, int(most), alternatives=shown, token_ids=self._shows(request) > 0
        )

    def _shows(self, request: Request) -> int:
        """The number of the most probable tokens to request for each position of the reply. 0 when the request's
        distributions are not stored.
        """
        return self.k if request.kind == "sample" and request.target else 0

    def _body(self, request: Request) -> dict[str, Any]:
        sampling, classifying, k = request.sampling, request.kind == "classify", self._shows(request)
        limit = "max_completion_tokens" if "api.openai.com" in self.section.base_url else "max_tokens"
        body: dict[str, Any] = {
            "model": self.section.model,
            "messages": [outgoing(m) for m in request.messages],
            limit: _LABEL_TOKENS if classifying else sampling["max_new_tokens"],
        }
        if classifying:
            body |= {"temperature": 0, "logprobs": True, "top_logprobs": 20}
        else:
            body |= {"temperature": sampling["temperature"], "top_p": sampling["top_p"]}
            body["seed"] = sampling["seed"] * 1_000_003 + sampling["sample_index"]
        if k:
            body |= {"logprobs": True, "top_logprobs": k}
        if self._held(request):
            named = {"name": self.name, "schema": self.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        if request.tools:
            body["tools"] = list(request.tools)
        body |= self.section.extra
        return {key: value for key, value in body.items() if value is not None}

    def _held(self, request: Request) -> bool:
        """Whether the answer must follow the recipe's JSON schema. This holds only for answers that become rows, not
        for the intermediate questions and judgments of a strategy.
        """
        return self.schema is not None and request.kind == "sample" and request.target

    async def send(self, call: Call) -> bytes:
        """Send one POST request and return the response's body. Raises Refused when the status is not 200 or the body
        is incomplete.
        """
        import aiohttp

        if self._opening is None:
            self._opening = asyncio.ensure_future(self._begin())
        await asyncio.shield(self._opening)  # requests wait until the session is open and the kind of server is known
        payload = call.payload
        if self._vllm and call.token_ids:
            # This option changes only how the reply writes tokens, not the answer. Therefore it is added here, where it
            # does not change the cache key.
            payload = payload[:-1] + b',"return_tokens_as_token_ids":true}'
        try:
            async with self._http.post(self.section.base_url + _PATH, data=payload, allow_redirects=False) as response:
                good = response.status == 200
                body = await self._read(response, self._most_bytes(call) if good else _ERROR_BYTES, good)
                if good:
                    return body
                raise self.refusal(response.status, response.headers, body)
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise Refused(
                "timeout", f"no answer in {self.section.timeout:g} s", retry=True, billed=not connecting
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise Refused("connection", self.clean(f"no connection: {error.strerror or error}"), retry=True) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = f"the connection broke: {type(error).__name__}"
            raise Refused("connection", reason, retry=True, billed=True) from None

    def read(self, request: Request, body: bytes) -> Reply:
        """Parse the body of a chat completion into a reply. See `synthgen.teachers.base.RemoteTeacher.read`."""
        try:
            value = parsed(body)
        except ValueError:
            return Reply(failure=("schema", "the server's answer is not JSON"), cost_usd=None)
        usage = usage_of(value)
        try:
            reply = self._with_what_was_sent(self._reply(request, value, usage), request, value)
            return replace(reply, price_share=BATCH_SHARE) if body.endswith(_BATCHED + b"}") else reply
        except UnknownToken as problem:
            return Reply(failure=("schema", self.clean(str(problem))), usage=usage)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as problem:
            reason = f"the server's answer is not a chat completion ({type(problem).__name__}: {problem})"
            return Reply(failure=("schema", self.clean(reason)), usage=usage)

    def _with_what_was_sent(self, reply: Reply, request: Request, value: dict[str, Any]) -> Reply:
        """A copy of the reply with the name of the model that answered. It also contains the sampling parameters and
        tools that the recipe sets in `teacher.extra`, because they were sent instead of those of the request.
        """
        extra, served = self.section.extra, value.get("model")
        changed = {name: extra[key] for key, name in _SAMPLING.items() if key in extra}
        return replace(
            reply,
            served_model=served if isinstance(served, str) and served else None,
            sampling=cast(Sampling, {**request.sampling, **changed}) if changed else None,
            tools=json.dumps(extra["tools"], ensure_ascii=False) if extra.get("tools") else None,
        )

    def _reply(self, request: Request, value: dict[str, Any], usage: Usage | None) -> Reply:
        if not value["choices"]:
            return Reply(failure=("empty", "no choices in the reply"), usage=usage)
        choice = value["choices"][0]
        message = choice["message"]
        finish = finish_reason(choice.get("finish_reason"))
        text = message.get("content") or ""
        if not isinstance(text, str):
            raise TypeError("content is not text")
        reasoning = reasoning_of(message)
        calls = message.get("tool_calls") or None
        if finish == "content_filter":
            return Reply(failure=("content_filter", "the provider withheld the answer"), usage=usage)
        if message.get("refusal") and not text:
            return Reply(failure=("content_filter", self.clean(f"refused: {message['refusal']}")), usage=usage)
        if not text.strip() and not calls:
            return Reply(failure=("empty", why_empty(finish, usage)), usage=usage)
        content = (choice.get("logprobs") or {}).get("content") or []
        if request.kind == "classify":
            return replace(classified(request, text, content, usage), finish_reason=finish, reasoning=reasoning)
        if self.schema is not None and self._held(request) and not calls and (wrong := mismatch(text, self.schema)):
            return Reply(failure=("schema", wrong), usage=usage)
        reply = Reply(
            text=text,
            finish_reason=finish,
            reasoning=reasoning,
            tool_calls=json.dumps(calls, ensure_ascii=False) if calls else None,
            usage=usage,
        )
        if not (k := self._shows(request)) or not self.tokens:
            return reply
        if not content:
            return Reply(failure=("schema", "the server gave no logprobs"), usage=usage)
        ids, target, unmapped = self.tokens.topk(content, k, text)
        return replace(
            reply,
            token_ids=ids,
            target=target,
            prompt_token_ids=self.tokens.prompt(request.messages),
            scores=(("unmapped_tokens", float(unmapped)),),
        )

    async def alive(self) -> bool:
        """Whether the server responds to a request for its list of models with a status below 500."""
        try:
            async with asyncio.timeout(10), self._http.get(f"{self.section.base_url}/models") as response:
                return bool(response.status < 500)
        except Exception:  # after any error, the server is considered dead
            return False

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
        self._session = self._opening = None

    def client(self) -> Any:
        """An `openai.AsyncOpenAI` client for the same server and API key. It makes no retries."""
        import openai

        return openai.AsyncOpenAI(
            api_key=self._key or "none", base_url=self.section.base_url, max_retries=0, timeout=self.section.timeout
        )

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the session is not open")
        return self._session

    async def _begin(self) -> None:
        try:
            import aiohttp
        except ModuleNotFoundError as error:
            raise missing_extra(str(error.name), "api") from None
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=self.section.timeout, sock_connect=min(30.0, self.section.timeout)),
            headers=headers,
            # The proxy is looked up once. With trust_env, aiohttp would look it up in a thread for every request.
            proxy=_proxy(self.section.base_url),
        )
        if self.k and self._vllm is None:
            self._vllm = await self._is_vllm()

    async def _is_vllm(self) -> bool:
        """Whether the server is vLLM, which can return token ids. vLLM is recognized by its list of models, where the
        owner of the models is "vllm".
        """
        try:
            async with self._http.get(f"{self.section.base_url}/models") as response:
                found = json.loads(await response.content.read(_ERROR_BYTES))
            return any(model.get("owned_by") == "vllm" for model in found["data"])
        except Exception:  # there is no list of models, or no server; in the second case, the first request fails
            return False

    def _most_bytes(self, call: Call) -> int:
        """An upper bound of the size of a valid response in bytes: 1 MiB, plus 64 bytes for each token, plus 192 bytes
        for each log-probability.
        """
        return (1 << 20) + call.most_completion * (64 + 192 * (call.alternatives + 1))

    async def _read(self, response: Any, most: int, good: bool) -> bytes:
        parts, size = [], 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > most:
                response.close()
                if good:
                    raise Refused("too_large", f"the answer is larger than {most:,} bytes", billed=True)
                break
        return b"".join(parts)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> Refused:
        """Convert a response with a status other than 200 to a `Refused` exception."""
        message, code = error_of(body)
        reason = self.clean(f"{status}: {message}")[:500]
        words = f"{code} {message}".lower()
        if status in (401, 404) or (status in (402, 429) and any(word in words for word in _QUOTA)):
            return Refused("bad_request", reason, fatal=True)
        if status == 429:
            return Refused("server", reason, retry=True, pace=True, after=retry_after(headers))
        if status in (408, 409, 425) or status >= 500:
            unknown = status in (408, 504, 524)  # a gateway timed out while the model may have continued
            return Refused("server", reason, retry=True, after=retry_after(headers), billed=unknown)
        if status == 413:
            return Refused("too_large", reason)
        if "content_filter" in words or "content_policy" in words or "content management policy" in words:
            return Refused("content_filter", reason)
        if any(phrase in words for phrase in _CONTEXT):
            return Refused("context", reason)
        return Refused("bad_request", reason)

    def clean(self, text: str) -> str:
        """The text with the API key removed."""
        return text.replace(self._key, "[key]") if self._key else text


def open_api(section: ApiTeacher, options: TeacherOptions) -> ApiModel:
    """Read the API key and the tokenizer. Sends nothing. Raises TeacherError."""
    return ApiModel.open(section, options)


def preview(section: ApiTeacher, options: TeacherOptions) -> ApiModel:
    """An `ApiModel` that builds calls for estimates. It has no API key and no tokenizer."""
    return ApiModel(section, options, None, None)


def _proxy(url: str) -> str | None:
    """The proxy that the environment variables name for the server at `url`, or None."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def as_batched(body: bytes) -> bytes:
    """Mark a reply's body as coming from a batch. Such a reply has a lower price."""
    return body[:-1] + b"," + _BATCHED + b"}"
