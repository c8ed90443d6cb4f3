"""Bodies of chat completions for tests, whole and damaged, and the promises that every accepted answer keeps."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import numpy as np
import pyarrow as pa

from support.small import byte_tokenizer
from synthgen import records
from synthgen.logits import LogitsSpec
from synthgen.records import FINISH_REASONS
from synthgen.requests import Request
from synthgen.tables.engines import ApiTeacher
from synthgen.teachers.base import Reply, TeacherOptions
from synthgen.teachers.openai import ApiModel
from synthgen.teachers.reasoning import split_reasoning
from synthgen.teachers.server_tokens import TokenMap

LABELS = ("yes", "no")
_SECTION = ApiTeacher(engine="openai", model="m", base_url="http://127.0.0.1:9/v1", api_key_env=None)
_WITH_TOKENS = _SECTION.model_copy(update={"tokenizer": "here"})
_MERGES = [("Y", "e"), ("Ye", "s"), ("N", "o"), ("H", "m"), ("Ġ", "Yes")]
MODEL = ApiModel(_SECTION, TeacherOptions(), None, None)
"""A teacher that needs no server, because it only reads bodies."""
TOKENS = ApiModel(
    _WITH_TOKENS, TeacherOptions(spec=LogitsSpec("topk", k=2)), None, TokenMap(byte_tokenizer(_MERGES), "h")
)
"""The same teacher as MODEL, except that it also converts the logged tokens to ids."""


def request(kind: str = "sample") -> Request:
    """A request of the given kind."""
    return Request(
        kind,  # type: ignore[arg-type]
        [{"role": "user", "content": "Is it so?"}],
        {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 16, "seed": 0, "sample_index": 0},
        labels=LABELS if kind == "classify" else (),
        teacher="m",
    )


def reply_with(message: dict | None = None, choice: dict | None = None, **changes: Any) -> dict[str, Any]:
    """A chat completion with the answer "Yes.". The arguments replace values of its message, choice and top level."""
    return {
        "id": "c",
        "object": "chat.completion",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Yes.", **(message or {})},
                "finish_reason": "stop",
                **(choice or {}),
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
        **changes,
    }


def body_of(**changes: Any) -> bytes:
    """`reply_with` as the bytes that a server sends."""
    return json.dumps(reply_with(**changes)).encode()


def _entry(token: str, logprob: float) -> dict[str, Any]:
    one = {"token": token, "logprob": logprob, "bytes": list(token.encode())}
    return {**one, "top_logprobs": [one, {"token": "No", "logprob": -4.0, "bytes": [78, 111]}]}


_WHOLE = [
    ("sample", MODEL, reply_with()),
    (
        "sample",
        MODEL,
        reply_with(message={"content": "<think>Hm</think>Yes.", "reasoning": "Hm"}, service_tier="default"),
    ),
    (
        "sample",
        MODEL,
        reply_with(
            message={"content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Yes."}]},
            usage={
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "total_tokens": 20,
                "completion_tokens_details": {"reasoning_tokens": 8},
                "prompt_tokens_details": {"cached_tokens": 4},
                "cost": 0.001,
            },
        ),
    ),
    (
        "sample",
        MODEL,
        reply_with(
            message={"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            choice={"finish_reason": "tool_calls"},
        ),
    ),
    ("sample", TOKENS, reply_with(choice={"logprobs": {"content": [_entry("Yes", -0.1), _entry(".", -0.2)]}})),
    (
        "classify",
        MODEL,
        reply_with(message={"content": "yes"}, choice={"logprobs": {"content": [_entry("yes", -0.1)]}}),
    ),
]
_VALUES = [
    None, True, False, 0, -1, 1, 7, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.5, 1e308, -9999.0, "", "x", "stop",
    "length", "3", "NaN", "error", "<think>", "</think>", "<|im_end|>", "\ud83d", "\x00\x1b[2J", [], [None], {},
    {"error": {"code": 502}}, {"type": "text", "text": "Yes."}, [{"type": "text"}], [[[[]]]],
]  # fmt: skip
_BYTES = [b"NaN", b"Infinity", b"1e999", b"-0", b"\\ud83d", b"\xff\xfe", b'"', b"{", b"]", b"\x00", b",", b"[" * 300]


def mutated(draw: random.Random) -> tuple[str, ApiModel, bytes]:
    """(kind of request, teacher, a damaged body)."""
    kind, model, whole = draw.choice(_WHOLE)
    value = copy.deepcopy(whole)
    for _ in range(draw.choice((0, 1, 1, 2, 3))):
        _change(value, draw)
    body = json.dumps(value).encode(errors="surrogatepass")
    for _ in range(draw.choice((0, 0, 0, 1, 2))):
        place = draw.randrange(len(body) + 1)
        other = draw.choice((body[:place], body[:place] + draw.choice(_BYTES) + body[place + draw.randrange(4) :]))
        body = other
    return kind, model, body


def _change(value: Any, draw: random.Random) -> None:
    """Replace, remove, repeat or rename one value at a random place of a JSON document."""
    while True:
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = draw.choice(keys)
        inner = value[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.75:
            value = inner
            continue
        break
    action = draw.random()
    if action < 0.7:
        value[key] = copy.deepcopy(draw.choice(_VALUES))
    elif action < 0.85:
        del value[key]
    elif isinstance(value, list):
        value.append(copy.deepcopy(inner))
    else:
        value[str(key).upper()] = value.pop(key)


class FUZZ:
    """The promises that an accepted answer keeps."""

    @staticmethod
    def check(reply: Reply, model: ApiModel) -> None:
        """Assert that a corpus may hold the answer."""
        assert reply.finish_reason in FINISH_REASONS
        assert reply.finish_reason in ("stop", "length", "tool_calls")
        assert reply.text.strip() or reply.tool_calls
        parts = split_reasoning(reply.text)
        assert parts.complete
        assert parts.reasoning is None
        assert reply.cost_usd is None or (math.isfinite(reply.cost_usd) and reply.cost_usd >= 0)
        for count in (reply.usage or {}).values():
            assert count is None or (type(count) is int and 0 <= count < 2**31)
        if reply.label_probs is not None:
            assert (reply.answer or reply.text) in LABELS
            assert abs(sum(reply.label_probs) - 1) < 1e-3
            assert all(0 <= p <= 1 for p in reply.label_probs)
        if reply.token_ids:
            assert model.tokens is not None
            raw = b"".join(model.tokens.pieces[token] for token in reply.token_ids).decode(errors="replace")
            assert raw.startswith(reply.text)
        if reply.target is not None:
            assert np.isfinite(reply.target.logprobs).all()
            assert (reply.target.logprobs <= 0).all()
        for name, field in (("usage", reply.usage), ("finish_reason", reply.finish_reason)):
            pa.array([field], records.SCHEMA.field(name).type)
        for text in (reply.text, reply.reasoning, reply.tool_calls, reply.served_model):
            pa.array([text], pa.string())
