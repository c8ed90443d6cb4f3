"""A teacher behind an OpenAI-compatible server. The teacher requests chat completions, and log-probabilities if the
server returns them.

`ApiModel.send` sends a request once. The scheduler handles retries and pacing. Files and batches are sent with the
`openai` package. Chat completions are sent with aiohttp directly. With aiohttp, a request takes 0.4 ms of CPU time.
With the `openai` package, a request takes 2.8 ms, even when the package runs on aiohttp, so one process could send only
a seventh as many requests.

The API key is read from the environment when the teacher is opened. The key is written to no file, and it is removed
from the server's messages before they are shown or stored.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import urllib.parse
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from synthgen.errors import TeacherError, missing_extra
from synthgen.records import Usage
from synthgen.requests import Request
from synthgen.tables.engines import ApiTeacher
from synthgen.teachers.base import Call, Identity, Refused, Reply, TeacherOptions
from synthgen.teachers.chat import outgoing, prompt_was_cut, why_empty
from synthgen.teachers.completion import Completion, completion, reply_object
from synthgen.teachers.gate import admitted, failed
from synthgen.teachers.labels import classified
from synthgen.teachers.reasoning import split_reasoning
from synthgen.teachers.refusals import error_with_200, refusal
from synthgen.teachers.sent import LABEL_TOKENS, LIMITS, as_sent, most_completion
from synthgen.teachers.served import same_model
from synthgen.teachers.server_errors import error_in
from synthgen.teachers.server_tokens import TokenMap, UnknownToken
from synthgen.teachers.structured import mismatch
from synthgen.teachers.usage import BadReply, Bill, bill_of
from synthgen.values import is_unseen

if TYPE_CHECKING:
    import aiohttp

_PATH = "/chat/completions"
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_TEMPLATE_TOKENS = 256  # upper bound of the tokens that a chat template adds to a prompt
_MESSAGE_TOKENS = 16
_ERROR_BYTES = 1 << 16
_BATCHED = b'"synthgen_batch":true'
INVALID = ("schema", "usage", "server")  # kinds of failures of a response that is not a valid chat completion


class Paid(TypedDict, total=False):
    """Fields of a `Reply` about its cost."""

    cost_usd: float | None
    batched: bool
    usage: Usage | None
    bill: Bill


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
        key = os.environ.get(section.api_key_env, "").strip() if section.api_key_env else None
        if section.api_key_env and not key:
            raise TeacherError(
                f"the environment variable {section.api_key_env} must hold the teacher's API key, and is not set",
                f"export {section.api_key_env}=…, or api_key_env: null for a server without keys",
            )
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise TeacherError(
                f"the API key in {section.api_key_env} has a space, a line break or another character that no header "
                "can hold",
                f"export {section.api_key_env} again, with the key alone",
            )
        return cls(section, options, key, TokenMap.open(section.tokenizer) if section.tokenizer else None)

    def call(self, request: Request) -> Call:
        """The content to send for a request: its body as JSON. Keys always have the same order, because the cache key
        is a hash of the endpoint, the body and the sample index.
        """
        body = self._body(request)
        payload = _COMPACT.encode(body).encode()
        index = request.sampling.get("sample_index", 0)
        key = hashlib.blake2b(f"{self.section.base_url}{_PATH}\0{index}\0".encode() + payload, digest_size=20).digest()
        bound = len(payload) + _TEMPLATE_TOKENS + _MESSAGE_TOKENS * len(body["messages"])
        shown = body.get("top_logprobs") or 0
        return Call(
            payload,
            key,
            len(payload) // 4,
            bound,
            most_completion(body),
            alternatives=shown,
            token_ids=self._shows(request) > 0,
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
            limit: LABEL_TOKENS if classifying else sampling["max_new_tokens"],
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
        if any(name in self.section.extra for name in LIMITS):
            del body[limit]  # the recipe sets the limit itself, under one of its two names
        body |= self.section.extra
        return {key: value for key, value in body.items() if value is not None}

    def _held(self, request: Request) -> bool:
        """Whether the answer must follow the recipe's JSON schema. Only answers that become rows must follow the
        schema, not the intermediate questions and judgments of a strategy.
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
            # The option below changes only how the reply writes tokens, not the answer. So the option is added here,
            # where it does not change the cache key.
            payload = payload[:-1] + b',"return_tokens_as_token_ids":true}'
        try:
            async with self._http.post(self.section.base_url + _PATH, data=payload, allow_redirects=False) as response:
                good = response.status == 200
                body = await self._read(response, self._most_bytes(call) if good else _ERROR_BYTES, good)
                if not good:
                    raise refusal(response.status, response.headers, body, self.clean)
                if (problem := error_with_200(body, response.headers, self.clean)) is not None:
                    raise problem
                # If the server itself wrote the mark of a batch, a space at the end makes the mark invalid.
                return body + b" " if body.endswith(_BATCHED + b"}") else body
        except TimeoutError as error:
            connecting = isinstance(error, aiohttp.ConnectionTimeoutError)
            raise Refused(
                "timeout", f"no answer in {self.section.timeout:g} s", retry=True, billed=not connecting
            ) from None
        except aiohttp.ClientConnectorError as error:
            raise Refused("connection", self.clean(f"no connection: {error.strerror or error}"), retry=True) from None
        except (aiohttp.InvalidURL, ValueError) as error:
            reason = self.clean(f"'{self.section.base_url}' is not an address: {error}")
            raise Refused("bad_request", reason, fatal=True) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            reason = f"the connection broke: {type(error).__name__}"
            raise Refused("connection", reason, retry=True, billed=True) from None

    def read(self, request: Request, body: bytes) -> Reply:
        """Parse the body of a chat completion into a reply. See `synthgen.teachers.base.RemoteTeacher.read`."""
        batched = body.endswith(_BATCHED + b"}")
        paid: Paid = {"cost_usd": None, "batched": batched}
        try:
            value = reply_object(body)
            statement = bill_of(value, self.section.extra.get("service_tier"), batched=batched)
            paid |= {"usage": statement.usage, "bill": statement}
            if (error := error_in(value)) is not None:
                raise BadReply("server", f"the reply contains an error: {error.code} {error.message}")
            return self._admitted(request, paid, completion(value, statement))
        except BadReply as problem:
            return self._failed(Reply(**paid), problem.kind, problem.reason, invalid=problem.kind in INVALID)
        except UnknownToken as problem:
            return self._failed(Reply(**paid), "logprobs", str(problem))
        except Exception as problem:  # whatever a server sends, only this row fails
            reason = f"the server's answer is not a chat completion ({type(problem).__name__}: {problem})"
            return self._failed(Reply(**paid), "schema", reason, invalid=True)

    def _failed(self, reply: Reply, kind: str, reason: str, *, invalid: bool = False) -> Reply:
        return replace(failed(reply, kind, self.clean(reason)[:500]), invalid=invalid)

    def _admitted(self, request: Request, paid: Paid, answer: Completion) -> Reply:
        """The reply with the answer, or with a failure. Raises UnknownToken."""
        usage, served = answer.bill.usage, answer.model
        paid |= {"usage": usage, "bill": answer.bill}
        if is_unseen(answer.text) and not answer.tool_calls:
            return self._failed(Reply(**paid), "empty", why_empty(answer.finish, usage))
        reply = Reply(
            text=answer.text,
            finish_reason=answer.finish,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls,
            scores=prompt_was_cut(request.messages, usage),
            served_model=served,
            substitute=None if served is None or same_model(self.section.model, served) else served,
            **as_sent(request, self.section.extra),
            **paid,
        )
        if request.kind == "classify":
            return self._labeled(request, reply, answer)
        reply = admitted(request, reply)
        if reply.failure is not None:
            return reply
        held = self.schema is not None and self._held(request) and not reply.tool_calls
        if held and (wrong := mismatch(reply.text, self.schema or {})):
            return self._failed(reply, "schema", wrong)
        if not (k := self._shows(request)) or not self.tokens:
            return reply
        if not answer.logprobs:
            return self._failed(reply, "logprobs", "the server gave no logprobs")
        if reply.text != answer.text:
            return self._failed(reply, "logprobs", "the logged tokens include reasoning or control tokens")
        ids, target, unmapped = self.tokens.topk(answer.logprobs, k, answer.text)
        return admitted(
            request,
            replace(
                reply,
                token_ids=ids,
                target=target,
                prompt_token_ids=self.tokens.prompt(request.messages),
                scores=(*reply.scores, ("unmapped_tokens", float(unmapped))),
            ),
        )

    def _labeled(self, request: Request, reply: Reply, answer: Completion) -> Reply:
        """The reply to a request of kind 'classify': the label that the answer names, without its reasoning."""
        parts = split_reasoning(answer.text)
        if not parts.complete:
            return self._failed(reply, "empty", "the answer ends inside the reasoning")
        found = classified(request, parts.answer, answer.logprobs, reply.usage)
        if found.failure is not None:
            return self._failed(reply, *found.failure)
        reasoning = "\n\n".join(part for part in (answer.reasoning, parts.reasoning) if part) or None
        return admitted(
            request,
            replace(
                reply,
                text=found.text,
                answer=found.answer,
                label_probs=found.label_probs,
                reasoning=reasoning,
                scores=(*reply.scores, *found.scores),
            ),
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
        """An `openai.AsyncOpenAI` client for the same server and API key. The client makes no retries."""
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
            # The proxy is looked up once. With trust_env, aiohttp would look up the proxy in a thread for every
            # request.
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

    def clean(self, text: str) -> str:
        """The text with the API key removed."""
        return text.replace(self._key, "[key]") if self._key else text


def open_api(section: ApiTeacher, options: TeacherOptions) -> ApiModel:
    """Read the API key and the tokenizer. Sends nothing. Raises TeacherError."""
    return ApiModel.open(section, options)


def preview(section: ApiTeacher, options: TeacherOptions) -> ApiModel:
    """An `ApiModel` without API key and tokenizer, which builds calls for estimates."""
    return ApiModel(section, options, None, None)


def _proxy(url: str) -> str | None:
    """The proxy that the environment variables name for the server at `url`, or None."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def as_batched(body: bytes) -> bytes:
    """Mark a reply's body as coming from a batch. A reply from a batch has a lower price."""
    return body[:-1] + b"," + _BATCHED + b"}"
