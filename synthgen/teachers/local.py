"""Opens a `transformers` model as a teacher. The model's config determines whether it is opened as a language model, a
classifier or an embedding model.
"""

from __future__ import annotations

from synthgen.lm.load import is_classifier, is_embedder
from synthgen.tables.engines import TeacherSection
from synthgen.teachers.base import Teacher, TeacherOptions
from synthgen.teachers.embedding import EmbeddingModel
from synthgen.teachers.encoder import EncoderModel
from synthgen.teachers.transformers import LocalModel


def open_local(section: TeacherSection, options: TeacherOptions) -> Teacher:
    """Load the model that the recipe names. Raises TeacherError."""
    if is_embedder(section):
        return EmbeddingModel.open(section)
    return EncoderModel.open(section) if is_classifier(section) else LocalModel.open(section, options)
