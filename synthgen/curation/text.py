"""Checks on one row at a time: answer, length, repetition, refusal, truncation. Each returns a Verdict a row."""

from __future__ import annotations

import re
from collections.abc import Sequence

from synthgen.recipe import CurateSection
from synthgen.records import Record, Verdict
from synthgen.verify import gold, matches_any

_NGRAM = 4
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) sorry,? but|i apologi[sz]e,? but|i can(?:no|')t (?:help|assist|answer|provide|do that)|"
    r"i(?:'m| am) (?:not able|unable) to (?:help|assist|answer|provide)|as an ai\b|as a language model\b)",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 200  # characters: a refusal opens the completion


def answer(records: Sequence[Record], section: CurateSection) -> list[Verdict]:
    """Does the parsed answer match the reference? Score 1 or 0; rows without a reference pass unscored."""
    found = []
    for r in records:
        if not r.reference:
            found.append(Verdict(True, "answer"))
        elif not r.answer:
            found.append(Verdict(False, "answer", "no answer found in the completion", 0.0))
        elif matches_any(r.answer, r.reference):
            found.append(Verdict(True, "answer", score=1.0))
        else:
            found.append(
                Verdict(False, "answer", f"answer '{r.answer[:80]}' is not '{gold(r.reference[0])[:80]}'", 0.0)
            )
    return found


def length(records: Sequence[Record], section: CurateSection) -> list[Verdict]:
    """Words of the completion, within min_words and max_words."""
    low, high = section.min_words, section.max_words
    found = []
    for r in records:
        words = len(r.text.split())
        if low is not None and words < low:
            found.append(
                Verdict(False, "length", f"{words} words, fewer than {low}", words, "min_words", low, teaches="nothing")
            )
        elif high is not None and words > high:
            found.append(
                Verdict(
                    False, "length", f"{words} words, more than {high}", words, "max_words", high, teaches="nothing"
                )
            )
        else:
            found.append(Verdict(True, "length", score=words))
    return found


def repetition(records: Sequence[Record], section: CurateSection) -> list[Verdict]:
    """Share of 4-word sequences that stood before in the same completion."""
    limit = 1.0 if section.repetition is None else section.repetition
    found = []
    for r in records:
        words = r.text.lower().split()
        grams = [tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)]
        share = 1 - len(set(grams)) / len(grams) if grams else 0.0
        keep = share <= limit
        reason = "" if keep else f"{share:.0%} of 4-word sequences repeat, more than {limit:.0%}"
        found.append(Verdict(keep, "repetition", reason, share, threshold=limit, teaches="nothing"))
    return found


def refusal(records: Sequence[Record], section: CurateSection) -> list[Verdict]:
    """A completion that opens by declining."""
    found = []
    for r in records:
        hit = _REFUSAL.search(r.text[:_REFUSAL_WITHIN])
        found.append(Verdict(hit is None, "refusal", f"declines: '{hit.group()}'" if hit else ""))
    return found


def truncated(records: Sequence[Record], section: CurateSection) -> list[Verdict]:
    """Cut off by the token limit."""
    return [
        Verdict(
            r.finish_reason != "length", "truncated", "" if r.finish_reason != "length" else "cut off at max_new_tokens"
        )
        for r in records
    ]
