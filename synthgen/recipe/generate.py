"""Section `generate`: how the teacher is asked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, field_validator

from synthgen.tables.json_schemas import JsonSchema
from synthgen.tables.section import Count, Rule, Section

_AROUND = " \t\"'“”‘’«»„*_`()[]{}"  # characters around a label that do not count when labels are compared
_ENDS = ".!。！"  # characters after a label that do not count; before a label they do: ".5" is not "5"


def plain_label(text: str) -> str:
    """A label without case, quotes, emphasis and final period. Labels with the same form count as the same label."""
    words = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return words.rstrip(_AROUND + _ENDS).lstrip(_AROUND) or words


class Budget(Section):
    """The most that a run may spend in total, however often it is resumed."""

    usd: Annotated[float, Field(ge=1e-6, allow_inf_nan=False)] | None = None
    """US dollars. The prices of every paid teacher must be known."""
    tokens: Count | None = None
    """Number of tokens of prompts and completions together."""


class GenerateSection(Section):
    """How the teacher is asked for completions."""

    num_generations: Count = 1
    """Number of completions for each seed."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Temperature of sampling; 0 takes the most probable token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Sample only from the smallest set of most probable tokens whose probabilities add up to this share."""
    max_new_tokens: Count = 256
    """Maximum number of tokens of a completion."""
    seed: int = 0
    """Random seed of generation."""
    shard_size: Count = 256
    """Number of jobs in a shard. A job is one seed with one sample. A shard is written whole, so after a kill only
    unfinished shards are repeated.
    """
    answer_marker: str | None = None
    """Text that separates the reasoning from the answer. The answer is the first line after the last occurrence of this
    text.
    """
    labels: tuple[str, ...] = ()
    """Classes of strategy `classify`, exactly as the teacher would write them. The labels must differ in more than case
    and punctuation.
    """
    json_schema: JsonSchema | None = None
    """A JSON Schema that every answer must match, for engines that support it."""
    regex: str | None = None
    """A regular expression that every whole answer must match, for engines that support it."""
    budget: Budget | None = None
    """The most that the run may spend; no limit when left out."""
    max_failures: Annotated[str | int, Field(union_mode="left_to_right")] | None = None
    """Stop when more requests than this have failed: a number, or a share of the number of jobs such as "5%"."""

    @field_validator("max_failures")
    @classmethod
    def _count_or_percent(cls, value: str | int | None) -> str | int | None:
        text = str(0 if value is None else value)
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = -1.0
        if not (0 <= number <= 100 if text.endswith("%") else text.isdecimal()):
            raise ValueError('give a number of requests, or a share of all such as "5%"')
        return value

    @field_validator("labels")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known: dict[str, str] = {}
        for label in value:
            if not label.strip() or not label.isprintable():
                raise ValueError(f"a label is a word or a phrase in one line, not {label!r}")
            plain = plain_label(label)
            if plain in known:
                raise ValueError(f"'{known[plain]}' and '{label}' are one label; only case or punctuation differs")
            known[plain] = label
        return value

    @field_validator("regex")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a pattern: {error}") from None
        return value

    def rules(self) -> Iterator[Rule]:
        if self.json_schema is not None and self.regex is not None:
            yield "regex", "give at most one of 'json_schema' and 'regex'"
