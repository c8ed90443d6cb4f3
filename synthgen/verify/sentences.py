"""Reads the single quantity that a sentence gives as its answer: 7 for "3 apples and 4 pears, so 7", and none for "15
or 20".
"""

from __future__ import annotations

import re

from synthgen.verify.clocks import CLOCK
from synthgen.verify.quantities import Quantity, leading, whole
from synthgen.verify.short import remembered

SENTENCE_END = re.compile(r"(?<![.\s][A-Za-z])(?<!\b[Nn]o)(?<!approx)[.!?。][\"')*\]]*\s+(?=[\"'(*\[$\\-]*[A-Z0-9])")
HEDGE = re.compile(
    r"\b(?:maybe|perhaps|possibly|probably|presumably|might|could be|may be|either|neither|unsure|not sure|uncertain|"
    r"unclear|unknown|unlikely|likely|wrong|incorrect|mistake|mistaken|mistakenly|(?:anything|all|everything) but|"
    r"except|other than|far from|(?:do not|don'?t|does not|doesn'?t|cannot|can'?t|can not) (?:know|tell|say|determine|"
    r"be determined)|guess(?:ing)?|if)\b|\?\s*$",
    re.IGNORECASE,
)
# Matches doubt in any sentence of a line.
UNSURE = re.compile(
    r"\b(?:not (?:sure|certain|confident)|unsure|uncertain|no idea|(?:do not|don'?t|doesn'?t|can'?t|cannot) "
    r"(?:know|tell|say|determine|decide)|only guess|i guess|a guess|doubt)\b",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"(?:\b(?:at least|at most|more than|less than|fewer than|greater than|up to|over|under|above|below|almost|nearly|"
    r"no more than|no less than|minimum of|maximum of|between|from|every|without|except)|[<>≤≥±]=?|!=)\s*[$€£]?\s*$",
    re.IGNORECASE,
)
_OR_BUT = re.compile(r"\bnot\s+[^,.;]{1,40}?,?\s+but\s+(?:rather\s+)?", re.IGNORECASE)
_NOT_BEHIND = re.compile(
    r"[,;]?\s+\(?(?:(?:and|but)\s+)?(?:not|rather than|instead of)\s+.*$", re.IGNORECASE | re.DOTALL
)
NEGATION = re.compile(
    r"\b(?:not|never|no|nor|cannot|isn't|aren't|wasn't|weren't|doesn't|don't|didn't|can't|won't)\b|n't\b", re.I
)
_PARENTHESES = re.compile(r"(?:^|\s)[(\[][^()\[\]]*+[)\]]")
_CHECK = re.compile(
    r"(?:check|verif|note|explanation|because|since|reason|proof|this|that|we|i |to |here|hope|let me|would you|do you|"
    r"feel free|if you|please|thank|is there|it follows|for |"
    r"source|step|as )",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"(?:\b(?:so|thus|hence|therefore|is|are|was|were|equals?|totals?|makes|gives|leaves|be|remain|costs?)\b,?|=>|->|:)\s*"
    r"(?:(?:about|approximately|approx|around|roughly|exactly|precisely|only|just|a total of|equal to|now|then|"
    r"still)\s+)*"
    r"(?=[-+]?\s?[$€£¥₹~≈]?\s?-?\.?\d)",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\s*(?:[,;]|--)?\s*\b(?:because|since|as|which|that|when|if|after|where|so that|given|due to|see|cf)\b|"
    r"\s*(?:;|--)\s*(?=[A-Za-z(])",
    re.IGNORECASE,
)
_NUMBER_ENDS = re.compile(r"$|[\s,;:?)\]}\"'…]|\.(?!\w)|--")
_PREPOSITION = re.compile(r"\s*(?:for|in|per|at|on|by|from|with|over|during|every|each|of|after)\b", re.IGNORECASE)
_IN_TIME = re.compile(
    r"\s*(?:for|in|per|over|during|every|after)\s+(?:the\s+)?\d+\s+(?:second|minute|hour|day|week|month|year)s?\b", re.I
)
_TAIL_REFUSED = re.compile(
    r"\s*(?:or\b|\+|±|to\s+\d|out of\s|of\s+\d++(?!\s+[a-z]{3})|/|\^|\*|"
    r"and\s+(?:a|an|one|half|\d)|times|plus|minus|[b-z]\b(?!')|a$)|\s*[:<>=]",
    re.IGNORECASE,
)
_LABEL_BEFORE = re.compile(
    r"(?:\b(?:question|step|page|chapter|room|number|no\.?|part|option|figure|table|section|line|exercise|problem|version|"
    r"equation|example|case|level|grade|type|item|rule|route|flight|gate|apollo|world war)\s+|#)$",
    re.IGNORECASE,
)
_FUNCTION_BEFORE = re.compile(
    r"\b(?:root|square|cube|log|ln|sin|cos|tan|exp|sqrt|twice|double|triple|half|reciprocal|inverse|opposite|factorial|"
    r"multiple|percent|multiples|factors?|remainder)\s+(?:of\s+)?$",
    re.IGNORECASE,
)
_PROPER_BEFORE = re.compile(r"[a-z0-9,]\s+([A-Z][a-z]+)\s+$")
_FIRST_WORD = re.compile(
    r"(?:total|answer|result|sum|value|final|it'?s|she|he|they|we|you|there|exactly|only|just|ans|in|on|at|by|since|about|"
    r"around|approximately|roughly|year|during|after|after all|yes|ok|okay)\b",
    re.IGNORECASE,
)
_DIGIT = re.compile(r"\d")
_NUMBER_AT = re.compile(r"(?<![-\w.,^_√|({\[])(?:[-+]\s?)?[$€£¥₹]?\s?-?\.?\d")
_EQUALS = re.compile(r"(?<![<>!=:~])=(?![=>])")
_CONCLUDED = re.compile(r"\b(?:so|thus|therefore|hence|then)\b,?\s*", re.IGNORECASE)
_SYMBOL = re.compile(r"[A-Za-z](?:_\{?\w+\}?)?(?:\([^()]*\))?'?")
_ALTERNATIVE = re.compile(r"\s*(?:,\s*)?\b(?:or|i\.?e\.?,?|aka)\b\s*|\s+(?=\(or)", re.IGNORECASE)


_WITHDRAWN = re.compile(r"\b(?:maybe|perhaps|possibly|or rather|wait|actually|correction|no,)", re.IGNORECASE)
_ASIDE = re.compile(r"\(\s*(?:or|i\.?e\.?,?|aka)\s+([^()]*)\)", re.IGNORECASE)


def sentences(line: str) -> list[str]:
    """The sentences of a line."""
    return [part for part in SENTENCE_END.split(line) if part.strip()]


def answering(line: str) -> str:
    """Of the sentences of a line, the last one that is not a check, a note or a reason."""
    return _last_answering(sentences(line), line)


def _last_answering(parts: list[str], line: str) -> str:
    while len(parts) > 1 and _CHECK.match(parts[-1].lstrip("*_(- ")):
        parts.pop()
    return parts[-1] if parts else line


def settled(sentence: str) -> str | None:
    """The sentence without the parts that it denies: "not 6 but 5" becomes "5", and "5, not 6" becomes "5". None if the
    rest contains a denial or a doubt.
    """
    text = _OR_BUT.sub("", sentence)
    if NEGATION.search(text):
        text = _NOT_BEHIND.sub("", text)
        if NEGATION.search(text):
            return None
    elif "ather than" in text or "nstead of" in text:
        text = _NOT_BEHIND.sub("", text)
    return None if HEDGE.search(text) else text


@remembered
def quantity_in(line: str) -> Quantity | None:
    """The quantity that a line gives as its answer. None if the line gives no quantity, several quantities, or a
    quantity with doubt.
    """
    found = whole(line)
    if found:
        return found
    if UNSURE.search(line):
        return None
    parts = sentences(line)
    if len(parts) > 1:
        first = whole(parts[0])
        if first and (not _enumerator(parts[0]) or _CHECK.match(parts[1])):
            return None if HEDGE.search(parts[0]) or _WITHDRAWN.search(" ".join(parts[1:])) else first
    return _quantity_of(_last_answering(parts, line), line)


def _enumerator(sentence: str) -> bool:
    return sentence.strip().rstrip(".").isdecimal() and len(sentence.strip()) <= 3


def _quantity_of(sentence: str, line: str) -> Quantity | None:
    """The quantity of `sentence`, which is the sentence of the line that answers. Callers must already know that the
    line as a whole is not a quantity.
    """
    text = settled(sentence)
    if text is None:
        return None
    text = CLOCK.sub(" (time) ", text)
    bare = " ".join(_PARENTHESES.sub(" ", text).split()) if "(" in text or "[" in text else text
    asides = [aside[1] for aside in _ASIDE.finditer(text)]
    if asides:
        return _agreed([_one(bare), *[whole(aside) for aside in asides]])
    for candidate in (bare, text) if bare.strip(" .") != text.strip(" .") else (text,):
        found = (whole(candidate) if candidate != line else None) or _equal_side(candidate)
        if found:
            return found
    if "=" in bare and _EQUALS.search(bare):
        bare = _CONCLUDED.split(bare)[-1]
        if _EQUALS.search(bare):
            return None
    alternatives = [part for part in _ALTERNATIVE.split(bare) if part.strip()]
    if len(alternatives) > 1:
        return _agreed([_one(part) for part in alternatives])
    return _one(bare)


def _agreed(found: list[Quantity | None]) -> Quantity | None:
    first = found[0]
    return first if first and all(other and first.same(other) for other in found[1:]) else None


def _equal_side(text: str) -> Quantity | None:
    """The last side of an equation whose first side has numbers, a symbol or words: "6 × 7 = 42 dollars for 7 days"."""
    if "=" not in text:
        return None
    sides = [side.strip() for side in _EQUALS.split(_CONCLUDED.split(text)[-1])]
    if len(sides) < 2 or not all(sides):
        return None
    if any(not whole(side) and not _SYMBOL.fullmatch(side) for side in sides[1:-1]):
        return None  # several equations
    if _SYMBOL.fullmatch(sides[-1]) and len(sides) == 2:
        sides.reverse()  # "12 = x"
    before = sides[-2]
    name = before if _SYMBOL.fullmatch(before) else ""
    tokens = before.split()
    if not name and tokens and _SYMBOL.fullmatch(tokens[-1]) and not _DIGIT.search(before):
        name = tokens[-1]  # "so x = 3"
    symbolic = re.search(r"\d\s*[A-Za-z]\s*(?:$|[-+*/^])|[A-Za-z]\s*[-+*/^]|\\", before)
    if symbolic and not name:
        return None
    found = whole(sides[-1]) or _checked(sides[-1])
    if found is None:
        return None
    first = whole(sides[0])
    operators = re.search(r"\d\s*[-+*/]\s*[(\d]", sides[-1])
    if operators and first and not first.same(found):
        return None
    single = name if len(name) == 1 else ""
    return Quantity(found.value, found.percent, found.unit, found.nouns, found.digits, single)


def _checked(text: str) -> Quantity | None:
    if "\\" in text:
        return None
    found = leading(text)
    return found[0] if found and _tail_agrees(text, found[1], found[2]) else None


def _tail_agrees(text: str, number_end: int, unit_end: int) -> bool:
    """Whether the words after a quantity give no other answer."""
    tail = text[unit_end:]
    if _TAIL_REFUSED.match(tail) or (unit_end == number_end and not _NUMBER_ENDS.match(tail)):
        return False
    if not _DIGIT.search(tail):
        return not re.match(r"[^,;.]*\bor\b", tail)
    if _REASON.match(tail):
        return True
    if re.match(r"\s*out of\b", tail):
        return False
    if _PREPOSITION.match(tail):
        return unit_end > number_end or _IN_TIME.match(tail) is not None
    words = re.match(
        r"[^\d]*?(?=\b(?:because|since|for|per|in|from|which|when|after|if|as|by|at|of the|each|so)\b)", tail
    )
    return words is not None and "," not in words.group() and " and " not in f"{words.group()} "


def _one(text: str) -> Quantity | None:
    """The quantity after the last cue ("so 7"), else the quantity at the start, else the only quantity of the text."""
    cue = next(reversed(list(_CUE.finditer(text))), None)
    if cue and not (cue.group().startswith(("->", "=>")) and _DIGIT.search(text[: cue.start()])):
        return _checked(text[cue.end() :])
    if "\\" in text:
        return None
    found = leading(text)
    if found:
        return found[0] if _tail_agrees(text, found[1], found[2]) else None
    places = [match.start() for match in _NUMBER_AT.finditer(text)]
    if not places:
        return None
    before = text[: places[0]]
    if (
        _LABEL_BEFORE.search(before)
        or _FUNCTION_BEFORE.search(before)
        or _BOUND.search(before)
        or before.rstrip().endswith(("^", "_", "/", "*", "+"))
    ):
        return None
    proper = _PROPER_BEFORE.search(before)
    single = re.fullmatch(r"\s*([A-Z][a-z]+)\s+", before)
    if proper or (single and not _FIRST_WORD.match(single[1])):
        return None
    return _checked(text[places[0] :].lstrip())
