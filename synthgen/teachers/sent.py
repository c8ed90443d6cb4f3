"""Computes what is sent for a request when the recipe has `teacher.extra`: sampling parameters, tools, token limits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypedDict, cast

from synthgen.records import Sampling
from synthgen.requests import Request

LABEL_TOKENS = 16
"""The maximum number of tokens that the model may generate when the answer is a label."""
LIMITS = ("max_tokens", "max_completion_tokens")
"""The names that servers use for the maximum number of tokens of a completion."""
_UNLIMITED = 1 << 20  # taken as the maximum when a request sets no limit for the completion
# Names in the request's body, and the matching keys of `Sampling`.
_SAMPLING = {"temperature": "temperature", "top_p": "top_p", "seed": "seed"}


class Sent(TypedDict):
    """Fields of a `Reply`. The fields are None when the request's own values were sent."""

    sampling: Sampling | None
    tools: str | None


def as_sent(request: Request, extra: Mapping[str, object]) -> Sent:
    """The sampling parameters and tools that were sent instead of the request's own: the values in `extra` and, for a
    request of kind 'classify', fixed values.
    """
    if not extra and request.kind != "classify":
        return {"sampling": None, "tools": None}
    changed: dict[str, object] = {}
    if request.kind == "classify":
        changed = {"temperature": 0.0, "max_new_tokens": LABEL_TOKENS}
    changed |= {name: extra[key] for key, name in _SAMPLING.items() if key in extra}
    if any(name in extra for name in LIMITS):  # without a limit that is sent, the maximum is unknown
        changed["max_new_tokens"] = max(_limits(extra), default=None)
    return {
        "sampling": cast(Sampling, {**request.sampling, **changed}) if changed else None,
        "tools": json.dumps(extra["tools"] or [], ensure_ascii=False) if "tools" in extra else None,
    }


def most_completion(body: Mapping[str, object]) -> int:
    """The largest number of tokens that the completion may have. Servers differ in which limit they obey, so the
    largest limit is returned.
    """
    return max(_limits(body), default=_UNLIMITED)


def _limits(body: Mapping[str, object]) -> list[int]:
    return [value for name in LIMITS if isinstance(value := body.get(name), int)]
