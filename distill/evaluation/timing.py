"""Functions that run in a process of their own (`distill.cost.measure`) and time a student on texts.

What they need is imported where it is used, so that a process loads only what its model needs: its memory is measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.cost import Measured, model_size, rate

if TYPE_CHECKING:
    from distill.students.labels import Predicts

MLP = "distill.evaluation.timing:time_mlp"
ENCODER = "distill.evaluation.timing:time_encoder"
VECTORS = "distill.evaluation.timing:time_vectors"


def time_mlp(arguments: dict[str, Any]) -> Measured:
    """The MLP on hashed n-grams in "folder", on "texts"."""
    from distill.students.classifier import Classifier

    return _labels(Classifier.load(arguments["folder"]), arguments)


def time_encoder(arguments: dict[str, Any]) -> Measured:
    """The encoder classifier in "folder", on "texts"."""
    from distill.students.encoder import Encoder

    return _labels(Encoder.load(arguments["folder"]), arguments)


def time_vectors(arguments: dict[str, Any]) -> Measured:
    """The embedding model of the section "teacher", on "texts"."""
    from synthgen.tables.engines import TeacherSection
    from synthgen.teachers.embedding import EmbeddingModel

    section = TeacherSection.model_validate(arguments["teacher"])
    model = EmbeddingModel.open(section).model
    found = rate(lambda texts: model.vectors(texts, section.batch_size), arguments["texts"], 3)
    return {**found, **model_size(model)}


def _labels(student: Predicts, arguments: dict[str, Any]) -> Measured:
    return {
        **rate(student.predict, arguments["texts"], 5),
        "parameters": student.parameters,
        "weights_bytes": (Path(arguments["folder"]) / "model.safetensors").stat().st_size,
    }
