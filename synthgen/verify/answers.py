"""Reads an answer or a reference once, and compares two of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from synthgen.verify import mathematics
from synthgen.verify.arithmetic import evaluate
from synthgen.verify.choices import Choice, choice, several
from synthgen.verify.clocks import CLOCK, clock, date
from synthgen.verify.final import LIMIT, LINE, TAKEN_BACK, Final, after_reasoning, final, lines_of
from synthgen.verify.lists import Items, items, numeric
from synthgen.verify.lists import same as same_items
from synthgen.verify.notation import notation, symbolic
from synthgen.verify.quantities import Quantity, plain, whole
from synthgen.verify.sentences import quantity_in, sentences, settled
from synthgen.verify.spelling import clean, undress
from synthgen.verify.texts import TRUTHS, Words, clauses, denies, predicate, truth, without_reasons, words, words_of
from synthgen.verify.words import to_digits

_CONCLUSION = re.compile(r"[A-Z#$\\*(\d=]|(?:so|thus|hence|therefore|total)\b")
_TRUE_OR_FALSE = [(word,) for word in TRUTHS]
_LETTERS = re.compile(r"[A-Za-z]{2,}(?: [A-Za-z]{2,})*+")


@dataclass(frozen=True, slots=True)
class Reference:
    """The parts of a reference. At most one of `quantity`, `moment`, `items`, `choice` and `truth` is set, and this one
    decides whether an answer matches. `words` always holds the words of the reference. `moment` is a time or a date.
    `whole` is true for a text of several lines, which is compared as a whole.
    """

    line: str
    raw: str
    words: Words
    quantity: Quantity | None = None
    moment: str | None = None
    items: Items | None = None
    choice: Choice | None = None
    truth: str | None = None
    notation: str = ""
    whole: bool = False

    @property
    def wordy(self) -> bool:
        """Whether only the words are compared, and no number or expression."""
        return not (self.quantity or self.moment or self.items or self.choice or self.truth or self.notation)


@lru_cache(maxsize=8192)
def read(text: str) -> Reference | None:
    """Read a reference, or an answer that takes part in a vote. None if the text has no content."""
    found = final(text)
    if found is None or (not found.marked and (found.lines > 1 or len(text) > LINE)):
        return _concluded(found) or _several_lines(text)
    if not found.text.strip():
        return None
    raw = found.text.strip()
    digits = plain(raw)
    if digits and (found.marked or found.lines == 1):
        return Reference(raw, raw, (raw,), quantity=digits, notation=raw)
    if _LETTERS.fullmatch(raw) and " and " not in raw and to_digits(raw) == raw:
        spoken = words_of(raw)
        return Reference(raw, raw, spoken, truth=TRUTHS.get(spoken[0]) if len(spoken) == 1 else None)
    spelled = undress(clean(raw))
    if found.marked and "\\" not in raw:
        spelled = without_reasons(spelled)
    if spelled[:1] == "(" and spelled[-1:] == ")":
        value = evaluate(spelled)
        if value is not None:
            return Reference(spelled, raw, (spelled,), quantity=Quantity(value), notation=raw)
    line = to_digits(spelled)
    spoken = words_of(spelled)
    named = choice(spelled)
    if named and (not named.text or not found.marked):
        return Reference(line, raw, spoken, choice=named)
    moment = clock(line) or date(line)
    if moment:
        return Reference(line, raw, spoken, moment=moment)
    quantity = _reference_quantity(line, found)
    if quantity:
        return Reference(line, raw, spoken, quantity=quantity, notation=notation(raw))
    if len(spoken) == 1 and spoken[0] in TRUTHS:
        return Reference(line, raw, spoken, truth=TRUTHS[spoken[0]])
    written = notation(raw)
    parts = items(line)
    return Reference(line, raw, spoken or (raw,), items=parts, notation=written if symbolic(written) or parts else "")


def _concluded(found: Final | None) -> Reference | None:
    """A worked solution without a marker, whose last sentence concludes with a number. None for a text of several lines
    without such a conclusion, such as a program.
    """
    if found is None or not _CONCLUSION.match(found.text):
        return None
    raw = found.text.strip()
    line = to_digits(undress(clean(raw)))
    quantity = quantity_in(line)
    return Reference(line, raw, words_of(line), quantity=quantity, notation=notation(raw)) if quantity else None


def _several_lines(text: str) -> Reference | None:
    """A text of several lines, or with a very long line, is compared as a whole."""
    spoken = _all_words(text)
    return Reference(text, text, spoken, whole=True) if spoken else None


def _all_words(text: str) -> Words:
    rest = (after_reasoning(text) or "").strip()
    return words(rest) if len(rest) <= LIMIT else (rest,)


def _reference_quantity(line: str, found: Final) -> Quantity | None:
    """The quantity of a reference. "Apollo 11" has no quantity. "So she has 42 apples." ends a solution, so its
    quantity is 42 apples.
    """
    if re.search(r"\d!", line):
        return None
    bare = line[4:] if line[:4].lower() == "the " else line
    strict = whole(bare, strict=True) or _explained(bare)
    if strict or found.doubt:
        return strict
    concludes = found.marked or found.lines > 1 or re.search(r"(?<![<>!])=", line) or line.rstrip().endswith(".")
    return quantity_in(line) if concludes and any(char.isdigit() for char in line) else None


_ASIDE = re.compile(r"\s*\(([^()]*)\)$")


def _explained(line: str) -> Quantity | None:
    """The quantity before parentheses that repeat or explain it: "12 (twelve)"."""
    aside = _ASIDE.search(line)
    quantity = whole(line[: aside.start()], strict=True) if aside else None
    if aside is None or quantity is None or re.match(r"\s*(?:or|and|not)\b", aside[1]):
        return None
    again = whole(aside[1])
    return quantity if not any(char.isdigit() for char in aside[1]) or (again and quantity.same(again)) else None


def agree(answer: str, reference: Reference) -> bool:
    """Whether the final answer of a text equals the reference."""
    if reference.whole:
        return len(answer) <= 2 * len(reference.raw) + LINE and _all_words(answer) == reference.words
    found = final(answer)
    if found is None:
        return False
    raw = found.text.strip()
    if found.doubt:
        return False
    if reference.quantity and (found.marked or found.lines == 1):
        value = plain(raw)
        if value:
            return reference.quantity.same(value)
    if not found.marked and found.lines > 1:
        return _lines_agree(answer, found, undress(clean(raw)), reference)
    spelled = undress(clean(raw))
    if spelled.endswith("?") and not reference.line.endswith("?") and len(sentences(spelled)) == 1:
        return False
    if reference.quantity and spelled[:1] == "(":
        sum_of = evaluate(spelled.rstrip(". "))
        if sum_of is not None:
            return reference.quantity.same(Quantity(sum_of))
    spoken = words_of(spelled)
    if (spoken or (raw,)) == reference.words:
        return True
    if reference.wordy and f" {' '.join(reference.words)} " not in f" {' '.join(spoken)} ":
        return False
    if (
        reference.choice
        and found.marked
        and len(answer) <= LINE
        and "\n" not in answer.strip()
        and choice(spelled) is None
    ):
        named = choice(undress(clean(answer)))  # "A: Paris"
        if named and named.text and _choice_agrees(named, spelled, spelled, reference.choice):
            return True
    return _line_agrees(spelled, found, reference)


def _lines_agree(answer: str, found: Final, spelled: str, reference: Reference) -> bool:
    """Compare the line of the final answer. If an unmarked answer has several lines, its first line may be the answer,
    and the other lines explain it.
    """
    first = undress(clean(_first_line(answer)))
    if _is_short(first):
        if _is_short(spelled) and not _CONCLUDES.match(spelled) and words_of(first) != words_of(spelled):
            one, other = whole(to_digits(first)), quantity_in(to_digits(spelled))
            if one is None or other is None or not one.same(other):
                return False
        if words_of(first) == reference.words or _is_bare(to_digits(first)) or choice(first) or truth(first):
            kept = not _other_number(spelled, reference) and not TAKEN_BACK.search(answer[:LINE])
            return kept and _line_agrees(first, found, reference)
    return words_of(spelled) == reference.words or _line_agrees(spelled, found, reference)


def _is_short(line: str) -> bool:
    """Whether a line may be an answer by itself, and is not a heading, a step or a sentence."""
    most = 2 if line.endswith(".") else 3
    return len(line.split()) <= most and not line.endswith(":") and not _TITLE.fullmatch(line)


_CONCLUDES = re.compile(r"(?:so|thus|hence|therefore|total)\b", re.IGNORECASE)
_TITLE = re.compile(r"(?:final |the )?(?:answer|solution|result|conclusion|explanation|reasoning)", re.IGNORECASE)


def _first_line(answer: str) -> str:
    """The first line that is not a heading."""
    return next((line for line in lines_of(answer[: 2 * LINE]) if not line.startswith("# ") and "## " not in line), "")


def _is_bare(line: str) -> bool:
    return whole(line) is not None and not re.fullmatch(r"\d{1,2}\.", line.strip())


def _other_number(line: str, reference: Reference) -> bool:
    """Whether the last line of an answer gives another number than the reference."""
    if reference.quantity is None:
        return False
    last = quantity_in(to_digits(line))
    return last is not None and not reference.quantity.same(last)


def _line_agrees(spelled: str, found: Final, reference: Reference) -> bool:
    named = choice(spelled)
    if named and reference.wordy and words_of(named.text) == reference.words:
        return True
    line = to_digits(spelled)
    if reference.choice:
        return _choice_agrees(named, line, spelled, reference.choice)
    if named and named.text:
        line, spelled = to_digits(named.text), named.text
    if reference.quantity:
        given = quantity_in(line)
        if given is not None:
            return reference.quantity.same(given)
        return _calculated(found, reference)
    if reference.moment:
        return _moment_agrees(line, reference.moment)
    if reference.items:
        return _items_agree(line, found, reference)
    if reference.truth:
        said = truth(spelled)
        if said or words_of(spelled)[:1] in _TRUE_OR_FALSE:
            return said == reference.truth
    if _says(spelled, reference):
        return True
    return _calculated(found, reference)


def _says(line: str, reference: Reference) -> bool:
    """Whether a line in plain form says the words of the reference and no other answer."""
    expected = reference.words
    if denies(expected):
        lead = clauses_of_denial(line)
        return any(words_of(part) == expected for part in lead)
    if any(_same_words(part, reference) for part in clauses(line)):
        return True
    said = predicate(line)
    return said is not None and _same_words(said, reference)


def clauses_of_denial(line: str) -> list[str]:
    """The line itself, and the line without words such as "The answer is". A reference that is a denial is compared
    with both lines.
    """
    return [line, re.sub(r"^(?:it|this|that)(?:'s| is)\s+|^the answer is\s+", "", line, flags=re.IGNORECASE)]


def _same_words(part: str, reference: Reference) -> bool:
    said = words_of(part)
    if said == reference.words:
        return True
    return reference.truth is not None and len(said) == 1 and TRUTHS.get(said[0]) == reference.truth


def _choice_agrees(named: Choice | None, line: str, spelled: str, expected: Choice) -> bool:
    if named is None and several(spelled):
        return False
    if named is None:
        for part in clauses(spelled):
            named = choice(part)
            if named:
                break
    if named and expected.text and named.text:
        return named.letter == expected.letter and _overlap(named.text, expected.text)
    if named:
        return named.letter == expected.letter
    if not expected.text:
        said = predicate(spelled)
        return said is not None and choice(said) == expected
    inner = read(expected.text)
    return inner is not None and inner.choice is None and agree(line, inner)


def _overlap(one: str, other: str) -> bool:
    """Whether two texts for the same choice agree: they are equal, or one is a shorter form of the other."""
    mine, yours = words(one), words(other)
    if mine == yours:
        return True
    first, second = whole(to_digits(one)), whole(to_digits(other))
    if first and second:
        return first.same(second)
    short, long = sorted((mine, yours), key=len)
    return bool(short) and long[: len(short)] == short and not denies(long[len(short) :]) and "or" not in long


def _moment_agrees(line: str, moment: str) -> bool:
    kept = settled(line)
    if kept is None:
        return False
    if (clock(kept) or date(kept)) == moment:
        return True
    said = predicate(kept)
    if said and (clock(said) or date(said)) == moment:
        return True
    times = list(CLOCK.finditer(kept))
    return len(times) == 1 and clock(times[0].group()) == moment and " or " not in kept


def _items_agree(line: str, found: Final, reference: Reference) -> bool:
    expected = reference.items
    assert expected is not None
    said = predicate(line)
    undecided = False
    for part in [line, *clauses(line), *([said] if said else [])]:
        given = items(part)
        if given is None:
            continue
        if same_items(given, expected):
            return True
        undecided |= not (numeric(given) and numeric(expected))
    return (undecided or items(line) is None) and _calculated(found, reference)


def _calculated(found: Final, reference: Reference) -> bool:
    """Whether the answer is mathematics that equals the reference, by math-verify."""
    return mathematics.equal(found.text, reference.notation)
