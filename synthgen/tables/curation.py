"""EDITS, CHECKS and SWEEPS: the rules that curation applies to the rows of a corpus.

The order is fixed. First, edits change rows. Then checks judge each row, and sweeps compare the rows that passed the
checks. At the end, rows of one group are kept or rejected together. An entry holds all facts about its rule: the
functions, the columns that they read, the key and the settings in the recipe's `curate` section, and how training may
use a rejected row. The functions are described in `synthgen.curation`, which calls them.

The key of a rule in the recipe is its name in the table. Its value is `false` or null (off), `true` (on, with the
default settings) or, where the entry has a `section`, a mapping of settings. Names are unique over the three tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthgen.tables.reference import Reference
from synthgen.tables.section import Section, Share

Teaches = Literal["nothing", "distribution", "all"]
"""How training may use a rejected row: not at all, only for the teacher's distributions, or like a kept row."""


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """The fields that entries of all three tables share."""

    about: str
    """One line that says what the rule does."""
    columns: tuple[str, ...]
    """The columns that the rule's functions read: columns of the record, the user's own columns, or derived columns
    such as `completion.text` (see `synthgen.curation.columns`).
    """
    section: type[Section] | None = None
    """The section class of the rule's settings in the recipe; None when the rule can only be switched on or off."""
    shorthand: str | None = None
    """The setting whose value a recipe may give instead of a mapping of all settings. An example is `repetition: 0.2`.
    """
    on: bool = True
    """Whether the rule is on when a recipe does not name it."""


@dataclass(frozen=True, kw_only=True)
class Edit(RowRule):
    """An edit of rows. `run(batch, section, services)` returns the batch with the changed columns, and records each
    change in the column `edits`.
    """

    run: Reference
    changes: tuple[str, ...]
    """The columns that the edit may change, besides `edits`."""
    on: bool = False


@dataclass(frozen=True, kw_only=True)
class Check(RowRule):
    """A check of each row by itself. `run(batch, section, services)` returns `Verdicts`."""

    run: Reference
    teaches: Teaches = "distribution"
    """How training may use the rows that this check rejects. The check may set another value for a single row, in its
    `Rejection`.
    """


@dataclass(frozen=True, kw_only=True)
class Sweep(RowRule):
    """A comparison of rows with each other in four steps; see `synthgen.curation.sweeps`."""

    signature: Reference
    candidates: Reference
    verify: Reference | None = None
    """The function that confirms candidate pairs; None when they need no confirmation."""
    resolve: Reference
    reason: str
    """The reason that a rejected row gets: text with the fields {matched_id}, {score} and {threshold}."""
    teaches: Teaches = "distribution"


class Length(Section):
    """Bounds on the number of words of a completion."""

    min_words: int | None = 1
    """Minimum number of words in a completion; null for no bound."""
    max_words: int | None = 1000
    """Maximum number of words in a completion; null for no bound."""


class Repetition(Section):
    """How much a completion may repeat itself."""

    max_share: Share = 0.3
    """Maximum share of the 4-word sequences that occurred before in the same completion."""


EDITS: dict[str, Edit] = {}

CHECKS: dict[str, Check] = {
    "answer": Check(
        about="Reject rows whose answer does not match the reference. A row that has no reference is kept.",
        run="synthgen.curation.answers:answer",
        columns=("answer", "reference"),
    ),
    "length": Check(
        about="Reject completions with too few or too many words.",
        run="synthgen.curation.text:length",
        columns=("completion.plain",),
        section=Length,
        teaches="nothing",
    ),
    "repetition": Check(
        about="Reject completions that repeat their own 4-word sequences.",
        run="synthgen.curation.text:repetition",
        columns=("completion.plain",),
        section=Repetition,
        shorthand="max_share",
        teaches="nothing",
    ),
    "refusal": Check(
        about="Reject completions that begin with a refusal to answer.",
        run="synthgen.curation.text:refusal",
        columns=("completion.text",),
    ),
    "truncated": Check(
        about="Reject completions that are not complete: cut off at max_new_tokens, filtered or refused.",
        run="synthgen.curation.text:truncated",
        columns=("finish_reason",),
    ),
}

SWEEPS: dict[str, Sweep] = {
    "duplicates": Sweep(
        about="Reject later copies of the same prompt with the same completion. Case and white space are ignored.",
        signature="synthgen.curation.duplicates:signature",
        candidates="synthgen.curation.duplicates:candidates",
        resolve="synthgen.curation.duplicates:resolve",
        columns=("prompt.plain", "completion.plain"),
        reason="same as {matched_id}",
    ),
}
