"""Reads the new questions in a teacher's reply: one question, or the items of a list.

Two questions are the same when only case, spacing, quotes, articles or sentence punctuation differ. Numbers, signs,
operators and other symbols make a question new: "What is 3 - 4?" is not "What is 3 + 4?".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from synthgen.generation.rounds import Failure, failure, unfinished
from synthgen.requests import Query
from synthgen.teachers.base import Reply
from synthgen.teachers.structured import parsed_json

_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»", "'": "'", "‘": "’", "「": "」"}
# Two patterns: a first line that only announces the question, and a title such as "Question:" before the text.
_ANNOUNCED = re.compile(
    r"(?:(?:sure|certainly|of course|okay|ok|absolutely|great)\b[^\n:?]{0,40})?"
    r"(?:here(?:'s|’s|\sis|\sare)|below\s(?:is|are)|this\sis|the\sfollowing\sis)\b[^\n:?]{0,80}:[ \t*_]*\n\s*",
    re.IGNORECASE,
)
_TITLE = re.compile(
    r"[*_#\s]*(?:(?:my|the|new|next|another|rewritten|evolved|harder|user'?s?)\s){0,3}(?:question|prompt|user|message)"
    r"[*_]*:[*_]*\s+",
    re.IGNORECASE,
)
_ARTICLES = frozenset(("a", "an", "the"))
_PARTS = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_]+(?:['’][^\W\d_]+)*|[^\w\s]|_")
_PUNCTUATION = frozenset(".,;:!?…¿¡。、？！؟\"“”„«»‘’'`")

_MARKER = re.compile(
    r"""\s*(?P<bold>\*\*)?(?:
        (?P<bullet>[-*•‣◦–—])
        | \(?(?P<number>\d{1,3})[.):]
        | Q(?:uestion)?\s?(?P<numbered>\d{1,3})\s?[.):]
        | \(?(?P<letter>[A-Za-z])\)
    )(?(bold)(?:\*\*)?)\s+""",
    re.VERBOSE,
)
_REMARK = re.compile(
    r"(?:would you like|do you want|shall i|should i|let me know|i hope|hope (?:this|these|that)|feel free"
    r"|is there anything|(?:do you )?need (?:any |some )?more|if you (?:need|want|would like))\b",
    re.IGNORECASE,
)
_ANNOUNCES = re.compile(
    r"(?:sure|certainly|of course|okay|here(?:'s|’s| is| are)|below (?:is|are)|these are|the following are)\b",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"[*_\s]*(?:answer|solution|explanation|hint)s?[*_]*\s*:", re.IGNORECASE)
_JSON = re.compile(r'^\s{0,9}(?:\[\s{0,9}["{\[]|\{\s{0,9}").*', re.MULTILINE | re.DOTALL)
_QUESTION_END = re.compile(r"[?？؟][\"”’»*_)\s]*$")


def new_question(query: Query, reply: Reply, known: Sequence[str]) -> str | Failure:
    """The new question in a reply. Returns a Failure when there is no text, or when the reply is not finished or equals
    one of the `known` questions.
    """
    if (failed := unfinished(query, reply)) is not None:
        return failed
    text = _unquoted(_TITLE.sub("", _ANNOUNCED.sub("", reply.text.strip(), count=1), count=1).strip())
    if not text:
        return failure(query, "empty", "the new question is empty")
    if sameness(text) in {sameness(old) for old in known}:
        return failure(query, "unchanged", f"the new question was asked before: '{text[:80]}'")
    return text


def sameness(text: str) -> str:
    """A key that two questions share when they are the same question."""
    bare = re.sub(r"\*\*|__", "", unicodedata.normalize("NFC", text)).casefold()
    parts = _PARTS.findall(bare.replace("−", "-").replace("’", "'"))
    around = zip(["", *parts], parts, [*parts[1:], ""], strict=False)
    return " ".join(part for before, part, after in around if _counts(before, part, after, bare))


def _counts(before: str, part: str, after: str, text: str) -> bool:
    """Whether a part of a question distinguishes this question from other questions. `before` and `after` are the
    neighboring parts.
    """
    if part in _ARTICLES:
        return not after[:1].isalpha()  # in "a + b", the letter is a variable
    if part == "-":  # in "well-known", the hyphen joins two words
        return not (min(len(before), len(after)) > 1 and (before + after).isalpha() and f"{before}-{after}" in text)
    if part == "!":  # a factorial
        return before[-1:].isdigit() or before in (")", "]") or (len(before) == 1 and before.isalpha())
    if part == ":":  # a ratio
        return before[-1:].isdigit() and after[:1].isdigit()
    return part not in _PUNCTUATION


def _unquoted(text: str) -> str:
    """The text without a pair of quotes around the whole text. Quotes around only a part of the text are kept."""
    closing = _QUOTES.get(text[:1])
    inner = text[1:-1]
    if len(text) < 2 or closing is None or text[-1] != closing:
        return text
    marks = re.sub(r"(?<=\w)['’](?=\w)", "", inner)  # an apostrophe is not a quote
    return text if text[0] in marks or closing in marks else inner.strip()


@dataclass
class _Line:
    """A line of a list: its indent, its kind of marker ("bullet", "number", "letter" or "" for none), the number of the
    marker, the text after the marker, and the whole text. `spaced` tells whether an empty line is before this line.
    `below` are the lines that belong to this line.
    """

    indent: int
    kind: str
    number: int
    text: str
    whole: str
    spaced: bool = False
    below: list[_Line] = field(default_factory=list)


def items(text: str, *, whole: bool = True) -> list[str]:
    """The distinct items of a list, in order, without their markers. When `whole` is false, the text was cut off, so
    its last item is left out.

    In a list with markers (bullets or numbers), only lines with a marker begin an item. Indented lines, and options
    such as "a) red", belong to the item before them. But if an item ends with a colon, and all lines that belong to it
    have markers, the item is only a heading, and each of these lines is an item. In a list without markers, each line
    is an item, except an introduction, a heading and a closing remark. A list that contains code has no items, because
    lines of code cannot be distinguished from items. The list may also be written in JSON.
    """
    lines = text.strip("\n").rstrip().split("\n")
    fences = [n for n, line in enumerate(lines) if line.lstrip().startswith("```")]
    if fences and (len(fences) != 2 or fences[-1] != len(lines) - 1):
        return []
    inner = lines[fences[0] + 1 : fences[1]] if fences else lines
    found, json_list = _lines(inner), _JSON.search("\n".join(inner).rstrip())
    if json_list and (json_list[0][-1] in "]}" or not whole):
        kept = _of_json(json_list[0])
    elif any(line.kind for line in found):
        kept = _marked(_heads(found, whole=whole))
    else:
        kept = _unmarked(found if whole else found[:-1])
    by_key = {sameness(item): item for item in reversed(kept)}
    return [item for key, item in reversed(by_key.items()) if key]


def _of_json(text: str) -> list[str]:
    """The items of a list in JSON: texts, or objects with the one key `question`. [] for other JSON, and for JSON that
    was cut off.
    """
    try:
        value = parsed_json(text)
    except ValueError:
        return []
    if isinstance(value, dict) and len(value) == 1:
        [value] = value.values()
    given = value if isinstance(value, list) else []
    texts = [one.get("question") if isinstance(one, dict) and len(one) == 1 else one for one in given]
    return [one.strip() for one in texts if isinstance(one, str)] if all(isinstance(one, str) for one in texts) else []


def _lines(raw: Sequence[str]) -> list[_Line]:
    """The lines that contain a word or a number. A number above 1 is a marker only if the next lower or the next higher
    number is in the list too. Otherwise the number is text.
    """
    found: list[_Line] = []
    spaced = False
    for one in raw:
        if re.search(r"\w", one):
            found.append(replace(_line(one), spaced=spaced))
        spaced = not one.strip()
    numbers = {line.number for line in found if line.kind == "number"}
    for line in found:
        if line.kind == "number" and line.number > 1 and not {line.number - 1, line.number + 1} & numbers:
            line.kind, line.text = "", line.whole
    return found


def _line(raw: str) -> _Line:
    whole = raw.strip()
    indent = len(raw.expandtabs(4)) - len(raw.expandtabs(4).lstrip())
    match = _MARKER.match(raw)
    if match is None:
        return _Line(indent, "", 0, whole, whole)
    number = match["number"] or match["numbered"]
    kind = "number" if number else "bullet" if match["bullet"] else "letter"
    return _Line(indent, kind, int(number or 0), raw[match.end() :].strip(), whole)


def _heads(lines: Sequence[_Line], *, whole: bool) -> list[_Line]:
    """The lines that begin an item, each with the lines below it. When `whole` is false, the last line was cut off, so
    its item is left out.
    """
    least = min(line.indent for line in lines if line.kind)
    top = next(line.kind for line in lines if line.kind and line.indent <= least + 1)
    heads: list[_Line] = []
    cut = False
    for line in lines:
        flat = line.kind and line.indent <= least + 1
        cut = True
        if flat and (line.kind == top or not heads or _is_new(line, heads[-1])):
            heads.append(line)
        elif heads and (line.indent > heads[-1].indent or (line.kind and not line.spaced)):
            heads[-1].below.append(line)
        else:
            cut = False
    if cut and not whole:
        last = heads[-1]
        if _is_heading(last) and len(last.below) > 1:
            last.below.pop()
        else:
            heads.pop()
    return heads


def _is_heading(line: _Line) -> bool:
    """Whether the lines below a line are items."""
    return line.text.rstrip("*_ ").endswith((":", "：")) and bool(line.below) and all(one.kind for one in line.below)


def _marked(heads: Sequence[_Line]) -> list[str]:
    """The items of a list with markers."""
    kept: list[str] = []
    for head in heads:
        below = head.below
        answer = next((n for n, line in enumerate(below) if _ANSWER.match(line.text)), len(below))
        if _is_heading(head):
            kept += [_bare(line.text) for line in below]
        else:
            kept.append("\n".join([_bare(head.text), *(line.whole for line in below[:answer])]))
    return kept


def _is_new(line: _Line, before: _Line) -> bool:
    """Whether a line is a new item, and not an option of the item before it. The marker of this line differs from the
    markers of the list.
    """
    return line.kind != "letter" and not before.text.endswith(":") and bool(_QUESTION_END.search(line.text))


def _unmarked(lines: Sequence[_Line]) -> list[str]:
    """The items of a list without markers."""
    texts = [_bare(line.text) for line in lines]
    texts = [text for text in texts if not text.startswith("# ") and not text.startswith("##")]
    headed = any(not text.endswith((":", "：")) for text in texts)
    asks = any(_QUESTION_END.search(text) for text in texts)
    kept = []
    for n, text in enumerate(texts):
        heading = headed and text.endswith((":", "：")) and n + 1 < len(texts)
        remark = _REMARK.match(text) or (_ANNOUNCES.match(text) and not _QUESTION_END.search(text))
        if not heading and not remark and (not asks or _QUESTION_END.search(text)):
            kept.append(text)
    return kept


def _bare(text: str) -> str:
    """The text without emphasis or quotes around the whole text."""
    text = text.strip()
    match = re.fullmatch(r"(\*\*|__|\*|_)(.+)\1", text, re.DOTALL)
    return _unquoted(match[2].strip() if match and match[1] not in match[2] else text)
