"""Reads what a server says about the tokens and the cost of a reply, in the dialects of all known servers.

Counts are checked. A count of the wrong type or size makes the reply invalid. A negative count, or a prompt without
tokens, makes the usage unknown, so that the maximum cost of the request counts as spent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from synthgen.records import Usage

_MOST = 2**31 - 1  # the largest number of tokens, because corpora store counts in 32 bits
_MOST_USD = 1e6
# Keys for the same count, each as (key of a nested object or "", key). The largest count is used.
_PROMPT = (("", "prompt_tokens"), ("", "input_tokens"))
_COMPLETION = (("", "completion_tokens"), ("", "output_tokens"))
_REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
    ("", "reasoning_tokens"),
)
_CACHED = (
    ("prompt_tokens_details", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
    ("", "prompt_cache_hit_tokens"),  # DeepSeek
    ("", "cached_tokens"),  # Moonshot
    ("", "num_cached_tokens"),  # SGLang
)
_BESIDE = ("cache_read_input_tokens", "cache_creation_input_tokens")  # Anthropic: not included in input_tokens
# Service tiers with the usual price. A tier that is not in this list has different prices.
_USUAL_TIERS = ("", "default", "standard", "on_demand", "auto", "standard_only")
_BATCH = "batch"
CHEAPER_TIERS = ("flex", _BATCH)
"""Service tiers whose price is at most the usual price."""


class BadReply(ValueError):
    """Raised when a reply is not a valid answer. `kind` is one of `synthgen.teachers.base.FAILURES`."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


class Bill(NamedTuple):
    """What a server says about the cost of a reply. `usage` is None when the server gave no counts, or impossible
    counts.

    `usd` is the price in US dollars that the server itself states, or None. `tier` is the service tier if its price
    differs from the usual price.
    """

    usage: Usage | None
    usd: float | None
    tier: str | None


def bill_of(reply: Mapping[str, object], asked_tier: object = None, *, batched: bool = False) -> Bill:
    """The bill of a reply. `asked_tier` is the service tier that the request named. With `batched`, the reply is from a
    batch, whose usual tier may be called "batch". Raises BadReply when a count has the wrong type or size.

    Some servers count reasoning separately from the completion. The total is then larger than the sum of the other
    counts, and the difference is added to the completion's tokens.
    """
    given, tier = reply.get("usage"), reply.get("service_tier")
    if tier is None and isinstance(given, dict):
        tier = given.get("service_tier")  # Anthropic
    if tier is not None and not isinstance(tier, str):
        raise BadReply("usage", f"service_tier is {_shown(tier)}, not text")
    unusual = unusual_tier(tier or asked_tier)
    if batched and unusual == _BATCH:
        unusual = None
    if given is None:
        return Bill(None, None, unusual)
    if not isinstance(given, dict):
        raise BadReply("usage", f"usage is {_shown(given)}, not an object")
    usd = _usd(given)
    try:
        return Bill(_usage(given), usd, unusual)
    except _Impossible:
        return Bill(None, usd or None, unusual)  # with impossible counts, a price of 0 is not credible


def credible(bill: Bill) -> Bill:
    """The bill of a reply that has an answer. An answer has at least one token, so a count of 0 means that the usage is
    unknown, and then a price of 0 is not credible either.
    """
    if bill.usage is None or bill.usage["completion_tokens"]:
        return bill
    return bill._replace(usage=None, usd=bill.usd or None)


def unusual_tier(name: object) -> str | None:
    """The service tier in lower case if its price is not the usual price, otherwise None."""
    tier = str(name or "").strip().lower()
    return tier if tier not in _USUAL_TIERS else None


class _Impossible(Exception):
    pass


def _usage(given: Mapping[str, object]) -> Usage | None:
    prompt, completion = _largest(given, _PROMPT), _largest(given, _COMPLETION)
    total = _count(given.get("total_tokens"), "total_tokens")
    reasoning, cached = _largest(given, _REASONING), _largest(given, _CACHED)
    if prompt is None or completion is None:
        return None
    if prompt == 0:  # every prompt has a token
        raise _Impossible
    beside = [_count(given.get(name), name) for name in _BESIDE if name in given]
    if cached is None and beside:
        cached = _count(given.get(_BESIDE[0]), _BESIDE[0])
        if total is None or total > prompt + completion:
            prompt += sum(count or 0 for count in beside)
    if reasoning is not None and reasoning > completion:  # reasoning is counted separately from the completion
        completion += reasoning
    if total is not None and total - prompt > completion:
        completion = total - prompt
    if prompt > _MOST or completion > _MOST:  # these are sums of counts, each of which is at most _MOST
        raise BadReply("usage", f"usage counts more than {_MOST:,} tokens")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "reasoning_tokens": reasoning,
        "cached_tokens": cached if cached is None or cached <= prompt else None,
    }


def _largest(given: Mapping[str, object], keys: tuple[tuple[str, str], ...]) -> int | None:
    """The largest count under `keys`, or None. This function runs for every request, so it does only the necessary
    work.
    """
    largest = None
    for outer, name in keys:
        inner: object = given.get(outer) if outer else given
        if inner is None:
            continue
        if not isinstance(inner, dict):
            raise BadReply("usage", f"usage.{outer} is {_shown(inner)}, not an object")
        value = inner.get(name)
        if value is None:
            continue
        count = value if type(value) is int and 0 <= value <= _MOST else _count(value, name)
        if largest is None or (count is not None and count > largest):
            largest = count
    return largest


def _count(value: object, name: str) -> int | None:
    """Check a number of tokens. Raises BadReply for a value that is not a whole number, or is too large."""
    if value is None:
        return None
    if type(value) is float and value.is_integer() and abs(value) <= _MOST:
        value = int(value)
    if type(value) is not int:
        raise BadReply("usage", f"usage.{name} is {_shown(value)}, not a number of tokens")
    if value < 0:
        raise _Impossible
    if value > _MOST:
        raise BadReply("usage", f"usage.{name} is {_shown(value)}: more than {_MOST:,} tokens")
    return value


def _usd(given: Mapping[str, object]) -> float | None:
    """The cost in US dollars that the server states. The cost is OpenRouter's `cost`, plus the upstream provider's cost
    if that is billed separately, or it is `estimated_cost`. Raises BadReply when the cost is not a possible amount.
    """
    value = given.get("estimated_cost") if given.get("cost") is None else given["cost"]
    if isinstance(value, dict):
        value = value.get("total_cost")
    usd = _amount(value)
    if usd is None or given.get("is_byok") is not True:
        return usd
    details = given.get("cost_details")
    upstream = _amount(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
    return None if upstream is None else usd + upstream


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None  # the amount is absent, or it may not be in dollars
    usd = float(value) if abs(value) < 1e18 else math.inf
    if not 0 <= usd <= _MOST_USD:
        raise BadReply("usage", f"usage.cost is {_shown(value)}, not an amount in dollars")
    return usd


def _shown(value: object) -> str:
    """A value in an error message, cut to a readable length."""
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a huge number"
    text = repr(value) if not isinstance(value, list | dict) else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:40] + "…"
