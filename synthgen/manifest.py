"""The manifest of a corpus, manifest.json: a description of the corpus, counts of its rows, and the hash of every
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, NotRequired, cast

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # on Python 3.11, pydantic needs this TypedDict

from synthgen.errors import CorpusError
from synthgen.records import SCHEMA_VERSION, SPLITS

_REPAIR = "repeat the command and add --repair"
Kind = Literal["generated", "curated"]
Summaries = dict[str, dict[str, dict[str, int]]]
"""Counts of some checks, as nested mappings: check → part, such as an evaluation set → name of a count → count."""


class FileEntry(TypedDict):
    """One file of a corpus."""

    rows: int
    bytes: int
    sha256: str


class SourceTerms(TypedDict):
    """A model or text from which rows were made, its role, and its license. The optional keys are the same as for a
    row's source; see `synthgen.records.Source`.
    """

    role: str
    source: str
    license: str
    account: NotRequired[str]
    terms_date: NotRequired[str]
    tools: NotRequired[list[str]]


class Facts(TypedDict):
    """The facts that the maker of a corpus provides.

    `counts` of a generated corpus may have `rows`, `tokens`, `failures`, and the rows of each split (`rows_train`, …).
    `counts` of a curated corpus may have `kept`, `rejected`, `tokens_kept`, `tokens_rejected`, `rows_without_tokens`,
    `edited`, `answers_checked` and `answers_correct`. `counts` of an imported data set may have `copies_left_out`.
    `rejected_by` has the number of reasons that each check or sweep gave, and `dropped_by` has the number of rows that
    each check or sweep was the first to reject. `thresholds` has the settings of all edits, checks and sweeps, and
    `summaries` has further counts of some checks. `notes` are the recipe's notes for the cards. Corpora of earlier
    versions have no notes.
    """

    description: str
    notes: NotRequired[list[str]]
    task: str
    strategy: str
    prompt_version: str
    labels: list[str]
    teachers: dict[str, dict[str, Any]]
    sources: list[SourceTerms]
    counts: dict[str, int]
    rejected_by: NotRequired[dict[str, int]]
    dropped_by: NotRequired[dict[str, int]]
    thresholds: NotRequired[dict[str, object]]
    summaries: NotRequired[Summaries]
    cost_usd: NotRequired[float | None]


class _Teacher(TypedDict):
    """The facts about a teacher that the pages need; `synthgen.teachers.base.Identity` has more facts."""

    engine: str
    model: str
    revision: str
    dtype: str
    tokenizer: str
    vocab_size: int
    license: str


class Manifest(Facts):
    """The full content of manifest.json."""

    schema_version: int
    kind: Kind
    files: dict[str, FileEntry]


def make(kind: Kind, facts: Facts, files: dict[str, FileEntry]) -> Manifest:
    """Build the manifest of a corpus that has these files: the content of manifest.json."""
    return cast(Manifest, {"schema_version": SCHEMA_VERSION, "kind": kind, **facts, "files": files})


def rows_of_splits(manifest: Manifest) -> dict[str, int]:
    """The number of rows in each split that has rows, such as {"train": 80, "test": 20}."""
    counts = dict.fromkeys(SPLITS, 0)
    for path, entry in manifest["files"].items():
        folder, _, name = path.rpartition("/")
        if folder == "data":
            counts[name.partition("-")[0]] += entry["rows"]
    return {split: count for split, count in counts.items() if count}


def lines_of(summaries: Summaries) -> list[str]:
    """Text for people, with a line for each part of each check."""
    return [
        f"{check}, {part}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items())
        for check, parts in summaries.items()
        for part, counts in parts.items()
    ]


def from_json(value: object, where: str) -> Manifest:
    """Check that `value`, the content of a JSON file, is a manifest, and return it.

    Raises CorpusError, which names `where`, when `value` is not a manifest or comes from an older version.
    """
    if not isinstance(value, Mapping) or not value.keys() >= {"kind", "counts", "files"}:
        raise CorpusError(f"{where} is damaged: it is not a manifest", _REPAIR)
    version = value.get("schema_version")
    if version != SCHEMA_VERSION:
        raise CorpusError(
            f"{where} has schema version {version}; this version of synthgen reads schema version {SCHEMA_VERSION}",
            "make the corpus again with this version, or read it with the version that made it",
        )
    try:
        _MANIFEST.validate_python(value, strict=True)
        _TEACHERS.validate_python(value["teachers"], strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise CorpusError(f"{where} is damaged: '{key}': {first['msg']}", _REPAIR) from None
    for name in value["files"]:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise CorpusError(f"{where} is damaged: '{name}' is not a file of the corpus", _REPAIR)
    return cast(Manifest, value)


_MANIFEST = TypeAdapter(Manifest)
_TEACHERS = TypeAdapter(dict[str, _Teacher])
