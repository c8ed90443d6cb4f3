"""Waivers: findings that a named person accepts. These findings keep their verdicts, but do not close the gate.

A waiver covers a finding that it names by source and terms. A waiver covers a conflict between licenses only if it
names that conflict. A note names each waiver that has ended or that covers nothing, and each permission without an
effect.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from synthgen.auditing.algebra import Conflict
from synthgen.auditing.combinations import Term
from synthgen.auditing.result import FAILING, Finding
from synthgen.recipe.exceptions import CONFLICT, Covered, Permission, Waiver, names

_AND = " + "  # separates the licenses of a conflict in reports


@dataclass(frozen=True)
class Waived:
    """The waivers that are valid today."""

    waivers: tuple[Waiver, ...] = ()

    def source(self, term: Term, terms: str) -> bool:
        """Whether a waiver covers the finding about the source of `term`. `terms` is the name of the license or terms
        in the finding.
        """
        return any(_covers_source(one, term.source, term.role, terms) for one in self._covered())

    def conflict(self, conflict: Conflict) -> bool:
        """Whether a waiver covers this conflict."""
        return any(_covers_conflict(one, conflict.of) for one in self._covered())

    def _covered(self) -> Iterator[Covered]:
        for waiver in self.waivers:
            yield from waiver.covers


def counting(waivers: Sequence[Waiver], today: datetime.date) -> Waived:
    """The waivers that are valid today."""
    return Waived(tuple(one for one in waivers if one.counts(today)))


def marked(findings: Sequence[Finding], waivers: Sequence[Waiver], today: datetime.date) -> list[Finding]:
    """The findings. A finding that fails and that a waiver covers is marked with the text of the waiver."""
    found = []
    for one in findings:
        texts = [
            waiver.text()
            for waiver in waivers
            if waiver.counts(today) and one.status in FAILING and any(_covers(part, one) for part in waiver.covers)
        ]
        found.append(replace(one, waived="; ".join(texts)) if texts else one)
    return found


def remarks(findings: Sequence[Finding], waivers: Sequence[Waiver], today: datetime.date) -> tuple[str, ...]:
    """Notes on waivers that have no effect, or that cover only a part of what they name."""
    notes = []
    for waiver in waivers:
        if not waiver.counts(today):
            notes.append(f"the waiver of {waiver.name} does not count: it {_when(waiver, today)}")
            continue
        for part in waiver.covers:
            if not any(one.status in FAILING and _covers(part, one) for one in findings):
                about = f"'{part.source}' ({part.terms})" if part.source else f"the conflict {part.terms}"
                notes.append(f"the waiver of {waiver.name} covers no finding about {about}")
    return tuple(notes)


def idle(reasons: Collection[str], permissions: Sequence[Permission], today: datetime.date) -> tuple[str, ...]:
    """Notes on permissions that have no effect. `reasons` are the reasons of all verdicts. If a permission has an
    effect, one of these reasons begins with the permission's text.
    """
    notes = []
    for one in permissions:
        about = " and ".join(part for part in (one.source and f"'{one.source}'", one.terms) if part)
        if not one.counts(today):
            notes.append(f"the permission of {one.granted_by} for {about} does not count: it {_when(one, today)}")
        elif not any(reason.startswith(one.text()) for reason in reasons):
            notes.append(f"the permission of {one.granted_by} for {about} changes no verdict")
    return tuple(notes)


def _when(one: Waiver | Permission, today: datetime.date) -> str:
    return f"ended on {one.until}" if one.ended(today) else f"begins on {one.date}"


def _covers(part: Covered, finding: Finding) -> bool:
    if finding.role == CONFLICT:
        return _covers_conflict(part, frozenset(finding.terms.split(_AND)))
    return _covers_source(part, finding.source, finding.role, finding.terms)


def _covers_conflict(part: Covered, licenses: frozenset[str]) -> bool:
    named = {name.strip().lower() for name in part.terms.split(_AND.strip())}
    return part.role == CONFLICT and named == {name.lower() for name in licenses}


def _covers_source(part: Covered, source: str, role: str, terms: str) -> bool:
    if part.role not in ("", role) or part.role == CONFLICT:
        return False
    return names(part.source, source) and part.terms.lower() == terms.lower()
