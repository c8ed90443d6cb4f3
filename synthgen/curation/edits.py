"""Edits of completions. Each edit returns the changed columns and records every change in the column `edits`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation import openings, turns
from synthgen.curation.lists import appended, lengths, numbers
from synthgen.curation.text import cut_off
from synthgen.executor import Services
from synthgen.tables.section import Section
from synthgen.verify.final import after_reasoning, final

Change = Callable[[str, str], str]
"""Returns the changed text of a completion. The function also gets the prompt's text, which is empty for edits that do
not read the prompt. A text that is not changed is returned as it is.
"""

_UNTIDY = r"\r|[ \t]\n|[ \t]$|\n[ \t]*\n[ \t]*\n|^[ \t]*\n|\n$"
_LAST_RULER = re.compile(r"\n\s*(?:-{3,}|\*{3,}|={3,}|#+)\s*\Z")  # matches a line such as "---" before the next turn
_NUMBERED = re.compile(r"\W*(\w+ ?\d+)")  # matches the name and the number of a turn, such as "Question 2"
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")


def next_turn(batch: pa.RecordBatch, section: Section, services: Services) -> pa.RecordBatch:
    """Cut a completion before a next turn that the teacher invented (see `synthgen.curation.turns`). Such a turn begins
    with a line like "Q:", "User:" or "### Instruction", or with a mark of a chat template such as "<|im_end|>". A turn
    at the very beginning of the completion is not cut.

    If a changed row had an answer, `answer` is read again from the rest of the completion. `rationale` becomes null if
    a part of the rationale was cut. The finish reason `length` becomes `stop` if the limit cut off only the invented
    turn (see `_is_whole`).
    """
    texts, prompts = batch["completion.text"], batch["prompt.text"]
    open_ = _like(prompts, turns.ENDS_WITH_LABEL)
    likely = pc.or_(_like(texts, turns.LIKELY), pc.and_(open_, _like(texts, turns.LABELLED)))
    edited = _edited(batch, "next_turn", likely, _cut)
    reasons = batch["finish_reason"]
    limit = pc.fill_null(pc.equal(reasons, "length"), False)
    ended = numbers(limit).astype(bool) & (lengths(edited["edits"]) > lengths(batch["edits"]))
    for row in np.flatnonzero(ended).tolist():
        left = edited["completion"][row].as_py()[-1]["content"]
        ended[row] = _is_whole(left, texts[row].as_py()[len(left) :], prompts[row].as_py() or "")
    columns = {name: edited[name] for name in edited.schema.names}
    columns["finish_reason"] = pc.if_else(pa.array(ended), pa.scalar("stop", reasons.type), reasons)
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def _cut(text: str, prompt: str) -> str:
    place = turns.begins(text, prompt.rpartition("\0")[2])
    return _LAST_RULER.sub("", text[:place]).rstrip() if place < len(text) else text


def _is_whole(left: str, cut: str, prompt: str) -> bool:
    """Whether the text before an invented turn is a whole answer. The text is not whole if it ends within a block of
    code, reasoning, a JSON document or a sentence, because the line with a name is then a part of this text. A text
    that begins with a turn, such as "Question 1: …", may continue with the turns that the prompt asked for. This also
    holds if the first turn in the `cut` text has a number with which it stands in the prompt.
    """
    numbered = _NUMBERED.match(cut)
    asked = numbered is not None and numbered[1].casefold() in prompt.casefold()
    return not asked and after_reasoning(left) is not None and cut_off(left) is None and not turns.is_turn(left)


def _like(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.fill_null(pc.match_substring_regex(texts, pattern=pattern), False)


def opening(batch: pa.RecordBatch, section: Section, services: Services) -> pa.RecordBatch:
    """Cut what assistants say before they answer, such as "Sure! Here is a list of rivers:" (see
    `synthgen.curation.openings`). A completion that has no other text is not changed.

    `answer` and `rationale` are cut too if they begin with the words that were cut.
    """
    likely = _like(batch["completion.text"], openings.LIKELY)
    return _edited(batch, "opening", likely, _without_opening, everywhere=True)


def _without_opening(text: str, prompt: str = "") -> str:
    return text[openings.answer_begins(text) :]


def white_space(batch: pa.RecordBatch, section: Section, services: Services) -> pa.RecordBatch:
    r"""Remove spaces at the ends of lines, and blank lines at the beginning and the end. Several blank lines become
    one. "\r\n" and "\r" become "\n". In blocks of code, only "\r\n" and "\r" are changed.

    `answer` and `rationale` are changed in the same way.
    """
    likely = _like(batch["completion.text"], _UNTIDY)
    return _edited(batch, "white_space", likely, _tidy, everywhere=True)


def _tidy(text: str, prompt: str = "") -> str:
    lines: list[str] = []
    code = False
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        code ^= _FENCE.match(line) is not None
        tidied = line if code else line.rstrip(" \t")
        if code or tidied or (lines and lines[-1]):
            lines.append(tidied)
    while lines and not lines[-1].strip():
        lines.pop()
    return "\n".join(lines)


def _edited(
    batch: pa.RecordBatch, name: str, likely: pa.Array, change: Change, *, everywhere: bool = False
) -> pa.RecordBatch:
    """Change the last message of completions. `likely` is true for every completion that `change` may change. A change
    that would leave an empty completion is not made. With `everywhere`, answers and rationales that are no longer a
    part of the completion are changed in the same way. Without `everywhere`, or if the changed answer is not a part of
    the completion either, the answer is read again. A rationale that is not a part of the completion becomes null.
    """
    found = np.flatnonzero(numbers(likely))
    prompts = batch["prompt.text"] if "prompt.text" in batch.schema.names else None
    columns = {key: batch[key].to_pylist() for key in ("completion", "answer", "rationale")} if len(found) else {}
    rows, entries = [], []
    for row in found.tolist():
        messages = columns["completion"][row]
        text = messages[-1]["content"] or "" if messages else ""
        prompt = prompts[row].as_py() or "" if prompts is not None else ""
        left = change(text, prompt)
        if left == text or not left.strip():
            continue
        messages[-1]["content"] = left
        for key in ("answer", "rationale"):
            value = columns[key][row]
            if everywhere and value is not None and value not in left:
                value = columns[key][row] = change(value, prompt)
            if key == "answer" and value is not None and (not everywhere or value not in left):
                said = final(left)
                columns[key][row] = said.text if said else None
            elif key == "rationale" and value is not None and value not in left:
                columns[key][row] = None
        rows.append(row)
        start, end = _changed(text, left)
        before = hashlib.sha256(text.encode()).hexdigest()
        entries.append({"edit": name, "start": start, "end": end, "before_sha256": before})
    if not rows:
        return batch
    edits = batch["edits"]
    edits = appended(edits, [(np.array(rows, np.int64), pa.array(entries, edits.type.value_type))])
    changed = {key: pa.array(values, batch[key].type) for key, values in columns.items()} | {"edits": edits}
    return pa.RecordBatch.from_arrays(list(changed.values()), names=list(changed))


def _changed(text: str, left: str) -> tuple[int, int]:
    """The range of characters of `text` that holds all changes."""
    start = _equal(text, left)
    most = min(len(text), len(left)) - start
    return start, len(text) - min(_equal(text[::-1], left[::-1]), most)


def _equal(one: str, other: str) -> int:
    """The number of equal characters at the beginning of both texts."""
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))
