"""Section `train.across`: a teacher with another tokenizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synthgen.tables.section import ModelName, PathName, Section


class Across(Section):
    """Learn from a teacher with another tokenizer. That teacher's distributions along these rows are made by another
    run first: its strategy is `score`, and its seeds are this corpus (`id: id`)."""

    run: PathName
    """Folder of the other run."""
    tokenizer: ModelName | None = None
    """Hub id or folder of that teacher's tokenizer; the tokenizer of the other run's model when left out."""
    uld_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distance between sorted probabilities. This distance is the loss where the two tokenizers split the
    text at different places."""
