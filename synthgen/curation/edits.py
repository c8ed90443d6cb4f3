"""Edits of completions. Each edit returns the changed columns and records every change in the column `edits`."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import appended, numbers
from synthgen.executor import Services
from synthgen.tables.section import Section
from synthgen.verify.final import final

_TURN = (
    r"\n\s*(?:(?:Q|Question|User|Human|Instruction)\s*\d*\s*:|#{2,4} *(?:Instruction|Question|User|Human|Input)\b|"
    r"<\|(?:user|im_start|start_header_id)\|>|\[INST\]|<start_of_turn>user)"
)
_NEXT_TURN = re.compile(_TURN)


def next_turn(batch: pa.RecordBatch, section: Section, services: Services) -> pa.RecordBatch:
    """Cut a completion before a next turn that the teacher invented: a line that begins like a new question, such as
    "Q:", "User:" or "### Instruction". A turn at the very beginning of the completion is left alone.

    In a changed row, `answer` is read again from what is left, if the row had an answer. `rationale` becomes null if it
    went beyond the cut.
    """
    texts = batch["completion.text"]
    likely = np.flatnonzero(numbers(pc.fill_null(pc.match_substring_regex(texts, pattern=_TURN), False)))
    columns = {name: batch[name].to_pylist() for name in ("completion", "answer", "rationale")} if len(likely) else {}
    rows, entries = [], []
    for row in likely.tolist():
        messages = columns["completion"][row]
        text = messages[-1]["content"] or "" if messages else ""
        found = _NEXT_TURN.search(text, len(text) - len(text.lstrip()))
        if found is None:
            continue
        left = text[: found.start()].rstrip()
        if not left:
            continue
        messages[-1]["content"] = left
        answer = final(left) if columns["answer"][row] is not None else None
        columns["answer"][row] = answer.text if answer else None
        if columns["rationale"][row] is not None and columns["rationale"][row] not in left:
            columns["rationale"][row] = None
        rows.append(row)
        span = {"start": len(left), "end": len(text)}
        entries.append({"edit": "next_turn", **span, "before_sha256": hashlib.sha256(text.encode()).hexdigest()})
    edits = batch["edits"]
    if not rows:
        return batch
    edits = appended(edits, [(np.array(rows, np.int64), pa.array(entries, edits.type.value_type))])
    changed = {name: pa.array(values, batch[name].type) for name, values in columns.items()} | {"edits": edits}
    return pa.RecordBatch.from_arrays(list(changed.values()), names=list(changed))
