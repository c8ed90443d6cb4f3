"""A question to one teacher (`Request`), its origin (`Lineage`), and both together (`Query`).

A teacher sees only the request. The lineage is written into the row that is made from the reply. `identify` computes a
request's id: the same question about the same seed has the same id in any run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from synthgen.records import Message, Sampling, Source

Kind = Literal["sample", "classify", "embed", "score"]
"""The task of the teacher: write a completion (sample), give probabilities of labels (classify), embed a text (embed),
or give the log-probabilities of a given completion (score).
"""

Tool = Mapping[str, object]
"""A tool that the model may call, as a chat API describes it."""

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class Request(
    NamedTuple
):  # creating a frozen data class takes five times as long, and creating requests is a tenth of the work for a row
    """One question to one teacher, with everything that determines the answer. Pass all fields except the first three
    by name.

    `messages` is the conversation that is sent. With `open_turn`, the last message is left open, and the model
    continues it. `labels` are used by kind "classify". Kind "score" scores `completion`; `completion_ids` are its
    tokens, if known. `text` is only the question, for models that read a text instead of a conversation. If `text` is
    "", the last message is used. With `target`, the teacher's distributions at the reply's tokens are also stored.
    `teacher` is the teacher's name in the recipe. `id` (32 hexadecimal digits, see `identify`) seeds the random numbers
    of a sample.
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
        """The input of a model that reads a text instead of a conversation."""
        return self.text or str(self.messages[-1]["content"])


class Lineage(NamedTuple):
    """The origin of a request, and the values of its row that are not from the reply.

    `prompt` is the student's prompt. `parents` are the ids of the earlier requests that this request depends on. Rows
    with the same `group_id` are kept or rejected together; `pair_role` is the row's role in the group.
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
    """A request with its lineage. Strategies yield queries. The teacher gets only the query's request."""

    request: Request
    lineage: Lineage

    @property
    def id(self) -> str:
        """The id of the request."""
        return self.request.id


def identify(request: Request, lineage: Lineage, teacher: str) -> str:
    """Compute the id of a request: 32 hexadecimal digits of a hash of everything that distinguishes the request from
    others.

    The hash covers kind, seed, `teacher` (model and revision), the teacher's and the student's messages, every sampling
    parameter and the labels. If the request has tools, a given completion with its tokens, or an open last turn, the
    hash covers these too.
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
