"""Functions that time a student on texts. The functions run in a separate process (`distill.cost.measure`).

Imports are inside the functions, so that a process loads only the modules that its model needs. Other modules would add
to the measured memory.
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
    """Load the MLP on hashed n-grams from the folder `arguments["folder"]`, and time it on `arguments["texts"]`."""
    from distill.students.classifier import Classifier

    return _labels(Classifier.load(arguments["folder"]), arguments)


def time_encoder(arguments: dict[str, Any]) -> Measured:
    """Load the encoder classifier from the folder `arguments["folder"]`, and time it on `arguments["texts"]`."""
    from distill.students.encoder import Encoder

    return _labels(Encoder.load(arguments["folder"]), arguments)


def time_vectors(arguments: dict[str, Any]) -> Measured:
    """Open the embedding model of the section `arguments["teacher"]`, and time it on `arguments["texts"]`."""
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
