"""Section `train.across`: a teacher with another tokenizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synthgen.tables.section import ModelName, PathName, Section


class Across(Section):
    """Learn from a teacher with another tokenizer. Another run has scored the text of these rows with that teacher,
    with strategy `score` and this corpus as its seeds (`id: id`)."""

    run: PathName
    """Folder of that run."""
    tokenizer: ModelName | None = None
    """Tokenizer of that teacher, a hub id or folder; the scoring model's own when left out."""
    uld_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distance between sorted probabilities where the two tokenizers cut the text in different places."""
