"""The check that compares the parsed answer with the reference."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import lengths
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.tables.section import Section
from synthgen.verify import matches_any, reason


def answer(batch: pa.RecordBatch, section: Section, services: Services) -> Verdicts:
    """Check that the parsed answer matches one of the accepted references. The score is 1 or 0. A row that has no
    reference is kept and gets no score. A row of a data set has no parsed answer, so the final answer in the
    completion's text is compared.
    """
    scores = np.full(len(batch), np.nan)
    rejected = {}
    rows = np.flatnonzero(lengths(batch["reference"]) > 0)
    chosen = batch.take(pa.array(rows))
    foreign = pc.and_(pc.is_null(chosen["answer"]), pc.is_null(chosen["strategy"]))
    answers = pc.if_else(foreign, chosen["completion.text"], chosen["answer"])
    pairs = zip(rows.tolist(), answers.to_pylist(), chosen["reference"].to_pylist(), strict=True)
    for row, given, accepted in pairs:
        right = bool(given) and matches_any(given, accepted)
        scores[row] = float(right)
        if not given:
            rejected[row] = Rejection("no answer found in the completion", 0.0)
        elif not right:
            rejected[row] = Rejection(reason(given, accepted), 0.0)
    return Verdicts(rejected, {"answer": scores})
