"""Sections `generate` and `steps`: how the teacher is asked."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from synthgen.tables.section import Count, Section


class Budget(Section):
    """The most that a run may spend, however often it is resumed."""

    usd: Annotated[float, Field(ge=0)] | None = None
    tokens: Count | None = None


class GenerateSection(Section):
    """How it is asked."""

    samples: Count = 1
    """Completions for each seed."""
    temperature: Annotated[float, Field(ge=0)] = 1.0
    """0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 256
    seed: int = 0
    shard_size: Count = 256
    """Requests a shard; a shard commits whole."""
    answer_marker: str | None = None
    """Text before it is the rationale, the line after it the answer."""
    labels: tuple[str, ...] = ()
    """Strategy 'classify': the classes, as the teacher would say them."""
    json_schema: dict[str, Any] | None = None
    """The answer must be JSON of this schema; for teachers that can be held to one."""
    regex: str | None = None
    """The answer must match this whole pattern; for teachers that can be held to one."""
    budget: Budget | None = None
    max_failures: Annotated[str | int, Field(union_mode="left_to_right")] | None = None
    """Stop when more requests than this have failed: a number, or a share of all: "5%"."""

    @field_validator("max_failures")
    @classmethod
    def _count_or_percent(cls, value: str | int | None) -> str | int | None:
        text = str(0 if value is None else value)
        try:
            number = float(text.removesuffix("%"))
        except ValueError:
            number = -1.0
        share = text.endswith("%")
        if number < 0 or (share and number > 100) or not (share or text.isdigit()):
            raise ValueError('give a number of rows, or a share of all like "5%"')
        return value

    @field_validator("json_schema")
    @classmethod
    def _schema(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None:
            from jsonschema.exceptions import SchemaError
            from jsonschema.validators import validator_for

            try:
                validator_for(value).check_schema(value)
            except SchemaError as error:
                raise ValueError(f"not a JSON schema: {error.message}") from None
        return value

    @field_validator("regex")
    @classmethod
    def _pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"not a pattern: {error}") from None
        return value

    @model_validator(mode="after")
    def _one_form(self) -> GenerateSection:
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("give at most one of 'json_schema' and 'regex'")
        return self


Strategy = Literal[
    "answer",
    "rationale",
    "classify",
    "embed",
    "score",
    "rationalize",
    "vote",
    "best_of_n",
    "preference",
    "consensus",
    "disagreement",
    "self_instruct",
    "evolve",
    "magpie",
    "personas",
    "paraphrase",
    "back_translation",
    "counterfactual",
    "extract",
    "conversation",
]


class StepsSection(Section):
    """What strategies of several steps need besides; prompts/README.md says which strategy uses what."""

    candidates: Count = 4
    """Completions asked for a seed, at most (vote, best_of_n, preference); new questions at most (extract)."""
    rounds: Count = 2
    """Rewritings one after another (evolve); turns of the user (conversation)."""
    shown: Count = 4
    """Seeds that self_instruct shows as examples."""
    choose: Literal["judge", "probability", "likelihood", "reference"] = "judge"
    """What best_of_n and preference go by: the judge's mark; its probability of 'yes'; the mean log-probability of
    the completion's tokens under it; or whether the answer matches the reference."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Of rewriting steps; judges answer greedily."""
    max_new_tokens: Count = 96
    """Of rewriting and judging steps."""
    judge: str | None = None
    """Name of the teacher that judges; the first one unless given."""
    rewriter: str | None = None
    """Name of the teacher that writes new questions; the one that answers unless given."""
