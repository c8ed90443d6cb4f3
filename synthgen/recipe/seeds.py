"""Sections `seeds` and `split`: where seeds come from, and which are held out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from synthgen.tables.section import Count, Section, Share


class SeedSource(Section):
    """Where seeds come from and under whose terms. Exactly one of `path` and `dataset`."""

    path: str | None = None
    """JSONL, CSV or Parquet file, or a folder of them."""
    dataset: str | None = None
    """Hugging Face dataset id, or a dataset's folder; streamed."""
    config: str | None = None
    dataset_split: str = "train"
    revision: str | None = None
    license: str
    """SPDX id or a key of data/licenses.yaml; 'unknown' is allowed, and audited as unknown."""
    source: str
    """Name or address of where the seeds were published."""
    id: str | None = None
    """Column with a stable id; without it the id is a hash of the row."""
    group: str | None = None
    """Column whose equal values stay on one side of the split; without it, the text with names and numbers masked."""
    reference: str | None = None
    """Column with the known right answer."""
    fields: dict[str, str] = Field({})
    """Template variable -> column, where they differ."""
    limit: Count | None = None
    on_bad_line: Literal["error", "skip"] = "error"

    @model_validator(mode="after")
    def _one_place(self) -> SeedSource:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("give exactly one of 'path' and 'dataset'")
        return self


class Split(Section):
    """Shares of seed groups held out; a group is never on two sides."""

    validation: Share = 0.0
    test: Share = 0.2
    seed: int = 0

    @model_validator(mode="after")
    def _at_most_all(self) -> Split:
        if self.validation + self.test > 1:
            raise ValueError(f"validation {self.validation} and test {self.test} are more than the whole")
        return self
