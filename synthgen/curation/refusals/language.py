"""The kinds of phrases that each module of a language holds, and the form of a text in which they are searched.

Each expression is searched in one sentence in the form of `simple`: lower case, straight apostrophes, no marks of
Markdown, and contractions of English written out ("can't" is "cannot").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

_CONTRACTIONS = re.compile(r"\b(?:can(?:'t| not)|cant|won't|ain't)\b|n't\b|(?<=\bi)'m\b|(?<=[a-z])'(?:d|ll|ve|s)\b")
_WRITTEN = {
    "can't": "cannot", "can not": "cannot", "cant": "cannot", "won't": "will not", "ain't": "am not", "n't": " not",
    "'m": " am", "'d": " would", "'ll": " will", "'ve": " have", "'s": " is",
}  # fmt: skip
_SAME = str.maketrans({mark: "'" for mark in "’‘ʼ`´＇"} | dict.fromkeys("*_#>~\u200b\ufeff")) | {ord("，"): ","}
_CHINESE = "\u3400-\u9fff"
_BETWEEN = re.compile(rf"(?<=[{_CHINESE}，。])\s+|\s+(?=[{_CHINESE}])")


def simple(sentence: str) -> str:
    """The sentence in the form in which the expressions are searched."""
    text = " ".join(sentence.lower().translate(_SAME).split())
    text = _CONTRACTIONS.sub(lambda found: _WRITTEN[found.group()], text)
    return text if text.isascii() else _BETWEEN.sub("", text)


@dataclass(frozen=True, kw_only=True)
class Language:
    """The expressions of one language."""

    starts: str
    """An expression for Arrow that matches the beginning of a text that declines, in lower case."""
    speaks: tuple[str, ...]
    """A text that declines has one of these words, which stand for the writer, their rules or the request."""
    denies: tuple[str, ...]
    """A text that declines also has one of these words or parts of words. `starts`, `speaks` and `denies` save time:
    other texts are not searched."""
    declines: tuple[str, ...]
    """The writer says that they cannot or will not do something."""
    idioms: str
    """Expressions that begin like an expression of `declines` and mean something else. These expressions are matched at
    the place where `declines` matched."""
    openers: str
    """The words that may stand before the refusal in the same sentence, and the beginnings of sentences that may stand
    before this sentence."""
    everything: str
    """Words that decline the whole request and not a part of it. Such words are matched at the place where the sentence
    declines."""
    although: str
    """Words that begin a subordinate clause before the main clause."""
    contrast: str
    """Words after which a clause or sentence still gives an answer."""
    weak: str
    """A weak sign of a refusal: the writer says that they cannot or will not do something of any kind. This sign counts
    only if `support` is found in the same sentence or in the next two sentences.
    """
    support: str
    """What assistants say when they decline: an apology, what they are, or why the request is bad."""
    closing: str
    """A sentence after a refusal that does not answer: a reason, an offer, advice to ask somebody else."""
    free_order: bool = False
    """Whether an object may stand before the verb, so that a few words of any kind may stand before a refusal."""

    @cached_property
    def found(self) -> re.Pattern[str]:
        """Any of `declines`."""
        return re.compile("|".join(f"(?:{pattern})" for pattern in self.declines))

    @cached_property
    def compiled(self) -> dict[str, re.Pattern[str]]:
        """The expressions other than `declines`, by their names."""
        names = ("idioms", "openers", "everything", "although", "contrast", "closing", "weak", "support")
        return {name: re.compile(getattr(self, name)) for name in names}
