"""Checks of a completion's text: length and truncation."""

from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from synthgen.curation.lists import Rows, numbers
from synthgen.curation.scripts import characters
from synthgen.curation.verdicts import Rejection, Verdicts
from synthgen.executor import Services
from synthgen.records import COMPLETE
from synthgen.tables.curation_settings import Length, Truncated

# As a rule, a complete text ends with a mark such as a full stop. So only three kinds of texts are examined: texts that
# end without such a mark, texts with a block of code, and texts that begin like a JSON document.
_MAY_BE_CUT = r"[\pL\pM\pN,;(\-–，、；]\s*$|(?m)^\s*(?:```|~~~)|\A\s*(?:\{\s*\"|\[\s*[\[{\"])"
_JSON = re.compile(r'\s*(?:\{\s*"|\[\s*[\[{"])')
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_LISTED = re.compile(r"\s*(?:[-*•+#>|]|\w{1,3}[.):]\s|\$|\\)|(?: {4}|\t)|.*\|.*\||.*[={}<>]")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?\s|[。！？]")
# If at least `_SENTENCES` sentences end with a mark such as a full stop, and the text after them has at least `_WORDS`
# words and ends with a letter, this text is a sentence that was cut off.
_SENTENCES, _WORDS = 3, 3
_CHARACTERS = 6  # this many Chinese or Japanese letters count like `_WORDS` words
_WIDE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_ITEM = re.compile(r"\s*(?:[-*•+]|\d{1,3}[.)])\s")
_CLOSING = 5  # a last paragraph with at most this many words is not a sentence
_LETTER_END = re.compile(r"[^\W\d_]$")
# The end of a line that must go on: a mark or a word after which more must follow.
_MIDDLE = re.compile(
    r"[,;(–]$|\w-$|\b(?:the|an?|and|or|but|of|to|in|on|with|for|from|by|as|at|that|which|is|are|was|were|because|if|when|its|their|"
    r"der|die|das|und|oder|von|zu|mit|für|dass|ein|eine|el|la|los|las|un|una|y|o|de|que|en|con|por|para|le|les|une|et|ou|du|des|dans|pour|"
    r"avec|sur)$|[，、；]$",
    re.IGNORECASE,
)


def length(batch: pa.RecordBatch, section: Length, services: Services) -> Verdicts:
    """Check that the number of words is between min_words and max_words. In a text that is mostly in a script without
    spaces, characters are counted, and min_characters and max_characters are the bounds. The score is the number of
    words or characters.
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


def truncated(batch: pa.RecordBatch, section: Truncated, services: Services) -> Verdicts:
    """Reject a completion that is not complete according to its finish reason. If the finish reason is null, because no
    server answered, the text is judged if the setting `from_text` says so.
    """
    reasons = batch["finish_reason"]
    whole = pc.or_(pc.is_null(reasons), pc.is_in(reasons, pa.array(COMPLETE, reasons.type)))
    rejected = {}
    for row in np.flatnonzero(~numbers(whole).astype(bool)).tolist():
        reason = reasons[row].as_py()
        rejected[row] = Rejection(
            "cut off at max_new_tokens" if reason == "length" else f"not complete (finish_reason: {reason})"
        )
    if section.from_text:
        unknown = pc.and_(pc.is_null(reasons), pc.match_substring_regex(batch["completion.text"], pattern=_MAY_BE_CUT))
        for row in np.flatnonzero(numbers(pc.fill_null(unknown, False))).tolist():
            problem = cut_off(batch["completion.text"][row].as_py())
            if problem:
                rejected[row] = Rejection(problem[1], rule=problem[0])
    return Verdicts(rejected)


def cut_off(text: str) -> tuple[str, str] | None:
    """Whether a text was cut off: the rule and the reason. None if the text may be complete."""
    fences = _FENCE.findall(text)
    if len(fences) % 2:
        return "code", "a block of code is not closed"
    text = text.rstrip()
    if _JSON.match(text) and _ends_within_json(text):
        return "json", "the JSON document ends in the middle"
    last = text.rpartition("\n")[2]
    ends = [found.end() for found in _SENTENCE_END.finditer(text[:-1])]
    if not ends or (_LISTED.match(last) and not _cut_item(text)):
        return None
    left = text[ends[-1] :].split()
    long = len(left) >= _WORDS or len(_WIDE.findall(text, ends[-1])) >= _CHARACTERS
    goes_on = _MIDDLE.search(last) or (len(ends) >= _SENTENCES and long and _LETTER_END.search(last))
    closing = text[ends[-1] :].startswith("\n") and len(left) <= _CLOSING  # a line such as the name under a letter
    if not goes_on or closing or any(mark in word for word in left for mark in ":#"):
        return None
    return "sentence", f"ends in the middle of a sentence: '… {' '.join(left[-4:])}'"


def _ends_within_json(text: str) -> bool:
    """Whether a text is the beginning of a JSON document and ends before the document does."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text) or error.msg.startswith("Unterminated string")
    return False


def _cut_item(text: str) -> bool:
    """Whether the last line is an unfinished item of a list whose other items, at least two, end with a mark."""
    items = [line.rstrip() for line in text.split("\n") if _ITEM.match(line)]
    whole = [item for item in items[:-1] if item.endswith((".", "!", "?", "。"))]
    return len(whole) > 1 and len(whole) == len(items) - 1 and _MIDDLE.search(items[-1]) is not None
