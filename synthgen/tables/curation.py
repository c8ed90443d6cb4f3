"""EDITS, CHECKS, SWEEPS and SELECTIONS: the rules that curation applies to the rows of a corpus.

The order is fixed. First, edits change rows. Then checks judge each row, and sweeps compare the rows that passed the
checks. Rows of one group are kept or rejected together. At the end, a selection keeps some of the rows. An entry holds
all facts about its rule: the functions, the columns that the functions read, the key and the settings in the recipe's
`curate` section, and how training may use a rejected row. The functions are described in `synthgen.curation`, which
calls them.

The key of a rule in the recipe is its name in the table. The key's value is `false` or null (off), `true` (on, with the
default settings) or, where the entry has a `section`, a mapping of settings. Names are unique over the four tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthgen.tables.curation_settings import (
    Arithmetic,
    BrokenText,
    Confidence,
    Decontamination,
    Duplicates,
    Echo,
    Format,
    Function,
    Languages,
    Length,
    NearDuplicates,
    Pattern,
    PersonalData,
    Repetition,
    Select,
    SplitCopies,
    SplitTwins,
    Truncated,
    WebText,
)
from synthgen.tables.reference import Reference
from synthgen.tables.section import Section

Teaches = Literal["nothing", "distribution", "all"]
"""How training may use a rejected row: not at all, only with the teacher's distributions, or like a kept row."""


@dataclass(frozen=True, kw_only=True)
class RowRule:
    """The fields that the entries of all four tables share."""

    about: str
    """One line that says what the rule does."""
    columns: tuple[str, ...]
    """The columns that the rule's functions read: columns of the record, the user's own columns, or derived columns
    such as `completion.text` (see `synthgen.curation.columns`).
    """
    more_columns: str | None = None
    """The setting in which the recipe names further columns; None when the rule has no such setting."""
    section: type[Section] | None = None
    """The section class of the rule's settings in the recipe; None when the rule can only be switched on or off."""
    shorthand: str | None = None
    """The setting whose value a recipe may give instead of a mapping of all settings. An example is `repetition: 0.2`.
    """
    on: bool = True
    """Whether the rule is on when a recipe does not name it."""
    needs: str | None = None
    """The package that the rule needs, which belongs to the extra `curate`. Without it, commands refuse a recipe that
    enables the rule.
    """
    reads: Reference | None = None
    """A function that gets the rule's settings and returns the files and folders that the rule reads in addition to the
    corpus. When their contents change, a finished curation is no longer valid.
    """
    fingerprint: Reference | None = None
    """`fingerprint(section)` returns text that changes when something that the settings name changes, such as a user's
    code. `fingerprint` raises RecipeError when the rule cannot run. Commands call `fingerprint` before they spend time
    or money.
    """


@dataclass(frozen=True, kw_only=True)
class Edit(RowRule):
    """An edit of rows. `run(batch, section, services)` returns the batch with the changed columns, and records each
    change in the column `edits`.
    """

    run: Reference
    changes: tuple[str, ...]
    """The columns that the edit may change in addition to `edits`."""
    on: bool = False


@dataclass(frozen=True, kw_only=True)
class Check(RowRule):
    """A check of each row by itself. `run(batch, section, services)` returns `Verdicts`."""

    run: Reference
    teaches: Teaches = "distribution"
    """How training may use the rows that this check rejects. The check may set another value for a single row, in its
    `Rejection`.
    """
    only_text: bool = False
    """Whether the check is only for rows of plain text, which have no prompt. A recipe with a teacher is refused if it
    enables a check that is only for plain text.
    """
    summary: Reference | None = None
    """`summary(section, folder)` gets the folder of the curated corpus. `summary` returns counts for the manifest, as
    nested mappings: part of the check → name of a count → count.
    """


@dataclass(frozen=True, kw_only=True)
class Sweep(RowRule):
    """A comparison of rows with each other; see `synthgen.curation.sweeps`. A sweep has either `decide`, or
    `candidates` and `resolve`.
    """

    signature: Reference
    decide: Reference | None = None
    """The function that gets the signatures of all rows and returns the rows to reject."""
    candidates: Reference | None = None
    verify: Reference | None = None
    """The function that confirms candidate pairs; None when they need no confirmation."""
    resolve: Reference | None = None
    reason: str = ""
    """The reason that a rejected row gets: text with the fields {matched_id}, {score} and {threshold}. The text is not
    used if `decide` returns a column `reason`.
    """
    teaches: Teaches = "distribution"


TASK_ROWS = 8192
"""Minimum number of rows of a task of curation, except for the last task."""
REFUSED = "synthgen.curation.refusals:refused"
"""`refused(prompts, completions)` says for each completion whether the check `refusal` finds that it declines."""
LANGUAGES_OF = "synthgen.curation.languages:languages"
"""`languages(texts)` returns the code of each text's language, as the check `language` determines it, or None."""

_TEXTS = ("prompt", "completion", "rationale", "answer", "reference", "teacher_prompt", "tools")

EDITS: dict[str, Edit] = {
    "next_turn": Edit(
        about="Cut a completion where the teacher goes on with an invented question, such as a line with 'Q:'.",
        run="synthgen.curation.edits:next_turn",
        columns=("completion.text", "prompt.text"),
        changes=("completion", "answer", "rationale", "finish_reason"),
    ),
    "opening": Edit(
        about="Cut what assistants say before they answer, such as 'Sure! Here is a list of rivers:'.",
        run="synthgen.curation.edits:opening",
        columns=("completion.text",),
        changes=("completion", "answer", "rationale"),
    ),
    "white_space": Edit(
        about="Remove spaces at the ends of lines and surplus blank lines; line ends become those of Unix.",
        run="synthgen.curation.edits:white_space",
        columns=("completion.text",),
        changes=("completion", "answer", "rationale"),
    ),
    "redact": Edit(
        about="Replace personal data and secrets by pseudonyms such as [EMAIL_1].",
        run="synthgen.curation.privacy:redact",
        columns=_TEXTS,
        changes=_TEXTS,
        section=PersonalData,
        shorthand="entities",
    ),
}

CHECKS: dict[str, Check] = {
    "answer": Check(
        about="Reject rows whose answer does not match the reference. A row that has no reference is kept.",
        run="synthgen.curation.answers:answer",
        columns=("answer", "reference", "strategy", "completion.text"),
    ),
    "length": Check(
        about="Reject completions with too few or too many words, or characters in a script without spaces.",
        run="synthgen.curation.text:length",
        columns=("completion.plain",),
        section=Length,
        teaches="nothing",
    ),
    "repetition": Check(
        about="Reject completions that say the same again and again.",
        run="synthgen.curation.repetition:repetition",
        columns=("completion.plain", "completion.text"),
        section=Repetition,
        shorthand="max_share",
        teaches="nothing",
    ),
    "refusal": Check(
        about="Reject completions that decline to answer, in English, German, Spanish, French and Chinese.",
        run="synthgen.curation.refusals:refusal",
        columns=("completion.text", "prompt"),
    ),
    "truncated": Check(
        about="Reject completions that are not complete: cut off at max_new_tokens, filtered or refused.",
        run="synthgen.curation.text:truncated",
        columns=("finish_reason", "completion.text"),
        section=Truncated,
    ),
    "echo": Check(
        about="Reject completions that repeat the prompt instead of answering it.",
        run="synthgen.curation.echo:echo",
        columns=("completion.plain", "prompt"),
        section=Echo,
        shorthand="max_share",
        teaches="nothing",
        on=False,
    ),
    "broken_text": Check(
        about="Reject completions with wrongly decoded letters, control characters or leftover markup.",
        run="synthgen.curation.broken:broken_text",
        columns=("completion.text",),
        section=BrokenText,
        teaches="nothing",
        on=False,
    ),
    "rationale": Check(
        about="Reject rows whose rationale ends with another answer, or speaks of a hint or of a given answer.",
        run="synthgen.curation.rationales:rationale",
        columns=("rationale", "answer", "strategy", "completion", "completion.text", "prompt.text"),
        teaches="nothing",
        on=False,
    ),
    "arithmetic": Check(
        about="Score the share of right equations in the completion and its rationale.",
        run="synthgen.curation.rationales:arithmetic",
        columns=("completion.text", "rationale"),
        section=Arithmetic,
        shorthand="min_share",
        on=False,
    ),
    "format": Check(
        about="Reject completions that are not JSON, or do not match a JSON Schema.",
        run="synthgen.curation.formats:format",
        columns=("completion.text",),
        section=Format,
        on=False,
    ),
    "web_text": Check(
        about="Reject plain texts that break the rules of Gopher, C4 or FineWeb for web pages.",
        run="synthgen.curation.web_text:web_text",
        columns=("completion.text", "prompt"),
        section=WebText,
        shorthand="preset",
        only_text=True,
        teaches="nothing",
        on=False,
    ),
    "language": Check(
        about="Reject completions in another language than the allowed ones.",
        run="synthgen.curation.languages:language",
        columns=("completion.text",),
        section=Languages,
        shorthand="allowed",
        on=False,
        needs="eldc",
    ),
    "pattern": Check(
        about="Reject completions that match, or do not match, your regular expressions.",
        run="synthgen.curation.patterns:pattern",
        columns=("completion.text",),
        section=Pattern,
        on=False,
    ),
    "function": Check(
        about="Reject the rows for which your own Python function returns a reason. This runs your code.",
        run="synthgen.curation.function:function",
        columns=(),
        more_columns="columns",
        section=Function,
        shorthand="function",
        on=False,
        fingerprint="synthgen.curation.function:fingerprint",
    ),
    "confidence": Check(
        about="Score how sure the teacher was of its own tokens, and reject rows beyond the bounds that are set.",
        run="synthgen.curation.confidence:confidence",
        columns=("stored.confidence",),
        section=Confidence,
        on=False,
    ),
    "decontamination": Check(
        about="Reject rows of the split `train` that hold a question or a long answer of an evaluation set.",
        run="synthgen.curation.decontamination:decontamination",
        reads="synthgen.curation.decontamination:files",
        summary="synthgen.curation.decontamination:summary",
        columns=("prompt", "completion", "split"),
        section=Decontamination,
        teaches="nothing",
        on=False,
    ),
    "personal_data": Check(
        about="Reject rows with personal data or secrets, such as e-mail addresses and keys.",
        run="synthgen.curation.privacy:personal_data",
        columns=_TEXTS,
        section=PersonalData,
        shorthand="entities",
        teaches="nothing",
        on=False,
    ),
}

SWEEPS: dict[str, Sweep] = {
    "split_copies": Sweep(
        about="Reject rows of the split `train` that are the same as a row of `validation` or `test`.",
        signature="synthgen.curation.held_out:signature",
        candidates="synthgen.curation.held_out:candidates",
        resolve="synthgen.curation.held_out:resolve",
        columns=("prompt.whole", "completion.whole", "split"),
        section=SplitCopies,
        reason="same as {matched_id}, which is held out",
        teaches="nothing",
    ),
    "duplicates": Sweep(
        about="Reject later copies of the same prompt with the same completion. White space is ignored.",
        signature="synthgen.curation.duplicates:signature",
        candidates="synthgen.curation.duplicates:candidates",
        resolve="synthgen.curation.duplicates:resolve",
        columns=("prompt.whole", "completion.whole"),
        section=Duplicates,
        reason="same as {matched_id}",
    ),
    "split_twins": Sweep(
        about="Reject rows of the split `train` that are nearly the same as a row of `validation` or `test`.",
        signature="synthgen.curation.near.held_out:signature",
        decide="synthgen.curation.near.held_out:decide",
        columns=("prompt.said", "completion.said", "split"),
        section=SplitTwins,
        shorthand="threshold",
        reason="similarity {score:.2f} to the held-out row {matched_id}, and the limit is {threshold:g}",
        teaches="nothing",
        on=False,
        needs="numba",
    ),
    "near_duplicates": Sweep(
        about="Reject rows that are nearly the same as an earlier kept row; `validation` and `test` come first.",
        signature="synthgen.curation.near:signature",
        decide="synthgen.curation.near:decide",
        columns=("prompt.said", "completion.said", "split"),
        section=NearDuplicates,
        shorthand="threshold",
        reason="similarity {score:.2f} to {matched_id}, at least {threshold:g}",
        on=False,
        needs="numba",
    ),
}

SELECTIONS: dict[str, Sweep] = {
    "select": Sweep(
        about="Keep a number of rows of the split `train`: those with the best score, spread out, or drawn.",
        signature="synthgen.curation.selection:signature",
        decide="synthgen.curation.selection:decide",
        columns=("id", "group_id", "split"),
        more_columns="columns",
        section=Select,
        teaches="nothing",
        on=False,
        fingerprint="synthgen.curation.selection:fingerprint",
    ),
}
"""Selections are sweeps that run after all other sweeps, on the rows that are left. The function `decide` of a
selection returns the rows to reject. Training does not use the rows that a selection rejects, so that the student
learns from the selected rows alone.
"""
