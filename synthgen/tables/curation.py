"""EDITS, CHECKS and SWEEPS: the rules that curation applies to the rows of a corpus.

The order is fixed. First, edits change rows. Then checks judge each row, and sweeps compare the rows that passed the
checks. At the end, rows of one group are kept or rejected together. An entry holds all facts about its rule: the
functions, the columns that they read, the key and the settings in the recipe's `curate` section, and how training may
use a rejected row. The functions are described in `synthgen.curation`, which calls them.

The key of a rule in the recipe is its name in the table. Its value is `false` or null (off), `true` (on, with the
default settings) or, where the entry has a `section`, a mapping of settings. Names are unique over the three tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.reference import Reference
from synthgen.tables.section import Count, Rule, Section, Share

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
    """The package that the rule needs, one of the extra `curate`. Without it, commands refuse a recipe that enables the
    rule.
    """
    fingerprint: Reference | None = None
    """`fingerprint(section)` returns text that changes when what the settings name was changed, such as a user's code.
    It raises RecipeError when the rule cannot run. Commands call it before they spend time or money.
    """


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
    reason: str
    """The reason that a rejected row gets: text with the fields {matched_id}, {score} and {threshold}."""
    teaches: Teaches = "distribution"


class Length(Section):
    """Bounds on the number of words of a completion. If it is mostly in a script without spaces (Chinese, Japanese,
    Thai, Lao, Khmer, Burmese, Tibetan), its letters and digits are counted instead of words.
    """

    min_words: int | None = 1
    """Minimum number of words in a completion; null for no bound."""
    max_words: int | None = 1000
    """Maximum number of words in a completion; null for no bound."""
    min_characters: int | None = 1
    """Minimum number of letters and digits in a completion of a script without spaces; null for no bound."""
    max_characters: int | None = 3000
    """Maximum number of letters and digits in a completion of a script without spaces; null for no bound."""


class Repetition(Section):
    """How much a completion may repeat itself."""

    max_share: Share = 0.3
    """Maximum share of the 4-word sequences that occurred before in the same completion. In a script without spaces, a
    sequence has 8 characters (Chinese and Japanese) or 16. Rows of tables, items of lists, code and refrains do not
    count, unless whole lines repeat again and again.
    """


class Truncated(Section):
    """Which completions are not complete."""

    from_text: bool = False
    """Whether the text is judged in rows that have no finish reason, such as those of data sets. A completion is then
    rejected if a block of code is not closed, or if prose ends in the middle of a sentence.
    """


class Echo(Section):
    """How much of a completion may be a copy of the prompt."""

    max_share: Share = 0.8
    """Maximum share of the completion that the repeated last message of the prompt makes up."""


class BrokenText(Section):
    """What is broken in a text."""

    skip: tuple[Literal["mojibake", "replacement_character", "control_character", "html"], ...] = ()
    """Rules that are left out. `mojibake` finds "Ã©" instead of "é", `replacement_character` finds U+FFFD,
    `control_character` finds characters that cannot be shown, and `html` finds entities and tags that are not closed.
    """


LANGUAGES = [
    "am",
    "ar",
    "az",
    "be",
    "bg",
    "bn",
    "ca",
    "cs",
    "da",
    "de",
    "el",
    "en",
    "es",
    "et",
    "eu",
    "fa",
    "fi",
    "fr",
    "gu",
    "he",
    "hi",
    "hr",
    "hu",
    "hy",
    "is",
    "it",
    "ja",
    "ka",
    "kn",
    "ko",
    "ku",
    "lo",
    "lt",
    "lv",
    "ml",
    "mr",
    "ms",
    "nl",
    "no",
    "or",
    "pa",
    "pl",
    "pt",
    "ro",
    "ru",
    "sk",
    "sl",
    "sq",
    "sr",
    "sv",
    "ta",
    "te",
    "th",
    "tl",
    "tr",
    "uk",
    "ur",
    "vi",
    "yo",
    "zh",
]
"""The codes of the languages that eldc detects (ISO 639-1)."""


class Languages(Section):
    """Which languages are allowed."""

    allowed: Annotated[tuple[str, ...], Field(min_length=1)]
    """The codes of the languages that are kept (ISO 639-1), such as `en` or `de`. Completions whose language cannot be
    known are kept too: short ones, code, and those of which the detector is not sure.
    """

    def rules(self) -> Iterator[Rule]:
        """Every code must be one of a language that can be detected."""
        for code in self.allowed:
            if code not in LANGUAGES:
                yield "allowed", f"'{code}' is no language that can be detected; these are: {', '.join(LANGUAGES)}"


class Pattern(Section):
    """Regular expressions in the syntax of RE2, without look-around and backreferences. `(?i)` at the beginning ignores
    case, `(?s)` lets a dot match the end of a line, and `(?m)` lets `^` and `$` match at each line.
    """

    reject: tuple[str, ...] = ()
    """A completion that one of these expressions matches anywhere is rejected."""
    require: tuple[str, ...] = ()
    """A completion that one of these expressions does not match anywhere is rejected."""

    def rules(self) -> Iterator[Rule]:
        """There must be an expression, and Arrow must be able to read each one."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not (self.reject or self.require):
            yield "reject", "there is no expression; give `reject` or `require`"
        for key, expressions in (("reject", self.reject), ("require", self.require)):
            for expression in expressions:
                try:
                    pc.match_substring_regex(pa.array([""]), pattern=expression)
                except pa.ArrowInvalid as error:
                    why = str(error).removeprefix("Invalid regular expression: ")
                    yield key, f"'{expression}' is no regular expression of RE2: {why}"
                if not expression:
                    yield key, "an expression is empty, which matches every text"


class Function(Section):
    """A Python function of yours. The command runs its code. It gets a `pyarrow.RecordBatch` with the named columns and
    returns a list with None (keep) or a reason (reject) for each row. What it says of a row must depend on this row
    alone, because the batches may differ from run to run.
    """

    function: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """The function, as `module:function`. The module is looked for where Python finds modules and in the current
    folder.
    """
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("completion.text",)
    """The columns that the function gets: columns of the rows, `completion.text` or `prompt.text`."""


class Duplicates(Section):
    """Which rows are the same."""

    ignore_case: bool = False
    """Whether rows that differ only in upper and lower case are the same."""


class NearDuplicates(Section):
    """Which rows are nearly the same."""

    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    """Minimum similarity of two rows of which one is rejected. It is the Jaccard similarity of their sets of word
    sequences: the number of common sequences, divided by the number of sequences that at least one of them has.
    """
    words: Count = 5
    """Number of words of a sequence. In scripts without spaces, each character counts as a word."""
    of: Literal["row", "prompt", "completion"] = "row"
    """Which text is compared. `row` is the prompt followed by the completion."""
    exact: bool = False
    """Whether every pair of similar rows is found. Otherwise, of the pairs at the threshold, one in a million may be
    missed. It takes about twice as long.
    """


EDITS: dict[str, Edit] = {
    "next_turn": Edit(
        about="Cut a completion where the teacher goes on with an invented question, such as a line with 'Q:'.",
        run="synthgen.curation.edits:next_turn",
        columns=("completion.text",),
        changes=("completion", "answer", "rationale"),
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
        about="Reject completions with wrongly decoded letters, control characters or leftover HTML.",
        run="synthgen.curation.broken:broken_text",
        columns=("completion.text",),
        section=BrokenText,
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
}

SWEEPS: dict[str, Sweep] = {
    "duplicates": Sweep(
        about="Reject later copies of the same prompt with the same completion. White space is ignored.",
        signature="synthgen.curation.duplicates:signature",
        candidates="synthgen.curation.duplicates:candidates",
        resolve="synthgen.curation.duplicates:resolve",
        columns=("prompt.whole", "completion.whole"),
        section=Duplicates,
        reason="same as {matched_id}",
    ),
    "near_duplicates": Sweep(
        about="Reject rows that are nearly the same as an earlier kept row.",
        signature="synthgen.curation.near:signature",
        decide="synthgen.curation.near:decide",
        columns=("prompt.said", "completion.said"),
        section=NearDuplicates,
        shorthand="threshold",
        reason="similarity {score:.2f} to {matched_id}, at least {threshold:g}",
        on=False,
        needs="numba",
    ),
}
