"""A problem of a recipe: a sentence, and the keys that it concerns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """A sentence about dotted keys of a recipe. `keys` are ordered by relevance, and the problem is reported on the
    line of the first key that the file contains.

    `named` says whether the message must begin with the key; it is False when the sentence itself names the key.
    Problems whose `urgent` is true are shown first.
    """

    sentence: str
    keys: tuple[str, ...]
    named: bool = True
    urgent: bool = False

    @property
    def text(self) -> str:
        """The problem as one line."""
        return f"{self.keys[0] or 'recipe'}: {self.sentence}" if self.named else self.sentence
