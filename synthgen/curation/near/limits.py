"""How many rows can be compared."""

from __future__ import annotations

from synthgen.errors import UserError

MOST_ROWS = 2**31 - 1
"""The search numbers rows with 32 bits."""


def check_count(count: int) -> None:
    """Raise UserError when `count` rows are more than the search can number."""
    if count > MOST_ROWS:
        raise UserError(
            f"near duplicates are searched among at most {MOST_ROWS:,} rows, and there are {count:,}",
            "curate the corpus in parts, or switch off the search",
        )
