"""Defines the record, which is one row of a corpus: its columns, and their Arrow schema.

A `Record` holds a prompt with its completion, its teacher, its sources, and the verdicts of curation. A row from
another data set has the same columns; columns with unknown values (`teacher`, `strategy`, …) are null. The user's own
columns are stored in addition to these columns (`Record.own`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, TypedDict

import pyarrow as pa

from synthgen.tables.curation import Teaches

SCHEMA_VERSION = 2
SPLITS = ("train", "validation", "test")

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter", "refusal", "unknown")
"""Why a server ended a reply. The value is null when no server answered."""

COMPLETE = ("stop", "tool_calls")
"""The finish reasons of a complete answer."""

ROLES = ("seed", "template", "few_shot", "generator", "logits", "rewriter", "judge", "student_base", "dataset")
"""The roles of a row's sources."""


class Message(TypedDict, total=False):
    """One turn of a conversation. `tool_calls` is JSON text that is parsed when the conversation is rendered."""

    role: str
    content: str | None
    name: str | None
    tool_call_id: str | None
    reasoning_content: str | None
    tool_calls: str | None


class Source(TypedDict):
    """A source that a row was made from. `license` is an SPDX id or a key of data/licenses.yaml.

    If the source is a model, or a text that the model `made_by` wrote, `account` states whose account asked the model:
    `ours`, `third_party`, or null when unknown. `tools` are the provider's tools that the model used.
    """

    id: str
    role: str
    license: str
    terms_date: str | None
    made_by: str | None
    account: str | None
    tools: list[str]


class Sampling(TypedDict, total=False):
    """The sampling parameters of a completion."""

    temperature: float | None
    top_p: float | None
    max_new_tokens: int
    seed: int
    sample_index: int


class Usage(TypedDict, total=False):
    """Numbers of tokens, as the server counted them."""

    prompt_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None
    cached_tokens: int | None


class Score(TypedDict):
    """A number that a check or a strategy measured for a row, with the name of the measure."""

    name: str
    value: float


class Span(TypedDict):
    """A part of the completion's text: the characters from `start` up to, but not including, `stop`."""

    start: int
    stop: int


class Reason(TypedDict):
    """One reason why a row was rejected. The column `verdicts` is a list of reasons.

    `check` is the check or sweep that rejected the row, and `rule` names the rule within this check or sweep. `score`
    is the measured value, and `threshold` is the limit that the value crossed. `matched_id` is the id of a row that is
    too similar, `span` is the place in the completion, and `reason` is the explanation in words. `teaches` says what
    the row may still be used for in training.
    """

    check: str
    rule: str
    score: float | None
    threshold: float | None
    matched_id: str | None
    span: Span | None
    reason: str
    teaches: Teaches


class Edit(TypedDict):
    """A change of a row's text: the name of the edit, the range `start` to `end` of the completion that was changed,
    and the sha256 of the completion before the edit. The range is null if a text other than the completion changed, and
    the hash is null if it would reveal what the edit removed.
    """

    edit: str
    start: int | None
    end: int | None
    before_sha256: str | None


_MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            ("name", pa.string()),
            ("tool_call_id", pa.string()),
            ("reasoning_content", pa.string()),
            ("tool_calls", pa.string()),  # JSON text: tool arguments have no fixed Arrow type
        ]
    )
)
_SAMPLING = pa.struct(
    [
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("max_new_tokens", pa.int32()),
        ("seed", pa.int64()),
        ("sample_index", pa.int32()),
    ]
)
_USAGE = pa.struct(
    [
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("reasoning_tokens", pa.int32()),  # these tokens also count in completion_tokens
        ("cached_tokens", pa.int32()),  # these tokens also count in prompt_tokens
    ]
)
_SOURCES = pa.list_(
    pa.struct(
        [
            ("id", pa.string()),
            ("role", pa.string()),
            ("license", pa.string()),
            ("terms_date", pa.string()),
            ("made_by", pa.string()),
            ("account", pa.string()),
            ("tools", pa.list_(pa.string())),
        ]
    )
)
VERDICTS = pa.list_(
    pa.struct(
        [
            ("check", pa.string()),
            ("rule", pa.string()),
            ("score", pa.float64()),
            ("threshold", pa.float64()),
            ("matched_id", pa.string()),
            ("span", pa.struct([("start", pa.int64()), ("stop", pa.int64())])),
            ("reason", pa.string()),
            ("teaches", pa.string()),
        ]
    )
)
SCORES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
EDITS = pa.list_(
    pa.struct([("edit", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("before_sha256", pa.string())])
)

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("seed_id", pa.string(), nullable=False),
        pa.field("parents", pa.list_(pa.string())),
        pa.field("group_id", pa.string()),
        pa.field("pair_role", pa.string()),
        pa.field("split", pa.string()),
        pa.field("task", pa.string()),
        pa.field("strategy", pa.string()),
        pa.field("prompt_version", pa.string()),
        pa.field("prompt", _MESSAGES),
        pa.field("completion", _MESSAGES),
        pa.field("teacher_prompt", _MESSAGES),
        pa.field("tools", pa.string()),
        pa.field("teaches", pa.string(), nullable=False),
        pa.field("rationale", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("reference", pa.list_(pa.string())),
        pa.field("teacher", pa.string()),
        pa.field("served_model", pa.string()),
        pa.field("sampling", _SAMPLING),
        pa.field("prompt_token_ids", pa.list_(pa.int32())),
        pa.field("token_ids", pa.list_(pa.int32())),
        pa.field("label_probs", pa.list_(pa.float32())),
        pa.field("finish_reason", pa.string()),
        pa.field("usage", _USAGE),
        pa.field("cost_usd", pa.float64()),
        pa.field("sources", _SOURCES),
        pa.field("scores", SCORES),
        pa.field("verdicts", VERDICTS),
        pa.field("edits", EDITS),
    ]
)

UNUSABLE = "unusable"
"""The kind of failure when a record cannot hold a row of a data set."""

FAILURE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("seed_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)


@dataclass
class Record:
    """One row. All fields except `own` are the columns of `SCHEMA`; docs/corpus-format.md describes each column."""

    id: str
    seed_id: str
    split: str | None
    task: str | None
    strategy: str | None
    prompt_version: str | None
    prompt: list[Message]
    completion: list[Message]
    teacher: str | None
    parents: list[str] = field(default_factory=list)
    group_id: str | None = None
    pair_role: str | None = None
    teacher_prompt: list[Message] | None = None
    tools: str | None = None
    teaches: Literal["last", "all"] = "last"
    rationale: str | None = None
    answer: str | None = None
    reference: list[str] | None = None
    served_model: str | None = None
    sampling: Sampling | None = None
    prompt_token_ids: Sequence[int] | None = None
    token_ids: Sequence[int] | None = None
    label_probs: Sequence[float] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    sources: list[Source] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    verdicts: list[Reason] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    own: dict[str, object] = field(default_factory=dict)
    """The user's own columns by their names in the corpus."""

    @property
    def text(self) -> str:
        """The completion as plain text. For a row without a completion (strategy `embed`), the result is the input
        text.
        """
        if not self.completion:
            return str(self.prompt[-1]["content"])
        return "\n".join(message.get("content") or "" for message in self.completion)


def schema_with(own: pa.Schema | None) -> pa.Schema:
    """`SCHEMA` followed by the user's own columns, with names from `own_names`."""
    if own is None:
        return SCHEMA
    names = own_names(own.names)
    return pa.schema([*SCHEMA, *(own.field(old).with_name(new) for old, new in names.items())])


def own_names(columns: Iterable[str]) -> dict[str, str]:
    """The name of each user column in a corpus: its own name, or `source_NAME` when the record has a column of that
    name.
    """
    taken = set(SCHEMA.names)
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in taken:
            name = f"source_{name}"
        taken.add(name)
        names[column] = name
    return names


def to_table(records: Iterable[Record], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Convert records to an Arrow table with exactly this `schema`, which is `SCHEMA` or a result of `schema_with`."""
    rows = list(records)
    columns = [
        pa.array(
            [getattr(row, name) for row in rows] if name in _COLUMNS else [row.own.get(name) for row in rows], kind
        )
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


_COLUMNS = frozenset(f.name for f in fields(Record)) - {"own"}


def from_rows(rows: Iterable[Mapping[str, object]]) -> list[Record]:
    """Convert rows of a corpus from dictionaries to records. Columns that are not in `SCHEMA` go to `own`."""
    names = {f.name for f in fields(Record)} - {"own"}
    found = []
    for row in rows:
        ours = {key: value for key, value in row.items() if key in names}
        record = Record(**ours)  # type: ignore[arg-type]
        record.own = {key: value for key, value in row.items() if key not in names}
        found.append(record)
    return found
