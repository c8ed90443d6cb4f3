"""Section `steps`: settings for strategies that send more than one request about a seed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from synthgen.tables.section import Count, Section


class StepsSection(Section):
    """Settings for strategies that send more than one request about a seed. The table of strategies in docs/recipe.md
    says which strategy reads which key.
    """

    candidates: Count = 4
    """Maximum number of completions for a seed (vote, best_of_n, preference) or of questions about a document
    (extract).
    """
    rounds: Count = 2
    """Number of times that a question is rewritten (evolve), or number of the user's turns (conversation)."""
    shown: Count = 4
    """Number of seeds that self_instruct shows as examples."""
    choose: Literal["judge", "probability", "likelihood", "reference"] = "judge"
    """The reward by which best_of_n and preference rank completions. judge: the score that the judge writes.
    probability: the judge's probability of "Yes". likelihood: the mean log-probability of the completion's tokens under
    the judge. reference: whether the answer matches the reference."""
    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Temperature of rewriting steps. Judges answer greedily."""
    max_new_tokens: Count = 96
    """Maximum number of tokens of the reply in a rewriting or judging step."""
    judge: str | None = None
    """Name of the teacher that judges. When left out, the first of `teachers` judges."""
    rewriter: str | None = None
    """Name of the teacher that writes new questions. When left out, the teacher that answers also writes the new
    questions.
    """
