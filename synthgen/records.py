"""The record (one row of a corpus), its one Arrow schema, the request that made it, and the verdict on it.

A `Request` is what is asked; its `id` hashes everything that decides the answer, so the same request has the
same id in any run. A `Record` is a request with its answer. A `Verdict` is what one check said of a record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")
# Checks whose rejects say nothing of the task: no loss is taken on them. Rows rejected for another reason (a
# wrong answer, say) still show the teacher's distribution, and distillation uses it.
DEGENERATE = frozenset({"length", "repetition"})

_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))

Message = dict[str, Any]  # {"role", "content"} and, where they exist, "reasoning_content", "tool_calls"

_MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            ("reasoning_content", pa.string()),
            ("tool_calls", pa.string()),  # JSON text: tool arguments have no fixed Arrow type
        ]
    )
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("seed_id", pa.string(), nullable=False),
        pa.field("parents", pa.list_(pa.string())),
        pa.field("split", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("strategy", pa.string(), nullable=False),
        pa.field("prompt_version", pa.string(), nullable=False),
        pa.field("prompt", _MESSAGES),
        pa.field("completion", _MESSAGES),
        pa.field("teacher_prompt", _MESSAGES),
        pa.field("rationale", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("reference", pa.string()),
        pa.field("teacher", pa.string(), nullable=False),
        pa.field(
            "sampling",
            pa.struct(
                [
                    ("temperature", pa.float64()),
                    ("top_p", pa.float64()),
                    ("max_new_tokens", pa.int32()),
                    ("seed", pa.int64()),
                    ("sample_index", pa.int32()),
                ]
            ),
        ),
        pa.field("prompt_token_ids", pa.list_(pa.int32())),
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("label_probs", pa.list_(pa.float32())),
        pa.field("finish_reason", pa.string()),
        pa.field(
            "usage",
            pa.struct(
                [
                    ("prompt_tokens", pa.int32()),
                    ("completion_tokens", pa.int32()),
                    ("reasoning_tokens", pa.int32()),  # of the completion's
                    ("cached_tokens", pa.int32()),  # of the prompt's
                ]
            ),
        ),
        pa.field("cost_usd", pa.float64()),
        pa.field(
            "sources",
            pa.list_(
                pa.struct(
                    [
                        ("id", pa.string()),
                        ("role", pa.string()),
                        ("terms", pa.string()),
                        ("terms_date", pa.string()),
                        ("tools", pa.list_(pa.string())),
                        ("account", pa.string()),
                    ]
                )
            ),
        ),
        pa.field("scores", pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))),
        pa.field(
            "verdicts",
            pa.list_(pa.struct([("check", pa.string()), ("reason", pa.string()), ("score", pa.float64())])),
        ),
    ]
)

FAILURE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("seed_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Verdict:
    """What one check said: keep, or drop for `reason`; `score` is what the check measured."""

    keep: bool
    check: str
    reason: str = ""
    score: float | None = None


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
    sampling: dict[str, Any]
    sources: list[dict[str, Any]]
    reference: str | None = None
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


@dataclass
class Record:
    """One row; the fields are the columns of `SCHEMA` in their order."""

    id: str
    seed_id: str
    split: str
    task: str
    strategy: str
    prompt_version: str
    prompt: list[Message]
    completion: list[Message]
    teacher: str
    parents: list[str] = field(default_factory=list)
    teacher_prompt: list[Message] | None = None
    rationale: str | None = None
    answer: str | None = None
    reference: str | None = None
    sampling: dict[str, Any] | None = None
    prompt_token_ids: Sequence[int] | None = None
    token_ids: Sequence[int] | None = None
    label_probs: Sequence[float] | None = None
    finish_reason: str | None = None
    usage: dict[str, int | None] | None = None
    cost_usd: float | None = None
    sources: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The completion as plain text; of a row that has none (strategy embed) the text that was read."""
        if not self.completion:
            return str(self.prompt[-1]["content"])
        return "\n".join(message["content"] or "" for message in self.completion)


def to_table(records: Iterable[Record]) -> pa.Table:
    """Records as an Arrow table of exactly `SCHEMA`."""
    rows = [{f.name: getattr(record, f.name) for f in fields(record)} for record in records]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Record]:
    """Rows of a corpus (as dictionaries) as records."""
    names = {f.name for f in fields(Record)}
    return [Record(**{key: value for key, value in row.items() if key in names}) for row in rows]


def with_verdicts(record: Record, verdicts: Iterable[Verdict]) -> Record:
    """The record with the reasons it was dropped for, and every score that the checks measured."""
    values = asdict(record)
    verdicts = list(verdicts)
    values["verdicts"] = [{"check": v.check, "reason": v.reason, "score": v.score} for v in verdicts if not v.keep]
    values["scores"] = [*record.scores, *({"name": v.check, "value": v.score} for v in verdicts if v.score is not None)]
    return Record(**values)
