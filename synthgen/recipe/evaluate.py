"""Section `evaluate`: what is measured on the held-out split."""

from __future__ import annotations

from synthgen.tables.section import Count, Section


class EvaluateSection(Section):
    """How the student is measured on the test split."""

    max_rows: Count | None = None
    """Number of rows on which the models are compared token by token: the first rows, or all when left out. `max_rows`
    does not limit `max_prompts`.
    """
    max_prompts: Count | None = None
    """Number of held-out prompts that the student answers, to measure accuracy and speed; all when left out."""
    max_new_tokens: Count = 64
    """Maximum number of tokens of an answer."""
    judge: str | None = None
    """Name of a teacher that compares the student's answers with the teacher's recorded answers. The judge sees every
    pair twice, with the positions swapped, and the judge's cost counts toward `generate.budget`. When left out, no
    judge is asked.
    """
    seed: int = 0
    """Random seed of the bootstrap, from which the intervals are computed."""
