"""Section `curate`: the checks and their thresholds."""

from __future__ import annotations

from synthgen.tables.section import Section, Share


class CurateSection(Section):
    """Checks; null or false switches one off. Thresholds are of the score the check writes."""

    answer: bool = True
    """Drop rows whose answer does not match the reference (rows without a reference pass)."""
    min_words: int | None = 1
    max_words: int | None = 1000
    repetition: Share | None = 0.3
    """Largest allowed share of 4-word sequences that occurred before in the same completion."""
    refusal: bool = True
    truncated: bool = True
    duplicates: bool = True
    """Drop later copies of the same prompt with the same completion, whitespace and case aside."""
