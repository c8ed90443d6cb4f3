"""Section `evaluate`: what is measured on the held-out split."""

from __future__ import annotations

from synthgen.tables.section import Count, Section


class EvaluateSection(Section):
    """What is measured on the held-out split."""

    max_rows: Count | None = None
    """Rows for the full-vocabulary comparison."""
    max_prompts: Count | None = None
    """Prompts answered greedily for accuracy and speed."""
    max_new_tokens: Count = 64
    seed: int = 0
