"""Section `logits`: what is stored of the teacher's distributions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from synthgen.tables.section import Count, Section


class LogitsSection(Section):
    """What is stored of the teacher's distribution at each token of each row. With null, nothing is stored."""

    kind: Literal["sampled", "topk"] = "sampled"
    """sampled: counts of draws from the full distribution. topk: the most probable tokens with their log-probabilities,
    the probability of all other tokens together, and the normalizer.
    """
    draws: Annotated[int, Field(ge=1, le=65535)] = 50
    """Number of draws at each token, for `kind: sampled`."""
    k: Count = 64
    """Number of most probable tokens, for `kind: topk`."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the distribution that the student learns, not the sampling temperature (`generate.temperature`).
    The student's divergence is taken at this temperature. Draws are stored at this temperature. A top-k still stores
    its log-probabilities at temperature 1, together with the normalizer for this temperature.
    """
    score_by: tuple[str, ...] = ()
    """Names of additional teachers that score the same tokens. Each of these teachers has its own folder of
    distributions.
    """

    def spec(self) -> dict[str, Any]:
        """The values that the metadata of each shard of distributions holds: the kind, the number of draws or k, and
        the temperature.
        """
        size = {"draws": self.draws} if self.kind == "sampled" else {"k": self.k}
        return {"kind": self.kind, **size, "temperature": self.temperature}
