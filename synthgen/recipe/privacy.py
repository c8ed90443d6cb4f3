"""Section `audit.privacy`: what the audit of privacy searches in a corpus, and what it asks a student."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from synthgen.tables.curation_settings import Entity
from synthgen.tables.section import Count, ModelName, PathName, Section

Denied = Literal["personal_data", "private_texts"]
"""A finding of the audit of privacy that a recipe may turn into a refusal."""
Number = Annotated[int, Field(ge=0)]


class PrivacySection(Section):
    """The audit of privacy: which personal data and which private texts stand in the completions of a corpus, and what
    a student reveals about the rows that it learned from. The audit runs only if the recipe has this section;
    `privacy: {}` uses the values below. docs/privacy.md explains each test.

    A test that finds something gives the status CONTESTED, with which the audit passes. `deny` makes the audit fail.
    """

    entities: tuple[Entity, ...] = get_args(Entity)
    """Kinds of personal data and secrets that are searched in completions, as in `curate.checks.personal_data`. An
    empty list means that none are searched.
    """
    private: tuple[PathName, ...] = ()
    """Files or folders with rows whose texts must not stand in completions, in addition to the `seeds` with
    `private: true`.
    """
    min_words: Count = 50
    """Minimum number of consecutive words that a completion has in common with a private text, if the span counts as
    copied.
    """
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """For a shorter private text: the share of its words that must stand in a completion without a gap."""
    shortest: Count = 8
    """Private texts with fewer words are not searched, because so few words also occur by chance."""
    deny: tuple[Denied, ...] = ()
    """Findings with which the audit fails. `personal_data`: a completion has personal data from another row or from a
    private seed. `private_texts`: a completion has a span of a private text.
    """
    teacher_canaries: Number = 0
    """Number of canary seeds: copies of seeds with a made-up secret in their text. The teachers are asked about them
    during the audit, which may cost money, and the audit counts the secrets in their texts. The answers are not kept.
    """
    references: Count = 255
    """Number of codes of the same form that nobody learned, to which each canary of `train.canaries` is compared."""
    extraction_rows: Number = 300
    """Number of training rows, and of held-out rows, whose beginning the student continues. 0 leaves out this test.
    With fewer than 268 rows on each side, the result is never "absent".
    """
    prefix_tokens: Count = 32
    """Number of tokens of the beginning, and of the continuation that is compared."""
    membership_rows: Number = 500
    """Number of training rows, and of held-out rows, whose likelihoods are compared. 0 leaves out this test."""
    teacher: ModelName | None = None
    """The student's teacher, for comparison. When left out, the recipe's teacher is used if it gives texts a
    likelihood.
    """
    untrained: ModelName | None = None
    """The student before training, as the null control of membership. When left out, it is built again from the
    settings of the training.
    """
    seed: int = 0
    """Seed that draws the rows."""
