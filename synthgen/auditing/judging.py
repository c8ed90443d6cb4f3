"""Judges each source of a corpus and a student by itself: which terms apply, and what they say about the use."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synthgen.auditing.algebra import Verdict, join
from synthgen.auditing.catalogue import Alternative, Catalogue, catalogue
from synthgen.auditing.combinations import Combination, Occurring, Term, occurring
from synthgen.auditing.result import FAILING, STATUSES, Status, Subject
from synthgen.auditing.rules import Role, verdict
from synthgen.auditing.waivers import Waived, counting
from synthgen.manifest import SourceTerms
from synthgen.recipe import AuditSection
from synthgen.recipe.exceptions import Permission, names
from synthgen.recipe.terms import Terms

UNSTATED = "unknown"
"""The id of the terms when no license is stated."""


@dataclass(frozen=True)
class Judgment:
    """The verdict on one source, the ids of the terms that were applied, the addresses of their texts, and notes."""

    verdict: Verdict
    terms: str
    notes: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Assessment:
    """The judgments about a corpus: the sets of sources in its rows, the sources that only the student has, the
    judgment of each source, and the waivers that are valid today.
    """

    occurring: Occurring
    of_student: tuple[Term, ...]
    judgments: Mapping[Term, Judgment]
    waived: Waived

    def fails(self, term: Term) -> bool:
        """Whether a source fails by itself, and no waiver covers this finding."""
        found = self.judgments[term]
        return found.verdict.status in FAILING and not self.waived.source(term, found.terms)


def assess(subject: Subject, section: AuditSection) -> Assessment:
    """Judge every source of every kept or rejected row, and the student's other sources, each by itself."""
    found = occurring(subject.corpus)
    of_student = tuple(sorted({term_of(one) for one in subject.of_student}))
    terms = {term for combination in (*found.kept, *found.rejected) for term in combination} | set(of_student)
    today = datetime.date.today()
    judgments = judge_all(terms, section, today, catalogue(section.terms))
    return Assessment(found, of_student, judgments, counting(section.waivers, today))


def term_of(source: SourceTerms) -> Term:
    """The facts that are judged, for a source in a manifest or of a student."""
    facts: dict[str, Any] = {**source}
    tools = tuple(facts.get("tools") or ())
    account, day = facts.get("account") or "", facts.get("terms_date") or ""
    return Term(source["source"], source["role"], source["license"], account, tools=tools, day=day)


def judge(term: Term, intent: AuditSection, today: datetime.date, book: Catalogue) -> Judgment:
    """Compare the terms of one source with the intended use.

    The terms of the license expression and the terms that the catalog has for the model apply. If there are several
    alternatives (`MIT OR Apache-2.0`), the alternative with the best status counts, and among equal statuses the
    alternative with the fewest obligations.
    """
    followed = (*book.followed(term.source), *book.followed(term.made_by))
    role = Role(term.role, term.account, term.tools)
    stated = [_distinct((*one, *followed)) for one in book.alternatives(term.license)]
    dated = [book.in_force(one, term.license, term.day) for one in stated]
    alternatives = [one for one, _ in dated]
    permissions = permissions_for(term, intent, today)
    about = [_About.of(one, term, book) for one in permissions]
    verdicts = [_verdict(one, role, intent, about) for one in alternatives]
    best = min(
        range(len(verdicts)), key=lambda n: (STATUSES.index(verdicts[n].status), len(verdicts[n].obligations), n)
    )
    names = " AND ".join(one.id for one in alternatives[best])
    notes = [*dated[best][1], *(note for one in alternatives[best] for note in _notes(one, today))]
    if followed and book.get(term.license).id == UNSTATED:
        known = " AND ".join(one.id for one in followed)
        notes.insert(0, f"the catalog has terms for this model: if they are yours, state '{known}'")
    if len(alternatives) > 1:
        notes.insert(0, f"of '{term.license}', {names} was chosen")
    texts = tuple(f"{one.id}: {one.source}" for one in alternatives[best] if one.source)
    return Judgment(verdicts[best], names, tuple(notes), texts)


def _distinct(terms: Alternative) -> Alternative:
    return tuple({one.id: one for one in terms}.values())


def permissions_for(term: Term, intent: AuditSection, today: datetime.date) -> tuple[Permission, ...]:
    """The permissions that are valid today and may be about this source."""
    about = (term.source, term.made_by)
    return tuple(
        one
        for one in intent.permissions
        if one.counts(today) and (not one.source or any(names(one.source, name) for name in about if name))
    )


@dataclass(frozen=True)
class _About:
    """The terms of a source to which a permission applies. `ids` are the ids of the terms that the permission names. If
    it names a contract, the ids of all versions of this contract are in `ids`. None stands for all terms. A permission
    that names no source applies to contracts alone, because many authors use the same license. `own` is true if the
    permission is for the source itself. If the permission is for the model that wrote the source, `own` is false: then
    the permission applies to the model's terms (`makers`) and to a contract that it names. Such a permission does not
    apply to the license of the source, because another person may hold the rights.
    """

    permission: Permission
    ids: frozenset[str] | None
    own: bool
    makers: frozenset[str]

    @classmethod
    def of(cls, permission: Permission, term: Term, book: Catalogue) -> _About:
        named = (book.in_force(one, "", "")[0] for one in book.alternatives(permission.terms))
        ids = frozenset(one.id for some in named for one in some) if permission.terms else None
        makers = book.in_force(book.followed(term.made_by), "", "")[0] if permission.source else ()
        return cls(permission, ids, _is_own(permission, term), frozenset(one.id for one in makers))

    def covers(self, terms: Terms) -> bool:
        if self.ids is not None and terms.id not in self.ids:
            return False
        return self.own or terms.id in self.makers or (terms.contract and self.ids is not None)


def _is_own(permission: Permission, term: Term) -> bool:
    """Whether a permission is for the source itself, and not for the model that wrote it or for a contract."""
    return bool(permission.source) and names(permission.source, term.source)


def _verdict(terms: Alternative, role: Role, intent: AuditSection, permissions: Sequence[_About]) -> Verdict:
    """The joined verdict of all these terms. If there are several terms, each reason names the terms that it comes
    from. `permissions` are about the source.
    """
    verdicts = []
    for one in terms:
        given = [about.permission for about in permissions if about.covers(one)]
        found = verdict(one, role, intent, given)
        named = frozenset(f"{one.id}: {reason}" for reason in found.reasons) if len(terms) > 1 else found.reasons
        verdicts.append(Verdict(found.status, found.obligations, named))
    if all(one.kind == "host" for one in terms):
        model = f"a host does not grant rights in a model: state both, as in '{terms[0].id} AND llama-3.1'"
        verdicts.append(Verdict("UNKNOWN", reasons=frozenset({model})))
    return join(verdicts)


def _notes(terms: Terms, today: datetime.date) -> tuple[str, ...]:
    """Notes about the text: that it must be read again, or was read only in part."""
    notes = []
    if terms.stale(today):
        kind = "contract" if terms.contract else "license"
        notes.append(f"{kind} text of {terms.id}, read {terms.age(today)} days ago: check for a newer one")
    if terms.confidence in ("medium", "low"):
        notes.append(f"the text of {terms.id} was not read in full")
    return tuple(notes)


def judge_all(
    terms: Iterable[Term], intent: AuditSection, today: datetime.date, book: Catalogue
) -> dict[Term, Judgment]:
    """The judgment of each source. Sources with the same judged facts are judged only once."""
    known: dict[tuple[object, ...], Judgment] = {}
    found: dict[Term, Judgment] = {}
    for term in terms:
        models = (book.followed(term.source), book.followed(term.made_by))
        ids = (tuple(t.id for t in some) for some in models)
        allowing = permissions_for(term, intent, today)
        own = tuple(_is_own(one, term) for one in allowing)
        key = (term.role, term.license, term.account, term.tools, term.day, allowing, own, *ids)
        if key not in known:
            known[key] = judge(term, intent, today, book)
        found[term] = known[key]
    return found


def status_of(combination: Combination, judgments: Mapping[Term, Judgment]) -> Status:
    """The status of a row with these sources. A row without sources is UNKNOWN."""
    return join({judgments[term].verdict for term in combination}).status if combination else "UNKNOWN"
