"""Section `logits`: which part of the teacher's distribution is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synthgen.tables.section import Count, Section


class LogitsSection(Section):
    """Which part of the teacher's distribution is stored for each token of each row. null stores none."""

    kind: Literal["sampled", "topk"] = "sampled"
    """sampled: counts of draws from the whole distribution. topk: the most probable tokens with their
    log-probabilities, and the normalizer.
    """
    draws: Annotated[int, Field(ge=1, le=65535)] = 50
    """Number of draws at each token, for `kind: sampled`."""
    k: Count = 64
    """Number of most probable tokens, for `kind: topk`."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the stored distribution; the student's divergence is taken at the same temperature."""
    score_by: tuple[str, ...] = ()
    """Names of additional teachers that score the same tokens. Each has its own folder of distributions."""

    def spec(self) -> dict[str, Any]:
        """The values for the shards' metadata: the kind, its size and the temperature."""
        size = {"draws": self.draws} if self.kind == "sampled" else {"k": self.k}
        return {"kind": self.kind, **size, "temperature": self.temperature}
