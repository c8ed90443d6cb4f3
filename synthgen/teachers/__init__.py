"""Teachers: who is asked. One protocol; capabilities are probed, never assumed.

teacher = open_teacher(recipe.teacher)
replies = teacher.sample(requests, spec)      # text, token ids, and the distribution `spec` asks for
probs = teacher.classify(requests)            # probabilities of each request's labels
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from synthgen.errors import missing_extra
from synthgen.records import Request

if TYPE_CHECKING:
    from synthgen.logits import Target
    from synthgen.recipe import GenerateSection, TeacherSection, VllmTeacher


@dataclass(frozen=True)
class Reply:
    """What came back for one request: an answer, or `failure` = (kind, reason) and nothing else.

    `label_probs` sums to 1 over the request's labels (strategy 'classify' only).
    """

    text: str = ""
    prompt_token_ids: Sequence[int] = ()
    token_ids: Sequence[int] = ()
    finish_reason: str = ""
    target: Target | None = None
    label_probs: Sequence[float] | None = None
    failure: tuple[str, str] | None = None


class Teacher(Protocol):
    """What every engine offers."""

    @property
    def identity(self) -> dict[str, Any]:
        """engine, model, exact revision, dtype, tokenizer hash, vocabulary size, terms: what a manifest stores."""

    def sample(
        self, requests: Sequence[Request], spec: dict[str, Any] | None, tick: Callable[[int], None] = ...
    ) -> list[Reply]:
        """One reply a request, in order. `spec` is `LogitsSection.spec()` or None; `tick(new_tokens)` is progress."""

    def classify(self, requests: Sequence[Request]) -> list[Reply]:
        """Probabilities of each request's `labels`."""

    def close(self) -> None:
        """Let go of the model and its memory."""


def open_teacher(section: TeacherSection | VllmTeacher, generate: GenerateSection | None = None) -> Teacher:
    """Load the teacher a recipe names; `generate` says which form answers must have, if any.

    Raises TeacherError, or UserError naming a missing extra.
    """
    if section.engine == "vllm":
        try:
            from synthgen.teachers.vllm import VllmModel
        except ModuleNotFoundError as error:
            raise missing_extra(str(error.name).partition(".")[0], "vllm") from None
        return VllmModel.open(section, generate)
    try:
        from synthgen.teachers.transformers import LocalModel
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "train") from None
    return LocalModel.open(section)
