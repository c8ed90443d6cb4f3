"""An entry of `seeds`: where seeds come from."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from synthgen.tables.section import Count, ModelName, PathName, Rule, Section


class MadeBy(Section):
    """The model that wrote seeds or rows. The audit judges this model as a separate source, in addition to the license
    of the seeds.
    """

    model: str
    """Name of the model, as precisely as it is known, such as gpt-4o-2024-08-06."""
    license: str = "unknown"
    """Terms under which the model was used: an SPDX id, or a key of data/licenses.yaml."""
    account: Literal["ours", "third_party"] | None = None
    """Whose account asked the model. The terms of a provider bind the holder of the account."""
    date: datetime.date | None = None
    """Day on which the model was asked, in quotes, such as "2025-01-31". The day says which version of the terms
    applied.
    """
    tools: tuple[str, ...] = ()
    """Tools that the model used, such as web_search, because some terms restrict what was made with them."""


class SeedSource(Section):
    """Where seeds come from, and under which license. Exactly one of `path` and `dataset` is given."""

    path: PathName | None = None
    """JSONL, CSV, TSV or Parquet file, or a folder of such files. Files of text may be compressed (`.gz`, `.bz2`,
    `.xz`, `.zst`). Names that begin with a dot are left out. Any other file that cannot be read is an error."""
    dataset: ModelName | None = None
    """Hub id or folder of a Hugging Face data set. The rows of the data set are streamed."""
    config: str | None = None
    """Configuration of the data set, if it has several."""
    dataset_split: str = "train"
    """Split of the data set to read."""
    revision: str | None = None
    """Commit, tag or branch of the data set; the newest when left out."""
    license: str
    """License of the seeds: an SPDX id, or a key of data/licenses.yaml; the recipe's own `license` when left out.
    `unknown` is allowed; the audit status is then UNKNOWN at best."""
    source: str
    """Name or address under which the seeds were published."""
    private: bool = False
    """Whether the seeds are private. If they are, the audit of privacy (`audit.privacy`) searches for copies of their
    texts in completions.
    """
    made_by: MadeBy | None = None
    """The model that wrote the seeds, if a model wrote them."""
    id: str | None = None
    """Column with a stable id of the seed. Without this key, the id is a hash of the row. The second of two identical
    rows gets the suffix `#2`, and so on."""
    group: str | None = None
    """Column that defines the seed groups: rows with equal values are in the same split. Without this key or a value,
    questions that differ only in names, numbers, spacing and punctuation form a group.
    """
    reference: str | None = None
    """Column with the correct answer, or with a list of accepted answers. Null, NaN and empty text do not count as
    answers.
    """
    fields: dict[str, str] = {}
    """Variable of a template → column. A variable needs an entry only if its column has another name. For a data set to
    train on: column of its format → column, as in `{prompt: question, completion: response}`."""
    limit: Count | None = None
    """Read only this many rows, from the beginning."""
    on_bad_lines: Literal["error", "skip"] = "error"
    """Whether a line that cannot be read stops the command with an error, or is left out."""

    @model_validator(mode="before")
    @classmethod
    def _without_account(cls, values: object) -> object:
        """Leave out the key `account` of earlier versions if it is null, as in the recipes of earlier runs."""
        if isinstance(values, dict) and values.get("account", "") is None:
            return {key: value for key, value in values.items() if key != "account"}
        return values

    def rules(self) -> Iterator[Rule]:
        if (self.path is None) == (self.dataset is None):
            yield "path" if self.path else "dataset", "give exactly one of 'path' and 'dataset'"
