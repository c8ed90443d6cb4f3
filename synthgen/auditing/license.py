"""The license audit: what the licenses of all sources say about an intended use. This is not legal advice: the audit
only reports what the license texts say.

`catalogue` holds the facts, `rules` judges one source, and `algebra` joins verdicts. A row gets the worst status of its
sources, and DENY when the obligations of two of its sources cannot be met together. So does the corpus as a whole.
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from synthgen.auditing.algebra import Conflict, Verdict, conflicts, duties_of, join
from synthgen.auditing.catalogue import Alternative, Catalogue, catalogue
from synthgen.auditing.combinations import Combination, Occurring, Term, occurring
from synthgen.auditing.result import STATUSES, AuditResult, Finding, Status, Subject
from synthgen.auditing.rules import Role, verdict
from synthgen.manifest import SourceTerms
from synthgen.recipe import AuditSection
from synthgen.recipe.terms import Terms

CONFLICT = "conflict"
"""The role of a finding about several sources whose obligations cannot be met together."""
UNSTATED = "unknown"
"""The id of the terms that stand for no license."""
_MOST_BLAMED = 100  # sets of sources in the figure `blame`
_NAMED = 3  # sources that a finding about a conflict names for each license


@dataclass(frozen=True)
class Judgment:
    """The verdict on one source, the ids of the terms that were applied, and notes and addresses of their texts."""

    verdict: Verdict
    terms: str
    notes: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Assessment:
    """What the licenses of a corpus say: the sets of sources that occur in its rows, the sources that only the student
    has, and the judgment of each source.
    """

    occurring: Occurring
    of_student: tuple[Term, ...]
    judgments: Mapping[Term, Judgment]


def assess(subject: Subject, section: AuditSection) -> Assessment:
    """Judge every source of every kept or rejected row, and the student's other sources, each by itself."""
    found = occurring(subject.corpus)
    of_student = tuple(sorted({term_of(one) for one in subject.of_student}))
    terms = {term for combination in (*found.kept, *found.rejected) for term in combination} | set(of_student)
    return Assessment(
        found, of_student, judge_all(terms, section, datetime.date.today(), catalogue(section.terms))
    )


def audit_licenses(subject: Subject, section: AuditSection) -> AuditResult:
    """Judge every source of every kept or rejected row, and the student's other sources, alone and together.

    The figure `rows` is the number of rows with each status; a row without sources is UNKNOWN. The figure `blame` maps
    each smallest set of sources that fails the audit to the number of rows that have at least one of them; it has the
    100 sets with the most rows.
    """
    assessment = assess(subject, section)
    judgments, combined = assessment.judgments, assessment.occurring.every
    together = join({judgment.verdict for judgment in judgments.values()})
    disputed = _between_sources(together, judgments)
    findings = [finding(term, judgments[term]) for term in sorted(judgments)]
    findings += [_conflict(one, judgments) for one in disputed]
    rows = _status_of_rows(combined, judgments)
    status: Status = max([together.status, *rows], key=STATUSES.index)
    blame = _blame(disputed, judgments, combined)
    return AuditResult(status, tuple(findings), {"rows": dict(sorted(rows.items())), "blame": blame})


def term_of(source: SourceTerms) -> Term:
    """What is judged of a source of a manifest or a student."""
    facts: dict[str, Any] = {**source}
    tools = tuple(facts.get("tools") or ())
    return Term(source["source"], source["role"], source["license"], facts.get("account") or "", tools=tools)


def judge(term: Term, intent: AuditSection, today: datetime.date, book: Catalogue) -> Judgment:
    """Compare the terms of one source with the intended use.

    The terms are those of the license expression, and those that the catalog has for the model. Of several
    alternatives (`MIT OR Apache-2.0`) the one with the best status counts, and then the one with fewer obligations.
    """
    followed = (*book.followed(term.source), *book.followed(term.made_by))
    role = Role(term.role, term.account, term.tools)
    alternatives = [_distinct((*one, *followed)) for one in book.alternatives(term.license)]
    verdicts = [_verdict(one, role, intent) for one in alternatives]
    best = min(
        range(len(verdicts)), key=lambda n: (STATUSES.index(verdicts[n].status), len(verdicts[n].obligations), n)
    )
    names = " AND ".join(one.id for one in alternatives[best])
    notes = [note for one in alternatives[best] for note in _notes(one, today)]
    if followed and book.get(term.license).id == UNSTATED:
        known = " AND ".join(one.id for one in followed)
        notes.insert(0, f"the catalog has terms for this model: if they are yours, state '{known}'")
    if len(alternatives) > 1:
        notes.insert(0, f"of '{term.license}', {names} was chosen")
    texts = tuple(f"{one.id}: {one.source}" for one in alternatives[best] if one.source)
    return Judgment(verdicts[best], names, tuple(notes), texts)


def _distinct(terms: Alternative) -> Alternative:
    return tuple({one.id: one for one in terms}.values())


def _verdict(terms: Alternative, role: Role, intent: AuditSection) -> Verdict:
    """What all these terms say together. With several terms, each reason names its own."""
    verdicts = []
    for one in terms:
        found = verdict(one, role, intent)
        named = frozenset(f"{one.id}: {reason}" for reason in found.reasons) if len(terms) > 1 else found.reasons
        verdicts.append(Verdict(found.status, found.obligations, named))
    if all(one.kind == "host" for one in terms):
        model = f"a host does not grant rights in a model: state both, as in '{terms[0].id} AND llama-3.1'"
        verdicts.append(Verdict("UNKNOWN", reasons=frozenset({model})))
    return join(verdicts)


def _notes(terms: Terms, today: datetime.date) -> tuple[str, ...]:
    """Notes about the text: it is to be read again, or it was read in part."""
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
    """The judgment of each source. Sources that differ in nothing that is judged are judged once."""
    known: dict[tuple[object, ...], Judgment] = {}
    found: dict[Term, Judgment] = {}
    for term in terms:
        models = (book.followed(term.source), book.followed(term.made_by))
        key = (term.role, term.license, term.account, term.tools, *(tuple(t.id for t in some) for some in models))
        if key not in known:
            known[key] = judge(term, intent, today, book)
        found[term] = known[key]
    return found


def finding(term: Term, judgment: Judgment) -> Finding:
    """The judgment of a source, for the report."""
    found = judgment.verdict
    obligations = tuple(dict.fromkeys(one.text for one in sorted(found.obligations)))
    return Finding(
        source=term.source,
        role=term.role,
        terms=judgment.terms,
        status=found.status,
        reasons=tuple(sorted(found.reasons)),
        obligations=obligations,
        notes=judgment.notes,
        texts=judgment.texts,
    )


def _between_sources(together: Verdict, judgments: Mapping[Term, Judgment]) -> list[Conflict]:
    """The conflicts between sources, without those inside one source."""
    inside = {one for verdict in {j.verdict for j in judgments.values()} for one in conflicts(verdict.obligations)}
    return [one for one in conflicts(together.obligations) if one not in inside]


def _sources_of(conflict: Conflict, judgments: Mapping[Term, Judgment]) -> dict[str, list[Term]]:
    """For each license of a conflict: the sources with an obligation of this license that is part of the conflict."""
    found: dict[str, list[Term]] = defaultdict(list)
    for term in sorted(judgments):
        for _, name in duties_of(judgments[term].verdict) & conflict.duties:
            found[name].append(term)
    return found


def _conflict(conflict: Conflict, judgments: Mapping[Term, Judgment]) -> Finding:
    named = []
    for _, terms in sorted(_sources_of(conflict, judgments).items()):
        names = list(dict.fromkeys(term.source for term in terms))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        named.append(", ".join(names[:_NAMED]) + more)
    repair = "leave one of them out, or keep them apart in two corpora and two students"
    return Finding(
        " + ".join(named), CONFLICT, " + ".join(sorted(conflict.of)), "DENY", (conflict.reason,), notes=(repair,)
    )


def status_of(combination: Combination, judgments: Mapping[Term, Judgment]) -> Status:
    """The status of a row with these sources. A row without sources is UNKNOWN."""
    return join({judgments[term].verdict for term in combination}).status if combination else "UNKNOWN"


def _status_of_rows(combined: Counter[Combination], judgments: Mapping[Term, Judgment]) -> Counter[Status]:
    """The number of rows with each status."""
    rows: Counter[Status] = Counter()
    known: dict[frozenset[int], Status] = {}
    for combination, count in combined.items():
        verdicts = frozenset(id(judgments[term]) for term in combination)  # few judgments are shared by many sources
        if verdicts not in known:
            known[verdicts] = status_of(combination, judgments)
        rows[known[verdicts]] += count
    return rows


def _blame(
    disputed: list[Conflict], judgments: Mapping[Term, Judgment], combined: Counter[Combination]
) -> dict[str, float]:
    """Each smallest set of sources that fails the audit → the number of rows that have at least one of them."""
    sets: dict[str, set[Term]] = defaultdict(set)
    for term, judgment in judgments.items():
        if judgment.verdict.status in ("UNKNOWN", "DENY"):
            sets[f"{term.source} ({term.role}, {judgment.terms})"].add(term)
    for one in disputed:
        sets[" + ".join(sorted(one.of))] |= {term for terms in _sources_of(one, judgments).values() for term in terms}
    labels: dict[Term, list[str]] = defaultdict(list)
    for label, terms in sets.items():
        for term in terms:
            labels[term].append(label)
    rows: Counter[str] = Counter(dict.fromkeys(sorted(sets), 0))
    for combination, count in combined.items():
        for label in {label for term in combination for label in labels.get(term, ())}:
            rows[label] += count
    return dict(rows.most_common(_MOST_BLAMED))
