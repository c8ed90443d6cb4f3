"""Counterfactual swaps: names and pronouns in a text are replaced by their counterparts in data/swaps.yaml.

Names form pairs, and each name is replaced by the other name of its pair, so swapping twice restores the names. Two
English pronouns are ambiguous. "her" becomes "his" before a noun phrase and "him" elsewhere. "his" becomes "her" before
a noun phrase and "hers" elsewhere.
"""

from __future__ import annotations

import re
from functools import lru_cache

import yaml

from synthgen.recipe import shipped

_WORD = re.compile(r"[A-Za-z]+(?:'(?!s\b)[A-Za-z]+)*")


@lru_cache
def _pairs() -> tuple[dict[str, str], dict[str, str], frozenset[str]]:
    """Read data/swaps.yaml. Returns (counterpart of each name, counterpart of each other word in lower case, words that
    do not begin a noun phrase when they follow "her" or "his").
    """
    found = yaml.safe_load((shipped("data") / "swaps.yaml").read_text(encoding="utf-8"))
    names: dict[str, str] = {}
    words: dict[str, str] = {}
    for into, pairs in ((names, found["names"]), (words, found["words"])):
        for a, b in pairs:
            into |= {a: b, b: a}
    return names, words | found["one_way"], frozenset(found["after_object"])


def swap(text: str) -> str:
    """Replace every listed name and pronoun by its counterpart."""
    names, words, after_object = _pairs()

    def other(match: re.Match[str]) -> str:
        word = match.group()
        if word in names:
            return names[word]
        low = word.lower()
        if low in ("her", "his"):
            rest = text[match.end() :]
            follower = re.match(r"\s+([A-Za-z]+)", rest)
            owns = follower is not None and follower.group(1).lower() not in after_object
            new = {"her": "his" if owns else "him", "his": "her" if owns else "hers"}[low]
        else:
            new = words.get(low, word)
        return _like(new, word) if new is not word else word

    return _WORD.sub(other, text)


def _like(new: str, old: str) -> str:
    """Give `new` the letter case of `old`."""
    if len(old) > 1 and old.isupper():
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
