"""Compares the name of the requested model with the name that the server gives for the model that answered."""

from __future__ import annotations

import re
from functools import lru_cache

# Endings that a server may append to the name of the same model.
_DATE = re.compile(r"\d{4}-\d\d(?:-\d\d)?|\d\d-\d{4}", re.ASCII)
_QUANTIZED = re.compile(r"q\d(?:_[0-9a-z]+)*", re.ASCII)
_MARKS = re.compile(r"latest|free|nitro|floor|00[1-9]|\d{4}|\d{6}|\d{8}|fp8|fp16|bf16|int8|int4|awq|gptq", re.ASCII)


@lru_cache(1024)
def same_model(asked: str, served: str) -> bool:
    """Whether the name `served` means the model `asked`. Letter case, a folder or provider before the last slash, and a
    date or another mark of a build after the name are ignored. If both names have a provider, it must be the same.
    """
    one, other = _parts(asked), _parts(served)
    if one[0] and other[0] and one[0] != other[0] and not served.startswith("/"):
        return False
    if one[1] == other[1]:
        return True
    long, short = sorted((one[1], other[1]), key=len, reverse=True)
    return bool(short) and long.startswith(short) and _is_build(long[len(short) :])


def _is_build(rest: str) -> bool:
    """Whether the end of a name only marks a build: `-2026-08-06`, `-08-2026`, `:latest`, `-fp8`, `-q4_k_m`."""
    if rest[0] not in "-@:._":
        return False
    rest = rest[1:]
    if _DATE.fullmatch(rest) or _QUANTIZED.fullmatch(rest):
        return True
    return all(_MARKS.fullmatch(mark) for mark in re.split(r"[-@:._]", rest))


def _parts(name: str) -> tuple[str, str]:
    """Return (provider, name), in lower case. Periods between digits count as hyphens."""
    pieces = re.split(r"[/\\]", name.strip().rstrip("/").lower())
    last = re.sub(r"[-:](?:latest|free)$", "", pieces[-1].removesuffix(".gguf"))
    return pieces[-2] if len(pieces) > 1 else "", re.sub(r"(?<=\d)\.(?=\d)", "-", last)
