"""Finds rationales that mention an answer which their reader does not see, as in "as given in the hint".

A teacher that was shown the answer should write the rationale as if the teacher had not seen this answer. The phrases
are English. A phrase is ignored if the prompt itself mentions a hint or an answer, because the rationale may then refer
to this hint or answer.
"""

from __future__ import annotations

import re

from synthgen.records import Span

_GIVEN = (
    r"(?:given|provided|supplied|known|expected|desired|intended|target|stated|reference|official|gold(?:en)?|"
    r"gold[- ]standard|ground[- ]truth)"
)
_ANSWER = r"(?:(?:final|correct|right|true|numerical) )?(?:answer|solution)\b"
_THE = r"(?:the|this|that|your)"
# "the given answer choices", "the answer is given by the formula", "the answer given in the table"
_NO_ANSWER = (
    r"(?! (?:choices?|options?|sheets?|format|sets?|space|booklet|by|as|to be|that|if|"
    r"in the (?:table|text|passage|question|problem|paragraph)))"
)
_VALUE = r"(?=[\"'“(\d$\-]|(?-i:[A-E])\b)"  # an answer must follow, as in "is 42", not a description

HINTS = (
    r"\b(?:the|this|that|your|our|a) (?:\w+ )?hint (?:says?|said|states?|tells?|told|gives?|gave|suggests?|suggested|"
    r"indicates?|provided|given|above|was|is)\b",
    rf"\b(?:in|from|by|per|with|to|using|following|follows?|on|given|as) {_THE} (?:\w+ )?hint\b",
    r"\bas (?:\w+ )?hinted\b",
)
"""The phrases that name a hint."""

ANSWERS = (
    rf"\b{_THE} {_GIVEN} {_ANSWER}{_NO_ANSWER}",
    rf"\b{_THE} (?:(?:correct|right) )?answer,? (?:(?:that|which) )?(?:(?:was|is|has been|had been|we were|we are|"
    rf"i was) )?(?:already )?(?:given|provided|supplied|known)\b{_NO_ANSWER}",
    rf"\b(?:we|i|you)(?:['’]re| are| were|['’]ve been| have been| had been|['’]m| am| was) (?:already |also )?"
    rf"(?:told|given|informed|provided with) (?:that )?(?:what )?(?:the )?(?:\w+ )?(?:answer|solution)\b{_NO_ANSWER}",
    r"\byou (?:told|gave|showed) (?:me|us) (?:what )?the (?:\w+ )?(?:answer|solution)\b",
    rf"\b(?:we|i) (?:already |do )?know (?:that )?{_THE} (?:(?:correct|right|final) )?(?:answer|solution) "
    rf"(?:is|was|should be|must be) {_VALUE}",
    rf"\b(?:since|because|as|given that) {_THE} (?:correct|right|final) (?:answer|solution) "
    rf"(?:is|was|should be|must be) {_VALUE}",
    rf"\b(?:match(?:es|ing)?|agree(?:s|ing)? with|consistent with|confirms?) {_THE} (?:correct|right) {_ANSWER}",
    r"\bwork(?:ing|ed)? backwards? from the (?:\w+ )?(?:answer|solution)\b",
    r"\b(?:the|your) (?:answer|solution) key\b",
    r"\b(?:according to|as (?:given|stated|shown|provided) (?:in|by)|per) the reference\b"
    r"(?! (?:frame|points?|materials?|works?|books?|tables?|list|manual|guide|sections?|numbers?))",
)
"""The phrases that refer to an answer which was given. A phrase that only states the answer, such as "the correct
answer is 42", does not match."""

LIKELY = r"(?i)\bhint|\banswer|\bsolution|\breference"
"""An expression for Arrow that matches every text which has one of these phrases. This expression saves time: other
texts are not searched."""

_HINT, _GIVEN_ANSWER = (re.compile("|".join(phrases), re.IGNORECASE) for phrases in (HINTS, ANSWERS))
_ASKS_HINT = re.compile(r"\bhint", re.IGNORECASE)
_ASKS_ANSWER = re.compile(
    rf"\b(?:{_GIVEN}|proposed|suggested|student['’]?s?['’]?|candidate|model|sample|following|previous|their|his|her|my|"
    r"wrong|incorrect) (?:\w+ )?(?:answers?|solutions?|responses?)\b|\b(?:answer|solution) key\b|\breference\b|"
    r"\b(?:grade|verify|evaluate|judge|check|prove|show that|explain why|why is)\b",
    re.IGNORECASE,
)


def leak(rationale: str, prompt: str) -> Span | None:
    """Where a rationale mentions a hint or an answer that was given. A mention of a hint does not count if the prompt
    speaks of a hint. A mention of an answer does not count if the prompt is about an answer or asks for a check or
    proof. None if no mention counts.
    """
    for phrase, asked in ((_HINT, _ASKS_HINT), (_GIVEN_ANSWER, _ASKS_ANSWER)):
        found = phrase.search(rationale)
        if found and not asked.search(prompt):
            return {"start": found.start(), "stop": found.end()}
    return None
