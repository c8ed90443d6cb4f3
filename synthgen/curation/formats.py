"""The check `format` rejects completions that are not JSON, or that do not follow a JSON schema."""

from __future__ import annotations

import re

import pyarrow as pa

from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.tables.curation_settings import Format
from synthgen.teachers.structured import mismatch, parsed_json
from synthgen.verify.final import after_reasoning

_OPENING = re.compile(r"```json\b", re.IGNORECASE)


def format(batch: pa.RecordBatch, section: Format, services: Services) -> Verdicts:
    """Reject a completion that is not a JSON document (RFC 8259), or does not follow the schema. Reasoning up to
    `</think>` is not read. If `in_block` is set, the document may stand in a block that begins with ```json, and other
    text may stand around the block.
    """
    rejected = {}
    for row, text in enumerate(batch["completion.text"].to_pylist()):
        problem = _problem(after_reasoning(text or "") or "", section)
        if problem:
            rejected[row] = Rejection(problem[1], rule=problem[0])
    return Verdicts(rejected)


def _problem(text: str, section: Format) -> tuple[str, str] | None:
    """The rule that a completion breaks, and the reason. None if the completion has the required form."""
    document, error = _document(text, section.in_block)
    if document is None:
        return "json", error
    error = mismatch(document, section.json_schema) if section.json_schema is not None else ""
    return ("schema", error) if error else None


def _document(text: str, in_block: bool) -> tuple[str | None, str]:
    """(the JSON document of a completion, ''), or (None, the reason why there is no document)."""
    error = _error(text)
    if not error:
        return text, ""
    opened = list(_OPENING.finditer(text)) if in_block else []
    if not opened:
        return None, error
    if len(opened) > 1:
        return None, f"the answer has {len(opened)} blocks of JSON"
    behind = text[opened[0].end() :]
    if "```" not in behind:
        return None, "the block of JSON is not closed"
    # A string in the document, or the text after the block, may also contain three backticks.
    first, last = behind.split("```", 1)[0], behind.rsplit("```", 1)[0]
    document = last if _error(first) and not _error(last) else first
    error = _error(document)
    return (None, error) if error else (document, "")


def _error(text: str) -> str:
    """Why a text is not JSON; '' if the text is JSON."""
    try:
        parsed_json(text)
    except ValueError as error:
        return f"the answer is not JSON: {error}" if text.strip() else "the answer is empty"
    return ""
