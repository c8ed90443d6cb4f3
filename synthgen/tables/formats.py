"""Formats: DATASET_FORMATS for rows of other data sets, and MODEL_FORMATS for students written by `distill export`.

An entry holds every fact of a format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthgen.tables.reference import Reference


@dataclass(frozen=True)
class DatasetFormat:
    """One format of rows.

    `about` is one line for people. `recognize(row)` returns whether the first row of a data set has this format; a row
    maps columns to JSON values. `read(row)` returns a list of `synthgen.datasets.Turns`, one for each record that the
    row makes. It raises ValueError, which says what is missing, for a row that it cannot read. `columns` are the
    columns that it reads; all others are kept as the user's own.
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
"""Formats are tried in this order. The first one that recognizes the first row is used."""


@dataclass(frozen=True)
class ModelFormat:
    """One format of models.

    `title` is its name for people. `library_name` is used in the header of the card. `writes` gives, for each kind of
    student by its name in KINDS, the function that writes it. The function takes a `distill.exporting.job.Job` and
    returns an `Export`, which holds the comparison, the measures and how the files are run. `packages` must be
    installed; `extra` installs them. `files` are regular expressions of the names of the files that it writes;
    `--fresh` deletes no others. `copies_config` says whether configuration, tokenizer and chat template are written
    into the folder as separate files.
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
