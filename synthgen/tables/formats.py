"""DATASET_FORMATS: the formats of rows made elsewhere that `synthgen.datasets` reads into the record."""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.tables.reference import Reference


@dataclass(frozen=True)
class DatasetFormat:
    """One format of rows.

    `about`: one line for people. `recognize(row)`: whether a row, the first of a data set, has this format; a row is a
    mapping of its columns to values as JSON has them. `read(row)`: a list of `synthgen.datasets.Turns`, one for each
    record that the row makes; it raises ValueError, saying what is missing, for a row that it cannot read. `columns`:
    the columns that it reads; all others are carried as the user's own.
    """

    about: str
    recognize: Reference
    read: Reference
    columns: tuple[str, ...]


DATASET_FORMATS: dict[str, DatasetFormat] = {
    "prompt-completion": DatasetFormat(
        about="`prompt` and `completion`, each as text or as messages with roles.",
        recognize="synthgen.datasets.turns:has_prompt_and_completion",
        read="synthgen.datasets.turns:prompt_and_completion",
        columns=("prompt", "completion"),
    ),
}
"""In the order in which they are tried; the first one that recognizes the first row is taken."""
