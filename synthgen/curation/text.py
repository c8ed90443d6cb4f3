"""Checks of a completion's text: length and truncation."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, numbers
from synthgen.curation.scripts import characters
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.records import COMPLETE
from synthgen.tables.curation import Length
from synthgen.tables.section import Section


def length(batch: pa.RecordBatch, section: Length, services: Services) -> Verdicts:
    """Check that the number of words is between min_words and max_words. In a text that is mostly in a script without
    spaces, characters are counted, and min_characters and max_characters are the bounds. The number is the score.
    """
    plain = batch["completion.plain"]
    counts = characters(plain)
    by_character = counts >= 0
    counts = np.where(by_character, counts, _words(plain))
    rejected: dict[int, Rejection] = {}
    for rule, measured in (("words", ~by_character), ("characters", by_character)):
        low, high = getattr(section, f"min_{rule}"), getattr(section, f"max_{rule}")
        for bound, name, over, comparison in (
            (low, f"min_{rule}", low is not None and (counts < low), "fewer"),
            (high, f"max_{rule}", high is not None and (counts > high), "more"),
        ):
            for row in np.flatnonzero(over & measured).tolist():
                count = int(counts[row])
                rejected[row] = Rejection(f"{count} {rule}, {comparison} than {bound}", count, name, bound)
    return Verdicts(rejected, {"length": counts.astype(np.float64)})


def _words(plain: pa.Array) -> Rows:
    """The number of words in each text. The texts are in plain form."""
    spaces = numbers(pc.count_substring(plain, pattern=" ")).astype(np.int64)
    return spaces + numbers(pc.not_equal(plain, "")).astype(np.int64)


def truncated(batch: pa.RecordBatch, section: Section, services: Services) -> Verdicts:
    """Reject a completion that is not complete according to its finish reason. Null, in rows that no server answered,
    is not judged.
    """
    reasons = batch["finish_reason"]
    whole = pc.or_(pc.is_null(reasons), pc.is_in(reasons, pa.array(COMPLETE, reasons.type)))
    rejected = {}
    for row in np.flatnonzero(~numbers(whole).astype(bool)).tolist():
        reason = reasons[row].as_py()
        rejected[row] = Rejection(
            "cut off at max_new_tokens" if reason == "length" else f"not complete (finish_reason: {reason})"
        )
    return Verdicts(rejected)
