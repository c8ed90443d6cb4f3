"""Section `train.across`: a teacher with another tokenizer."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from synthgen.tables.section import ModelName, PathName, Section


class Across(Section):
    """Learn from the distributions of a teacher with another tokenizer. `{}` stands for the distributions that are
    stored with this corpus. The stored distributions must be top-k at temperature 1."""

    run: PathName | None = None
    """Folder of another run whose teacher scored the texts of this corpus: its strategy is `score`, and its seeds are
    this corpus (`id: id`). When left out, the distributions that were stored with this corpus are used.
    """
    tokenizer: ModelName | None = None
    """Hub id or folder of that teacher's tokenizer; when left out, the tokenizer of the teacher's model."""
    uld_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the distance between sorted probabilities. Where the two tokenizers split the text at different places,
    this distance and cross-entropy are the loss."""
