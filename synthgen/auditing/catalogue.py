"""The catalog: the facts about licenses and terms in data/licenses.yaml and in a recipe's `audit.terms`. The catalog
finds the terms that a license expression or the name of a model stands for.
"""

from __future__ import annotations

import datetime
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from synthgen import durable
from synthgen.errors import UserError
from synthgen.recipe import shipped
from synthgen.recipe.terms import Terms

Alternative = tuple[Terms, ...]
"""Terms that apply together. A license expression with OR has several alternatives."""
_MOST = 64  # maximum number of alternatives of an expression


@dataclass(frozen=True)
class Catalogue:
    """All terms by their names in lower case, and all patterns of model names with the ids of the terms that apply.
    `model` matches every name that any of these patterns matches.
    """

    by_name: dict[str, Terms]
    models: tuple[tuple[str, tuple[str, ...]], ...]
    model: re.Pattern[str]

    def get(self, name: str) -> Terms:
        """The terms with this id or alias. If the catalog has no such terms, all facts about them are unknown."""
        return self.by_name.get(name.strip().lower()) or _unknown(name.strip())

    def followed(self, model: str) -> Alternative:
        """All terms that apply to a model, also the terms of the models that it was made from. Empty when the catalog
        does not have the model. `model` is a hub id or a name of an API, with or without `@` and a revision.
        """
        name = model.partition("@")[0].lower()
        if not self.model.match(name):
            return ()
        found = next(ids for pattern, ids in self.models if fnmatch.fnmatchcase(name, pattern))
        return self._joined(tuple(self.get(one) for one in found))

    def alternatives(self, license: str) -> tuple[Alternative, ...]:
        """The alternatives of a license expression, such as `MIT OR Apache-2.0`. Each alternative holds all terms that
        apply together, including the terms that the catalog joins with them. An expression that cannot be read, and a
        name that the catalog does not have, stand for unknown terms.
        """
        name = license.strip().lower()
        found = [(self.by_name[name],)] if name in self.by_name else _expression(license, self)
        return tuple(self._joined(one) for one in found)

    def in_force(self, terms: Alternative, stated: str, day: str) -> tuple[Alternative, list[str]]:
        """The versions of these terms that may have been in force on a day, and notes about them. The day is `""` when
        it is not known.

        If the day is not known, all versions of a contract in the catalog apply. On a day between two versions, both
        apply, because there may have been other versions between them. If the license expression `stated` names a
        version by its own id, only this version applies. For a license, the day does not matter, because the license
        holds for a copy as it was received.
        """
        found: list[Terms] = []
        notes: list[str] = []
        for one in terms:
            chain = self._versions(one) if one.contract and one.id.lower() not in stated.lower() else [one]
            newer = [other for other in chain if day and other.version > day]
            older = [other for other in chain if other not in newer]
            if len(chain) > 1:
                chain = chain if not day else [*newer[-1:], *older[:1]]
                notes += [f"in force were one or more of {', '.join(other.id for other in chain)}"] * (len(chain) > 1)
            if day and one.contract and not older:
                notes.append(f"the catalog does not have the version of {chain[-1].id} that was in force before it")
            found += chain
        return self._joined(tuple(found)), notes

    def _versions(self, terms: Terms) -> list[Terms]:
        """The given terms and all older versions of the same contract, the newest first."""
        found = [terms]
        while found[-1].supersedes and (older := self.get(found[-1].supersedes)) not in found:
            found.append(older)
        return found

    def missing(self, license: str) -> list[str]:
        """The names in a license expression that the catalog does not have."""
        terms = [one for alternative in self.alternatives(license) for one in alternative]
        return sorted({one.id for one in terms if one.id.lower() not in self.by_name})

    def ids(self) -> list[str]:
        """The ids of all terms, in the order of the catalog."""
        return list(dict.fromkeys(terms.id for terms in self.by_name.values()))

    def stale(self, today: datetime.date) -> list[Terms]:
        """The terms whose text must be read again, the oldest first."""
        terms = {one.id: one for one in self.by_name.values() if one.stale(today)}
        return sorted(terms.values(), key=lambda one: one.seen or "")

    def _joined(self, terms: Alternative) -> Alternative:
        found: dict[str, Terms] = {}
        waiting = list(terms)
        while waiting:
            one = waiting.pop(0)
            if one.id not in found:
                found[one.id] = one
                waiting += [self.get(name) for name in one.joined_with]
        return tuple(found.values())


def catalogue(own: Iterable[Terms] = ()) -> Catalogue:
    """The shipped catalog together with the user's `own` terms. Raises UserError when two terms have the same name."""
    shipped_terms, models, model = _shipped()
    by_name: dict[str, Terms] = {}
    for terms in (*shipped_terms, *own):
        for name in dict.fromkeys(name.lower() for name in (terms.id, *terms.aliases)):
            if name in by_name:
                raise UserError(f"two entries of the catalog of licenses have the name '{name}'", "rename yours")
            by_name[name] = terms
    return Catalogue(by_name, models, model)


@lru_cache
def catalogue_hash() -> str:
    """A hash of the shipped catalog."""
    return durable.sha256(shipped("data") / "licenses.yaml")


def stale_text(today: datetime.date | None = None) -> str:
    """Text for people: the shipped terms whose text must be read again, one in each line, the oldest first."""
    today = today or datetime.date.today()
    book = catalogue()
    stale, unread = book.stale(today), sum(book.get(name).confidence == "unread" for name in book.ids())
    lines = [f"{one.seen}  {one.age(today):>4} days  {one.id}  {one.source}" for one in stale]
    counted = f"{len(stale)} of {len(book.ids())} texts are to be read again; {unread} were never read"
    return "\n".join([*lines, counted])


@lru_cache
def _shipped() -> tuple[tuple[Terms, ...], tuple[tuple[str, tuple[str, ...]], ...], re.Pattern[str]]:
    """The terms of data/licenses.yaml, its patterns of models, and one pattern for all models."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # CSafeLoader is ten times as fast, but some builds lack it
    read = yaml.load((shipped("data") / "licenses.yaml").read_text(), loader)
    terms = tuple(Terms.model_validate(_with_place(entry, read["sources"])) for entry in read["terms"])
    models = tuple((pattern, tuple(row["terms"])) for row in read["models"] for pattern in row["models"])
    return terms, models, re.compile("|".join(fnmatch.translate(pattern) for pattern, _ in models))


def _with_place(entry: dict[str, Any], sources: dict[str, dict[str, str]]) -> dict[str, Any]:
    """The entry, completed with the address of its text and the date of the copy that was read."""
    name, _, rest = entry["source"].partition(":")
    return {"seen": sources[name]["seen"], **entry, "source": sources[name]["address"].format(rest)}


def _unknown(name: str) -> Terms:
    return Terms(
        id=name,
        kind="data",
        commercial_use="unknown",
        train_on_outputs="unknown",
        student_terms="contested",
        confidence="unread",
    )


def _expression(text: str, book: Catalogue) -> list[Alternative]:
    """The alternatives of a license expression, which the package license-expression reads."""
    from license_expression import ExpressionError, Licensing

    unknown: list[Alternative] = [(_unknown(text.strip()),)]
    try:
        tree = Licensing().parse(text)
        return _alternatives(tree, book) if tree is not None else unknown
    except (ExpressionError, _TooMany):
        return unknown


class _TooMany(Exception):
    """An expression has more than `_MOST` alternatives."""


def _alternatives(tree: Any, book: Catalogue) -> list[Alternative]:
    """The alternatives of a parsed expression. The alternatives of an OR are all alternatives of its parts. AND joins
    each alternative of one part with each alternative of the other parts. A name, with or without an exception
    (`WITH`), is one alternative.
    """
    from license_expression import AND, OR

    if not isinstance(tree, (AND, OR)):
        return [(book.get(str(tree)),)]
    parts = [_alternatives(part, book) for part in tree.args]
    if isinstance(tree, OR):
        return [one for part in parts for one in part]
    found: list[Alternative] = [()]
    for part in parts:
        found = [(*before, *one) for before in found for one in part]
        if len(found) > _MOST:
            raise _TooMany
    return found
