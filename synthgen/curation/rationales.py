"""The checks `rationale` and `arithmetic`, which read the reasoning before an answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.hints import LIKELY, leak
from synthgen.curation.lists import as_lists, lengths
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.records import Span
from synthgen.tables.curation_settings import Arithmetic
from synthgen.tables.section import Section
from synthgen.verify.conclusions import contradiction
from synthgen.verify.equations import equations
from synthgen.verify.final import final

_LIKELY = re.compile(LIKELY)
_SHOWN = 80  # maximum number of characters of an answer that a reason shows


def rationale(batch: pa.RecordBatch, section: Section, services: Services) -> Verdicts:
    """Reject a row if its rationale ends with another answer than the row has, or mentions a hint or a given answer.

    A row of a data set may have no rationale. Then the reasoning of the completion is read. If there is no reasoning,
    the completion is read up to its last line, and this last line must be marked as the answer, as in "#### 42".
    """
    rejected = {}
    for row, (text, answer) in enumerate(_rationales(batch)):
        if not text:
            continue
        stated = contradiction(text, answer) if answer else None
        if stated is not None:
            given = final(answer or "")
            shown = given.text[:_SHOWN] if given else ""
            reason = f"the rationale ends with '{stated[:_SHOWN]}', and the answer is '{shown}'"
            rejected[row] = Rejection(reason, rule="conclusion")
            continue
        found = leak(text, batch["prompt.text"][row].as_py() or "") if _LIKELY.search(text) else None
        if found:
            words = " ".join(text[found["start"] : found["stop"]].split())
            place = _place(text, found, batch["completion.text"][row].as_py() or "")
            rejected[row] = Rejection(f"speaks of a hint or of a given answer: '{words}'", rule="hint", span=place)
    return Verdicts(rejected)


def _place(rationale: str, found: Span, completion: str) -> Span | None:
    """The place in the completion that corresponds to the place `found` in the rationale. The result is None if the
    completion does not contain the rationale.
    """
    start = completion.find(rationale)
    return {"start": start + found["start"], "stop": start + found["stop"]} if start >= 0 else None


def _rationales(batch: pa.RecordBatch) -> Iterator[tuple[str | None, str | None]]:
    """The rationale and the answer of each row; None where there is none."""
    columns = [batch[name] for name in ("rationale", "answer", "strategy", "completion.text")]
    columns.append(_reasoning(batch["completion"]))
    for own, answer, strategy, completion, reasoning in zip(*(each.to_pylist() for each in columns), strict=True):
        if strategy is not None or (own and answer):
            yield own, answer
        elif own or reasoning.strip():
            yield own or reasoning, answer or completion
        else:
            before, _, last = (completion or "").rstrip().rpartition("\n")
            end = final(last) if before else None
            yield (before, last) if end and end.marked else (None, None)


def _reasoning(completion: pa.Array) -> pa.Array:
    """The reasoning in the messages of each completion."""
    parts = pc.fill_null(pc.struct_field(completion.flatten(), "reasoning_content"), "")
    return pc.binary_join(as_lists(lengths(completion), parts, pa.list_(pa.string())), "\n")


def arithmetic(batch: pa.RecordBatch, section: Arithmetic, services: Services) -> Verdicts:
    """Recompute the equations of the completion and of the rationale. The score is the share of right equations. A row
    without equations gets no score and is kept.
    """
    scores = np.full(len(batch), np.nan)
    rejected = {}
    columns = (batch["completion.text"].to_pylist(), batch["rationale"].to_pylist())
    for row, (completion, own) in enumerate(zip(*columns, strict=True)):
        text = completion or ""
        found = equations(f"{own}\n{text}" if own and own not in text else text)
        if not found:
            continue
        wrong = [one for one in found if not one.right]
        scores[row] = 1 - len(wrong) / len(found)
        if section.min_share is not None and scores[row] < section.min_share:
            reason = f"{len(wrong)} of {len(found)} equations are wrong, first '{wrong[0].text}'"
            rejected[row] = Rejection(reason, scores[row], "", section.min_share)
    return Verdicts(rejected, {"arithmetic": scores})
