"""Section `steps`: the further steps of strategies that ask more than once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.section import Count, Section


class StepsSection(Section):
    """The further steps of strategies that ask more than once. docs/recipe.md says which strategy reads which key."""

    candidates: Count = 4
    """Maximum number of completions for a seed (vote, best_of_n, preference) or of questions about a document
    (extract).
    """
    rounds: Count = 2
    """Number of rewritings, one after another (evolve), or of the user's turns (conversation)."""
    shown: Count = 4
    """Number of seeds that self_instruct shows as examples."""
    choose: Literal["judge", "probability", "likelihood", "reference"] = "judge"
    """What best_of_n and preference rank completions by: the judge's score, the judge's probability of "yes", the mean
    log-probability of the completion's tokens under the judge, or whether the answer matches the reference."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Temperature of rewriting steps. Judges answer greedily."""
    max_new_tokens: Count = 96
    """Longest text of a rewriting or judging step, in tokens."""
    judge: str | None = None
    """Name of the teacher that judges; the first of `teachers` when left out."""
    rewriter: str | None = None
    """Name of the teacher that writes new questions; the one that answers when left out."""
