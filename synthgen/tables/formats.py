"""MODEL_FORMATS: what `distill export` writes a student as. An entry owns every fact of a format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from synthgen.tables.reference import Reference


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
