"""Section `curate`: the checks and their thresholds."""

from __future__ import annotations

from synthgen.tables.section import Section, Share


class CurateSection(Section):
    """The checks that a row must pass to be kept. null or false switches a check off."""

    answer: bool = True
    """Reject rows whose answer does not match the reference. Rows without a reference pass."""
    min_words: int | None = 1
    """Least number of words in a completion."""
    max_words: int | None = 1000
    """Largest number of words in a completion."""
    repetition: Share | None = 0.3
    """Largest share of a completion's 4-word sequences that occurred earlier in it."""
    refusal: bool = True
    """Reject completions in which the teacher refuses to answer."""
    truncated: bool = True
    """Reject completions that were cut off at the most tokens."""
    duplicates: bool = True
    """Reject later copies of the same prompt with the same completion; white space and case do not count."""
