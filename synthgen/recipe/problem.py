"""One problem of a recipe: a sentence, and the keys that it is about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A sentence about keys of a recipe, dotted, the most telling first. The first key that a file has gives the line.

    `named` is False when the sentence names its key itself; `urgent` problems are shown before others.
    """

    sentence: str
    keys: tuple[str, ...]
    named: bool = True
    urgent: bool = False

    @property
    def text(self) -> str:
        """The problem as one line."""
        return f"{self.keys[0] or 'recipe'}: {self.sentence}" if self.named else self.sentence
