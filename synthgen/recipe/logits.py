"""Section `logits`: which part of the teacher's distribution is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synthgen.tables.section import Count, Section


class LogitsSection(Section):
    """Which part of the teacher's distribution is kept beside each row."""

    kind: Literal["sampled", "topk"] = "sampled"
    draws: Annotated[int, Field(ge=1, le=65535)] = 50
    k: Count = 64
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the distillation loss: draws are taken, or the normalizer stored, at it."""
    score_by: tuple[str, ...] = ()
    """Further teachers that give their distributions on the same tokens, each in a folder of its own."""

    def spec(self) -> dict[str, Any]:
        """What the shards' metadata says: kind, its size, temperature."""
        size = {"draws": self.draws} if self.kind == "sampled" else {"k": self.k}
        return {"kind": self.kind, **size, "temperature": self.temperature}
