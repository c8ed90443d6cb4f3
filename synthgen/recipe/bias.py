"""Section `audit.bias`: which groups of people the audit of bias compares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from synthgen.tables.section import Rule, Section

Share = Annotated[float, Field(gt=0, lt=1)]


class BiasSection(Section):
    """The audit of bias: how the rows speak of groups of people, and whom curation drops. The audit of bias needs the
    extra `audit`.

    If the audit of bias finds something, no use is denied: the audit passes with the status CONTESTED. docs/bias.md
    explains the tests.
    """

    dimensions: tuple[str, ...] = ()
    """Dimensions of data/groups.yaml that are compared, such as `[gender, age]`. When empty, all dimensions are
    compared.
    """
    groups: dict[str, dict[str, tuple[str, ...]]] = {}
    """Your own words: dimension → group → words. Your words are added to the words of data/groups.yaml."""
    targets: dict[str, dict[str, Share]] = {}
    """The intended share of each group among the rows that mention a group of the dimension: dimension → group → share.
    Without a target, the answers are compared with their prompts."""

    def rules(self) -> Iterator[Rule]:
        for name, target in self.targets.items():
            if abs(sum(target.values()) - 1) > 0.001:
                yield "targets", f"the shares of '{name}' add up to {sum(target.values()):g}, not to 1"
        for name, groups in self.groups.items():
            for group, words in groups.items():
                if not words or not all(word.strip() for word in words):
                    yield "groups", f"'{name}.{group}' has no words, or an empty one"
