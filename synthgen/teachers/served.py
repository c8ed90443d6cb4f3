"""Compares the model that was asked for with the model that a server says answered."""

from __future__ import annotations

import re

# What a server may append to the name of the same model: a date or build, `latest`, or the format of the weights.
_BUILD = re.compile(
    r"(?:[-@:._](?:latest|preview|free|v\d+(?:[.:]\d+)*|\d{3,8}|\d{4}-\d{2}-\d{2}|fp8|fp16|bf16|int8|int4|awq|gptq))+"
)


def same_model(asked: str, served: str) -> bool:
    """Whether the name `served` means the model `asked`. Upper case, a provider before a slash, and a date or another
    mark of a build after the name do not matter.
    """
    one, other = _core(asked), _core(served)
    if one == other:
        return True
    long, short = (one, other) if len(one) > len(other) else (other, one)
    return bool(short) and long.startswith(short) and _BUILD.fullmatch(long[len(short) :]) is not None


def _core(name: str) -> str:
    last = re.split(r"[/\\]", name.strip().rstrip("/"))[-1].lower().removesuffix(".gguf")
    return re.sub(r"[-:](?:latest|free)$", "", last)
