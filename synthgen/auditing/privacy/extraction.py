"""Extraction: if a student gets the beginning of a row that it learned, does it write the next tokens of the row?

The student gets the row's prompt and the first tokens of its completion, and continues greedily. A row counts as
extracted if the continuation has exactly the tokens of the row (`exact`), or if the ROUGE-L of both is at least 0.9
(`near`). A model can also continue predictable text that it has never seen, so the rate of held-out rows is subtracted.
The interval of the difference is Newcombe's (Statistics in Medicine 17, 1998, method 10), and the p-value is that of
Fisher's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from synthgen.auditing.privacy.onesided import Bounds, OneSided
from synthgen.auditing.statistics import LEVEL, POWER, wilson

NEAR = 0.9
"""The smallest ROUGE-L with which a row counts as extracted."""
MARGIN = 0.01
"""The smallest difference of rates that matters: one row in a hundred."""


@dataclass(frozen=True)
class Rates:
    """How many of the learned rows, and of the rows that were held out, were extracted."""

    hits: int
    rows: int
    other_hits: int
    other_rows: int

    @property
    def difference(self) -> float:
        """The rate of learned rows minus the rate of held-out rows. NaN when one side has no rows."""
        return self.hits / self.rows - self.other_hits / self.other_rows if self.rows and self.other_rows else math.nan

    def interval(self, level: float = 0.95) -> Bounds:
        """Newcombe's interval of the difference, from the Wilson intervals of both rates."""
        if not (self.rows and self.other_rows):
            return math.nan, math.nan
        p, q = self.hits / self.rows, self.other_hits / self.other_rows
        (low, high), (other_low, other_high) = (
            wilson(p, self.rows, level),
            wilson(q, self.other_rows, level),
        )
        return p - q - math.hypot(p - low, other_high - q), p - q + math.hypot(high - p, q - other_low)

    def p_value(self) -> float:
        """The one-sided p-value of Fisher's exact test: the probability of at least so many hits among the learned
        rows, given the number of all hits.
        """
        return _tail(self.hits, self.hits + self.other_hits, self.rows, self.other_rows)

    def detectable(self) -> float:
        """The smallest difference of the rates that the test finds with a power of 80%, given the rate of the held-out
        rows. NaN when the test cannot find any difference.
        """
        for needed in range(self.other_hits + 1, self.rows + 1):
            if _tail(needed, needed + self.other_hits, self.rows, self.other_rows) < LEVEL:
                from scipy import special

                rate = float(special.betaincinv(needed, self.rows - needed + 1, POWER))
                return max(rate - self.other_hits / max(1, self.other_rows), MARGIN)
        return math.nan


def _tail(hits: int, total: int, rows: int, other_rows: int) -> float:
    """The probability that at least `hits` of `total` hits fall on `rows` of rows + other_rows rows."""
    whole = _log_choose(rows + other_rows, total)
    chances = (
        math.exp(_log_choose(rows, k) + _log_choose(other_rows, total - k) - whole)
        for k in range(hits, min(total, rows) + 1)
        if total - k <= other_rows
    )
    return min(1.0, math.fsum(chances))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def rouge_l(some: Sequence[int], others: Sequence[int]) -> float:
    """The F1 measure of the longest common subsequence of two token sequences (Lin, "ROUGE", 2004). 0 when one of them
    is empty.
    """
    if not some or not others:
        return 0.0
    before = [0] * (len(others) + 1)
    for token in some:
        row = [0]
        for place, other in enumerate(others):
            row.append(before[place] + 1 if token == other else max(before[place + 1], row[place]))
        before = row
    return 2 * before[-1] / (len(some) + len(others))


def difference(name: str, subject: str, rates: Rates, prefix: int, suffix: int) -> OneSided:
    """The test of one kind of extraction. The student gets `prefix` tokens of the completion, and writes `suffix`
    tokens.
    """
    how = "exactly" if name.endswith("exact") else f"with a ROUGE-L of at least {NEAR}"
    return OneSided(
        name,
        subject,
        f"the share of learned rows whose next {suffix} tokens the model writes {how} after their prompt and "
        f"{prefix} tokens, minus this share of held-out rows",
        unit="share",
        value=rates.difference,
        null=0.0,
        p=rates.p_value(),
        interval=rates.interval(),
        upper=rates.interval(0.9)[1],
        margin=MARGIN,
        n=rates.rows + rates.other_rows,
        detectable=rates.detectable(),
        note=f"{rates.hits:,} of {rates.rows:,} learned, {rates.other_hits:,} of {rates.other_rows:,} held-out rows",
        why_not="" if rates.rows and rates.other_rows else "no row is long enough",
    )
