"""A request: what one teacher is asked, and where it comes from.

`identify` gives a request its id, a hash of everything that decides the answer. The same request has the same id in
any run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from synthgen.records import Message, Sampling, Source

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Request:
    """One question to one teacher.

    `kind` is "sample" (write a completion), "classify" (give probabilities of `labels`), "embed"
    (read the text) or "score" (give the log-probabilities of `completion`; `completion_ids` are its
    tokens where they are known).
    `id` is set by `identify`; the random numbers of a sample are a function of it alone.
    `teacher` is the name, in the recipe, of who is asked. `target`: the distribution is wanted too.
    `open_turn`: the last message of `teacher_prompt` is left open, and the model goes on writing it.
    `tools`: what the teacher may call, as its API takes them.
    """

    kind: str
    seed_id: str
    split: str
    prompt: list[Message]
    teacher_prompt: list[Message]
    sampling: Sampling
    sources: list[Source]
    reference: list[str] | None = None
    labels: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    id: str = ""
    teacher: str = ""
    target: bool = True
    open_turn: bool = False
    completion: tuple[Message, ...] = ()
    completion_ids: tuple[int, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


def identify(request: Request, teacher: str) -> str:
    """32 hex digits over kind, seed, teacher (with its revision), messages, every sampling parameter, and, where
    they are given, the tools, the completion and its tokens."""
    parts: list[Any] = [
        request.kind,
        request.seed_id,
        teacher,
        request.teacher_prompt,
        request.prompt,
        request.sampling,
        list(request.labels),
    ]
    if request.tools:
        parts.append({"tools": list(request.tools)})
    if request.completion:
        parts += [list(request.completion), list(request.completion_ids)]
    if request.open_turn:
        parts.append("open_turn")
    text = _CANONICAL.encode(parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
