"""The check `pattern`: completions that match, or do not match, regular expressions of the recipe.

Arrow searches with RE2. For every expression, the time of a search is proportional to the length of the text.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import numbers
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.tables.curation_settings import Pattern


def pattern(batch: pa.RecordBatch, section: Pattern, services: Services) -> Verdicts:
    """Reject a completion if an expression of `reject` matches anywhere in it, or if an expression of `require` does
    not.
    """
    texts = batch["completion.text"]
    rejected: dict[int, Rejection] = {}
    for name, expressions, unwanted in (("reject", section.reject, True), ("require", section.require, False)):
        for expression in expressions:
            matches = pc.fill_null(pc.match_substring_regex(texts, pattern=expression), False)
            for row in np.flatnonzero(numbers(matches).astype(bool) == unwanted).tolist():
                says = "matches" if unwanted else "does not match"
                rejected.setdefault(row, Rejection(f"{says} '{expression}'", rule=name))
    return Verdicts(rejected)
