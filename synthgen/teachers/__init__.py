"""Engines that answer requests. `open_teacher` loads one in this process, `open_remote` one behind a server."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from synthgen.errors import missing_extra
from synthgen.teachers.base import RemoteTeacher, Teacher

if TYPE_CHECKING:
    from synthgen.recipe import GenerateSection, Recipe
    from synthgen.tables.engines import ApiTeacher, LocalTeacher, ReplayTeacher


def open_teacher(section: LocalTeacher, generate: GenerateSection | None = None) -> Teacher:
    """Load a local teacher; `generate` says which form answers must have, if any.

    Raises TeacherError, or UserError naming a missing extra.
    """
    if section.engine == "vllm":
        if importlib.util.find_spec("vllm") is None:  # said at once: what else it needs takes long to import
            raise missing_extra("vllm", "vllm")
        try:
            from synthgen.teachers.vllm.model import VllmModel
        except ModuleNotFoundError as error:
            raise missing_extra(str(error.name).partition(".")[0], "vllm") from None
        return VllmModel.open(section, generate)
    try:
        from synthgen.lm.load import is_classifier, is_embedder
        from synthgen.teachers.encoder import EncoderModel
        from synthgen.teachers.transformers import LocalModel
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "train") from None
    if is_embedder(section):
        from synthgen.teachers.embedding import EmbeddingModel

        return EmbeddingModel.open(section)
    return EncoderModel.open(section) if is_classifier(section) else LocalModel.open(section, generate)


def open_remote(recipe: Recipe, section: ApiTeacher | ReplayTeacher) -> RemoteTeacher:
    """Open one of the recipe's remote teachers; nothing is sent. Raises TeacherError."""
    if section.engine == "openai":
        from synthgen.teachers.openai import ApiModel

        return ApiModel.open(recipe, section)
    from synthgen.teachers.replay import Replay

    return Replay.open(section)
