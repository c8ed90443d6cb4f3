"""Formats: DATASET_FORMATS, of rows made elsewhere, and MODEL_FORMATS, that `distill export` writes a student in.

An entry owns every fact of a format.
"""

from __future__ import annotations

from collections.abc import Mapping
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


@dataclass(frozen=True)
class ModelFormat:
    """One format of models.

    `title`: its name for people. `library_name`: for the header of the card. `writes`: for each kind of student, by its
    name in KINDS, the function that writes it; takes a `distill.exporting.job.Job`, returns an `Export`: what was
    compared and measured, and how the files are run. `packages`: what must be installed; `extra` brings them.
    `files`: regular expressions of the names of the files that it writes; `--fresh` deletes no others.
    `copies_config`: whether configuration, tokenizer and chat template go into the folder as files of their own.
    """

    title: str
    library_name: str
    writes: Mapping[str, Reference]
    files: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    extra: str = "export"
    copies_config: bool = False


MODEL_FORMATS: dict[str, ModelFormat] = {
    "onnx": ModelFormat(
        title="ONNX",
        library_name="onnx",
        writes={
            "decoder": "distill.exporting.decoder:write_onnx",
            "encoder": "distill.exporting.encoder:write_onnx",
            "classifier": "distill.exporting.classifier:write_onnx",
        },
        files=(r"model(_int8)?\.onnx(\.data)?", r"predict\.(py|json)"),
        packages=("onnx", "onnx_ir", "onnxscript", "onnxruntime"),
        copies_config=True,
    ),
    "gguf": ModelFormat(
        title="GGUF",
        library_name="gguf",
        writes={
            "decoder": "distill.exporting.decoder:write_gguf",
            "encoder": "distill.exporting.encoder:write_gguf",
        },
        files=(r"model-(f16|q8_0)\.gguf",),
        packages=("gguf",),
    ),
}
