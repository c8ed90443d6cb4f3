r"""Finds the final answer in a text, as people and models write it.

The last of these markers counts: `\boxed{…}`, `#### …`, `<answer>…</answer>`, `Answer: …`, `The answer is …`, `A: …` at
the start of a line. Reasoning up to `</think>` is left out. Without a marker the last line is the answer. All searches
begin at the end of the text and take linear time.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from synthgen.verify.short import remembered

LIMIT = 100_000  # only this many characters at the end of a text are searched
LINE = 1_000  # maximum number of characters of a final answer

_THOUGHT_ENDS = ("</think>", "</thinking>", "</thought>", "</reasoning>", "<|channel|>final<|message|>")
_THOUGHT_BEGINS = ("<think>", "<thinking>", "<thought>", "<reasoning>")
_BOXES = ("\\boxed{", "\\fbox{", "\\boxed {")
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_CALCULATION = re.compile(r"<<[^<>\n]*+>>")  # GSM8K notes each calculation as <<48/2=24>>
_EMPHASIS = " \t*_"
_PREFIX = re.compile(r"(?:#{1,6}|[*•])\s+")  # the marks before a heading or an item in Markdown

_STATES = re.compile(  # matches the text after the word "answer"
    r"(?:s|\(s\))?[*_\"']{0,3}(?: ?\([^()\n]{0,40}\))?(?: (?:to|for|of) [^.:\n=]{1,120}?)?[*_ ]{0,4}"
    r"(?:(?:is|are|was|will be|would be|should be|equals)(?![A-Za-z'’])[*_ ]{0,4}(?:equal to |given by |that |indeed |"
    r"therefore |thus )?[:\uff1a]?|[:\uff1a=]|->|→)[*_ \t]{0,6}"
)
_NO_MARKER = re.compile(
    r"(?:\b(?:wrong|incorrect|false|bad|another|possible|first|"
    r"initial|previous|tentative|student'?s|not (?:the|an))\s*|"
    r"[A-Za-z])$",
    re.IGNORECASE,
)
_NOT_BEFORE = re.compile(r"(?:\bnot|n['’]t|\bnever|\bneither|\bor|\bmaybe|\bperhaps)[\s$:({]*$", re.IGNORECASE)
_MINUS_BEFORE = re.compile(r"[-−–][ $]*$")
_BETWEEN_BOXES = re.compile(
    r"[\s$,;.&()]*(?:\\text\{)?[\s$,]*(and|or)?[\s$,;}()]*(?:[A-Za-z]\s*=\s*)?[\s$]*", re.IGNORECASE
)
_AFTER_BOX = re.compile(r"(?:\\%|\\[a-zA-Z]+(?:\{[^{}\n]{0,40}\})*|[\w%^°+*/'\-]|\{[^{}\n]{0,40}\})+")
TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|sorry|oops|scratch that|on second thought|i was wrong|i made a mistake|"
    r"that(?:'s| is) (?:wrong|incorrect|not right|not correct)|no,|not sure|or maybe|or perhaps|alternatively|"
    r"it (?:could|might) (?:also )?be)",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"(?:step|part|question|problem|example|note|explanation|reasoning|solution|analysis)\b", re.IGNORECASE
)
_ONLY_DELIMITER = frozenset({"$$", "\\[", "\\(", "$", "```", "**", "```text", "\\]", "\\)"})


@dataclass(frozen=True, slots=True)
class Final:
    """The final answer of a text. `text` is one line. `marked` says whether a marker introduced the answer. `lines` is
    the number of lines of the text in which the answer was found. `doubt` is the reason why the text does not count as
    an answer, or ''.
    """

    text: str
    marked: bool
    lines: int = 1
    doubt: str = ""


def after_reasoning(text: str) -> str | None:
    """The text after the model's reasoning. None if the reasoning does not end."""
    if not ("</" in text or "<t" in text or "<T" in text or "<r" in text or "<R" in text or "<|" in text):
        return text
    lower = lowered(text)
    end = max((at + len(tag) for tag in _THOUGHT_ENDS if (at := lower.rfind(tag)) >= 0), default=0)
    if any(lower.find(tag, end) >= 0 for tag in _THOUGHT_BEGINS):
        return None
    return text[end:]


def lowered(text: str) -> str:
    """The text in lower case; every character keeps its place."""
    lower = text.lower()
    return lower if len(lower) == len(text) else text.translate(_LOWER)


@remembered
def final(text: str) -> Final | None:
    """The final answer of a text. None if the text is empty, if its answer is too long for one line, or if it ends
    inside its reasoning or inside an open brace.
    """
    rest = after_reasoning(text)
    if rest is None:
        return None
    rest = rest.strip()
    if len(rest) > LIMIT:
        line = rest.find("\n", len(rest) - LIMIT)
        if line < 0:
            return None
        rest = rest[line + 1 :].strip()
    if not rest:
        return None
    found = _marked(rest)
    if found is not None:
        return found if found.text and len(found.text) <= LINE else None
    return _unmarked(rest)


def _marked(text: str) -> Final | None:
    """The answer after the last marker. None if the text has no marker. The answer's text is '' if nothing follows the
    marker.
    """
    box = _last_box(text, len(text)) if "\\" in text else -1
    hashes = _hashes(text) if "####" in text else -1
    lower = lowered(text)
    tag = lower.rfind("<answer>") if "<" in text else -1
    word, begins = _word(text, lower)
    last = max(box, hashes, tag, word)
    if last < 0:
        return None
    if last == tag:
        inside = text[tag + 8 :].split("<", 1)[0] if lower.find("</answer>", tag) >= 0 else text[tag + 8 :]
        return _line(inside)
    if last == box:
        return _boxed(text, box)
    return _line(text[hashes + 4 :] if last == hashes else text[begins:])


def _last_box(text: str, end: int) -> int:
    return max(text.rfind(box, 0, end) for box in _BOXES)


def _hashes(text: str) -> int:
    """The place of the last `####` that is not a heading in Markdown."""
    at = len(text)
    while (at := text.rfind("####", 0, at)) >= 0:
        end = text.find("\n", at)
        line = text[at + 4 : at + 4 + LINE if end < 0 else min(end, at + 4 + LINE)].strip(_EMPHASIS)
        last = end < 0 or not text[end : end + LINE].strip()
        if not _HEADING.match(line) and (line or last) and not line.endswith(":"):
            return at
        while at > 0 and text[at - 1] == "#":
            at -= 1
    return -1


def _word(text: str, lower: str) -> tuple[int, int]:
    """(place of the last "answer is" or "A:", place of the answer after it), or (-1, -1) if there is none."""
    at = len(text)
    found = (-1, -1)
    while (at := lower.rfind("answer", 0, at)) >= 0:
        states = _STATES.match(lower, at + 6)
        if states and not _NO_MARKER.search(text, max(0, at - 20), at):
            found = at, states.end()
            break
    line = lower.rfind("\na:") + 1 if "\na:" in lower else 0 if lower.startswith("a:") else -1
    return (line, line + 2) if line > found[0] else found


def _line(behind: str) -> Final:
    """The first line after a marker that is not empty and not only a delimiter."""
    if "\n" not in behind and "<" not in behind and "}" not in behind:
        return Final(behind.strip(_EMPHASIS), True)
    lines = behind.split("\n", 6)
    for number, raw in enumerate(lines):
        line = _without_prefix(raw).strip(_EMPHASIS)
        if line and line not in _ONLY_DELIMITER:
            rest = "\n".join(lines[number + 1 :])
            doubt = "the text takes its answer back" if rest and TAKEN_BACK.search(rest[:LINE]) else ""
            if "<<" in line:
                line = _CALCULATION.sub("", line)
            if line.endswith("}") and "{" not in line:  # the brace ends a JSON object
                line = line[:-1].strip()
            return Final(line, True, 1, doubt)
    return Final("", True)


def _boxed(text: str, at: int) -> Final:
    r"""The content of the last \boxed{…}. Boxes beside each other are one answer: "\boxed{3} and \boxed{4}"."""
    opening = text.index("{", at)
    end = _closing(text, opening)
    if end < 0:
        return Final("", True)
    content = text[opening + 1 : end].strip()
    adjacent = _AFTER_BOX.match(text, end + 1, end + 1 + LINE)
    content += adjacent.group() if adjacent else ""
    behind = text[end + 1 : end + 1 + LINE]
    doubt = "the text takes its answer back" if TAKEN_BACK.search(behind) else ""
    start = at
    for _ in range(20):
        other = _last_box(text, start)
        if other < 0 or start - other > LINE:
            break
        opened = text.index("{", other)
        closed = _closing(text, opened)
        between = _BETWEEN_BOXES.fullmatch(text, closed + 1, start) if 0 <= closed < start else None
        if between is None:
            break
        joint = f" {between[1].lower()} " if between[1] else ", "
        content = text[opened + 1 : closed].strip() + joint + content
        start = other
    ahead = text[max(0, start - 12) : start]
    if _NOT_BEFORE.search(ahead):
        doubt = "the answer is negated or hedged"
    if _MINUS_BEFORE.search(ahead) and content[:1].isdigit():
        content = "-" + content
    return Final(" ".join(content.split()), True, 1, doubt)


def _closing(text: str, opening: int) -> int:
    """The place of the brace that closes the brace at `opening`. -1 if there is none."""
    depth = 0
    for brace in _BRACE.finditer(text, opening):
        depth += 1 if brace.group() == "{" else -1
        if not depth:
            return brace.start()
    return -1


_BRACE = re.compile(r"(?<!\\)[{}]")


def _without_prefix(line: str) -> str:
    line = line.strip()
    prefix = _PREFIX.match(line)
    return line[prefix.end() :] if prefix else line


def lines_of(text: str) -> list[str]:
    """The lines of a text without marks of emphasis. Empty lines and lines with only a delimiter are left out."""
    return [line for raw in text.split("\n") if (line := raw.strip(_EMPHASIS)) and line not in _ONLY_DELIMITER]


def _unmarked(text: str) -> Final | None:
    if "\n" not in text:
        line, count = _without_prefix(text), 1
    else:
        lines = lines_of(text)
        if not lines:
            return Final(text.split("\n", 1)[0].strip(), False)
        line, count = _without_prefix(lines[-1]), len(lines)
    if "<<" in line:
        line = _CALCULATION.sub("", line)
    if len(line) > LINE:
        cut = _SENTENCE.search(line, len(line) - LINE)
        if cut is None:
            return None
        line = line[cut.end() :]
    return Final(line, False, count)


_SENTENCE = re.compile(r"[.!?] +(?=[A-Z])")
