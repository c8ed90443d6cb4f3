"""Exceptions from what the audit finds: a permission of the rights holder, and a decision of your own to go on.

A permission changes the verdict, because it allows something that the terms forbid. A waiver changes no verdict. A
waiver records that a named person accepts a finding, and the gate of training then opens.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from synthgen.recipe.terms import Day
from synthgen.tables.section import Rule, Section

Action = Literal["train", "share_data", "release_weights", "serve"]
CONFLICT = "conflict"
"""The role of a finding about several sources whose obligations cannot be met together."""


def names(stated: str, source: str) -> bool:
    """Whether the name of a source in an exception stands for this source. A model may be named with or without its
    revision.
    """
    return stated in (source, source.partition("@")[0])


class _Dated(Section):
    """The keys that a permission and a waiver share."""

    date: Day
    """The day on which the permission or waiver was given. The exception is valid from this day on."""
    until: Day | None = None
    """The last day on which the exception is valid. When left out, the exception does not end."""

    @property
    def who(self) -> str:
        """The person or company that gave the permission or the waiver."""
        raise NotImplementedError

    def counts(self, today: datetime.date) -> bool:
        """Whether the exception is valid today."""
        return self.date <= today.isoformat() and not self.ended(today)

    def ended(self, today: datetime.date) -> bool:
        """Whether the last day of the exception is over."""
        return self.until is not None and self.until < today.isoformat()

    def rules(self) -> Iterator[Rule]:
        for key in ("name", "reason", "granted_by"):
            if not getattr(self, key, key).strip():
                yield key, f"'{key}' is blank"
        for key in ("date", "until"):
            try:
                datetime.date.fromisoformat(getattr(self, key) or "2000-01-01")
            except ValueError:
                yield key, f"'{key}' is not a day of the calendar"


class Covered(Section):
    """A finding, as report.md lists it."""

    source: str = ""
    """The source, with or without `@` and its revision. Left out if the finding is a conflict."""
    role: str = ""
    """The role of the source. When left out, the finding may have every role except `conflict`. `conflict`: the finding
    is about several licenses.
    """
    terms: Annotated[str, Field(min_length=1)]
    """The terms, as the report names them."""

    def rules(self) -> Iterator[Rule]:
        if (self.role == CONFLICT) == bool(self.source):
            yield "source", "a finding has a source, and a conflict has none"


class Waiver(_Dated):
    """A decision to continue despite findings."""

    name: Annotated[str, Field(min_length=1)]
    """Who decided."""
    reason: Annotated[str, Field(min_length=1)]
    """Why."""
    covers: Annotated[tuple[Covered, ...], Field(min_length=1)]
    """The findings that are accepted."""

    @property
    def who(self) -> str:
        return self.name

    def text(self) -> str:
        """The waiver as one line of text for people."""
        end = f", until {self.until}" if self.until else ""
        return f"waived by {self.name} on {self.date}{end}: {self.reason}"


class Permission(_Dated):
    """A written permission of a rights holder."""

    granted_by: Annotated[str, Field(min_length=1)]
    """Who gave the permission."""
    source: str = ""
    """The source that the permission is about, with or without `@` and its revision. Without this key, the permission
    is about all models under the contract that `terms` names.
    """
    terms: str = ""
    """The license or contract from which the permission is an exception. When left out, the permission is about all
    terms of the source.
    """
    allows: Annotated[tuple[Action, ...], Field(min_length=1)]
    """The actions that the permission allows."""

    @property
    def who(self) -> str:
        return self.granted_by

    def rules(self) -> Iterator[Rule]:
        yield from super().rules()
        if not (self.source or self.terms):
            yield "source", "a permission names a source, or the terms of a contract"

    def text(self) -> str:
        """For people."""
        return f"{self.granted_by} gave permission on {self.date}"
