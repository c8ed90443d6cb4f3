"""Section `audit.privacy`: the tests of a corpus and of its student for privacy."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from synthgen.tables.curation_settings import Entity
from synthgen.tables.section import Count, ModelName, PathName, Section

Denied = Literal["personal_data", "private_texts"]
"""A finding of the audit of privacy with which the audit fails, if the recipe's key `deny` names it."""
Number = Annotated[int, Field(ge=0)]


class PrivacySection(Section):
    """The audit of privacy. It measures which personal data and which private texts the completions of a corpus hold,
    and what a student reveals about the rows that it learned from. The audit runs only if the recipe has this section;
    `privacy: {}` uses the values below. docs/privacy.md explains each test.

    If a test finds something, the status is CONTESTED, and the audit still passes. With the key `deny`, the audit fails
    instead.
    """

    entities: tuple[Entity, ...] = get_args(Entity)
    """Kinds of personal data and secrets that the audit searches for in completions, as `curate.personal_data` does.
    With an empty list, the audit searches for none.
    """
    private: tuple[PathName, ...] = ()
    """Files or folders with private texts that completions must not copy, in addition to the `seeds` with
    `private: true`.
    """
    min_words: Count = 50
    """A completion copies a private text if it has at least this number of consecutive words in common with the text.
    """
    min_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """A completion copies a private text that is too short for `min_words` if it has at least this share of the text's
    words as consecutive words.
    """
    shortest: Count = 8
    """Private texts with fewer words are not searched, because so few words also occur by chance."""
    deny: tuple[Denied, ...] = ()
    """Findings with which the audit fails. `personal_data`: a completion has personal data from the prompt of another
    row, from another seed or from a private text. `private_texts`: a completion copies a private text, or rows that
    were made from a private source are to be shared.
    """
    teacher_canaries: Number = 0
    """Number of canary seeds, which are copies of seeds with a made-up secret in their text. During the audit, the
    teachers are asked about the canary seeds, which may cost money. The audit counts the secrets in the answers, and
    deletes the answers.
    """
    references: Count = 255
    """Number of references for each canary of `train.canaries`. References are codes of the same form that no model has
    learned.
    """
    extraction_rows: Number = 300
    """For the test of extraction: the maximum number of training rows, and of held-out rows, whose beginning the
    student continues. With fewer than 268 rows on each side, the result is never "absent". 0 leaves out this test.
    """
    prefix_tokens: Count = 32
    """For the test of extraction: the number of tokens that the student gets from each completion, and the number of
    tokens that it then writes.
    """
    membership_rows: Number = 500
    """For the test of membership: the maximum number of training rows, and of held-out rows, whose likelihoods are
    compared. 0 leaves out this test.
    """
    teacher: ModelName | None = None
    """Folder or name of the teacher with which the student is compared. When left out, the recipe's teacher is used if
    likelihoods can be computed with it.
    """
    untrained: ModelName | None = None
    """Folder or name of the model that the student was before training. The student is compared with this model. When
    left out, the model is built again from the settings of the training.
    """
    seed: int = 0
    """Random seed that chooses the rows."""
