"""What one teacher is asked (`Request`), where it comes from (`Lineage`), and both together (`Query`).

A teacher sees the request alone. The lineage goes into the row that the reply makes. `identify` gives a request its id:
the same question about the same seed has the same id in any run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from synthgen.records import Message, Sampling, Source

Kind = Literal["sample", "classify", "embed", "score"]
"""What a teacher does with a request: write a completion; give the probabilities of labels; read a text; give the
log-probabilities of a completion that is given."""

Tool = Mapping[str, object]
"""A tool that the model may call, as an API takes it."""

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Request(
    NamedTuple
):  # building one is a tenth of the work for a row; a frozen data class takes five times as long
    """One question to one teacher: all that decides the answer. Give all but the first three fields by name.

    `messages` is the conversation that is sent. With `open_turn` its last message is left open, and the model continues
    it. `labels` are those of kind "classify". `completion` is scored by kind "score"; `completion_ids` are its tokens,
    where they are known. `text` is the question alone, for models that read a text and no conversation; "" stands for
    the last message. `target`: the distributions over the reply's tokens are wanted too. `teacher` is the name of who
    is asked, in the recipe. `id`, 32 hexadecimal digits, seeds the random numbers of a sample; see `identify`.
    """

    kind: Kind
    messages: Sequence[Message]
    sampling: Sampling = Sampling()
    labels: tuple[str, ...] = ()
    completion: tuple[Message, ...] = ()
    completion_ids: tuple[int, ...] = ()
    tools: tuple[Tool, ...] = ()
    open_turn: bool = False
    text: str = ""
    target: bool = True
    teacher: str = ""
    id: str = ""

    @property
    def question(self) -> str:
        """What a model reads that reads a text and no conversation."""
        return self.text or str(self.messages[-1]["content"])


class Lineage(NamedTuple):
    """Where a request comes from, and what its row says besides the reply.

    `prompt` is what the student is asked. `parents` are the ids of earlier requests that led here. Rows of one
    `group_id` are kept or dropped together; `pair_role` is the row's part in the group.
    """

    seed_id: str
    split: str
    prompt: Sequence[Message]
    sources: tuple[Source, ...]
    reference: Sequence[str] | None = None
    parents: tuple[str, ...] = ()
    group_id: str | None = None
    pair_role: str | None = None


class Query(NamedTuple):
    """A request with its lineage. Strategies yield queries; a teacher is given the request alone."""

    request: Request
    lineage: Lineage

    @property
    def id(self) -> str:
        """The id of the request."""
        return self.request.id


def identify(request: Request, lineage: Lineage, teacher: str) -> str:
    """The id of a request: 32 hexadecimal digits, a hash of all that makes it this one.

    It covers kind, seed, `teacher` (model and revision), the messages that the teacher is sent and those that the
    student is asked, every sampling parameter, the labels, and, where they are given, the tools, the completion and
    its tokens, and an open turn.
    """
    parts: list[object] = [
        request.kind,
        lineage.seed_id,
        teacher,
        request.messages,
        lineage.prompt,
        request.sampling,
        list(request.labels),
    ]
    if request.tools:
        parts.append({"tools": list(request.tools)})
    if request.completion:
        parts += [list(request.completion), list(request.completion_ids)]
    if request.open_turn:
        parts.append("open_turn")
    return hashlib.blake2b(_CANONICAL.encode(parts).encode(), digest_size=16).hexdigest()
