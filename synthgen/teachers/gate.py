"""The gate that every reply of a local or remote teacher must pass before a strategy or a shard gets the reply.

A reply that passes is an answer, perhaps cut off at the limit of tokens: its finish reason is known, its text holds
neither reasoning nor control tokens, and its numbers are finite. Every other reply becomes a failure with its kind and
reason.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from synthgen.logits import TopK
from synthgen.records import FINISH_REASONS
from synthgen.requests import Request
from synthgen.teachers.base import Reply
from synthgen.teachers.reasoning import holds_call, split_reasoning
from synthgen.values import is_unseen

_SUM = 1e-3  # how far the sum of label probabilities may be from 1
_MOST_LOGPROB = 1e-3  # rounding may make a log-probability slightly larger than 0
_MOST_ID = 2**31 - 1


def admitted(request: Request, reply: Reply) -> Reply:
    """The reply as the answer to `request`, with its reasoning separated from its text. Never raises: a reply that is
    not a valid answer becomes a reply with a failure and the same cost.
    """
    if reply.failure is not None:
        return reply
    try:
        wrong = _wrong_numbers(reply)
        if wrong:
            return failed(reply, "engine", wrong)
        return _answer(request, reply)
    except Exception as error:  # whatever is wrong with the reply, the run goes on
        return failed(reply, "engine", f"the reply is not valid ({type(error).__name__}: {str(error)[:200]})")


def failed(reply: Reply, kind: str, reason: str) -> Reply:
    """A reply with a failure instead of the answer of `reply`. The failure keeps what the server says about costs."""
    return Reply(
        failure=(kind, reason),
        usage=reply.usage,
        cost_usd=reply.cost_usd,
        batched=reply.batched,
        bill=reply.bill,
        served_model=reply.served_model,
    )


def _answer(request: Request, reply: Reply) -> Reply:
    if request.kind != "sample" and not reply.finish_reason:
        return reply
    if reply.finish_reason not in FINISH_REASONS:
        return failed(
            reply, "finish", f"finish_reason is {reply.finish_reason[:60]!r}, so the answer may not be complete"
        )
    if reply.finish_reason in ("unknown", "content_filter", "refusal"):
        kind = "finish" if reply.finish_reason == "unknown" else reply.finish_reason
        return failed(reply, kind, f"the answer is not complete (finish_reason: {reply.finish_reason})")
    if request.kind != "sample":
        return reply
    reply.text.encode()  # `encode` raises an error for half of a surrogate pair, which cannot be written to a file
    if holds_call(reply.text):
        return failed(
            reply,
            "tool_call",
            "the answer is a tool call that the server left in the text, in the model's control tokens",
        )
    parts = split_reasoning(reply.text)
    if parts.answer == reply.text and parts.complete:
        return reply
    if len(reply.token_ids) and parts.cut:
        return failed(reply, "logprobs", "the answer's text holds control tokens that its tokens spell as plain text")
    reasoning = "\n\n".join(part for part in (reply.reasoning, parts.reasoning) if part) or None
    if not parts.complete:
        return failed(reply, "empty", "the answer ends inside the reasoning; raise generate.max_new_tokens")
    if is_unseen(parts.answer) and not reply.tool_calls:
        return failed(reply, "empty", "the answer has no text besides reasoning and control tokens")
    return replace(reply, text=parts.answer, reasoning=reasoning)


def _wrong_numbers(reply: Reply) -> str:
    """The problem with the numbers of a reply, or "" when there is none."""
    if reply.label_probs is not None:
        probs = reply.label_probs
        if not all(math.isfinite(p) and p >= 0 for p in probs) or abs(sum(probs) - 1) > _SUM:
            return "the probabilities of the labels are not finite numbers that add up to 1"
    if reply.token_logprobs is not None and not all(
        math.isfinite(p) and p <= _MOST_LOGPROB for p in reply.token_logprobs
    ):
        return "the log-probabilities of the completion are not finite numbers of at most 0"
    if not all(math.isfinite(value) for _, value in reply.scores):
        return "a score of the reply is not a finite number"
    if reply.cost_usd is not None and not (math.isfinite(reply.cost_usd) and reply.cost_usd >= 0):
        return "the cost of the reply is not a finite number of at least 0"
    ids = reply.token_ids
    if len(ids) and not (min(ids) >= 0 and max(ids) <= _MOST_ID):
        return "a token id of the reply is out of range"
    if isinstance(reply.target, TopK):
        arrays = (reply.target.logprobs, reply.target.log_tail, reply.target.log_z)
        if any(np.isnan(array).any() or np.isposinf(array).any() for array in arrays):
            return "the distributions of the reply are not finite: the model's logits overflowed or are not numbers"
    return ""
