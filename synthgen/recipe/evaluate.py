"""Section `evaluate`: what is measured on the held-out split."""

from __future__ import annotations

from synthgen.tables.section import Count, Section


class EvaluateSection(Section):
    """How the student is measured on the test split."""

    max_rows: Count | None = None
    """Rows on which student and teacher are compared token by token, from the first; all when left out."""
    max_prompts: Count | None = None
    """Prompts that the student answers, for accuracy and speed; all when left out."""
    max_new_tokens: Count = 64
    """Longest answer in tokens."""
    seed: int = 0
    """Seed of the bootstrap."""
