"""The license audit: what the licenses of all sources say about an intended use. This is not legal advice: the audit
only reports what the license texts say.

`catalogue` holds the facts, `rules` and `judging` judge one source, and `algebra` joins verdicts. A row gets the worst
status of its sources, or DENY when the obligations of two of its sources cannot be met together. The corpus as a whole
is judged in the same way.
"""

from __future__ import annotations

import datetime
from collections import Counter, defaultdict
from collections.abc import Mapping

from synthgen.auditing.algebra import Conflict, between, duties_of, join
from synthgen.auditing.catalogue import catalogue
from synthgen.auditing.combinations import Combination, Term
from synthgen.auditing.judging import Assessment, Judgment, assess, status_of
from synthgen.auditing.repairs import repairs
from synthgen.auditing.result import FAILING, STATUSES, AuditResult, Finding, Status, Subject, worst
from synthgen.auditing.waivers import idle, marked, remarks
from synthgen.errors import nearest
from synthgen.recipe import AuditSection
from synthgen.recipe.exceptions import CONFLICT

_MOST_BLAMED = 100  # maximum number of sets of sources in the figure `blame`
_NAMED = 3  # a finding about a conflict names at most this many sources for each license


def audit_licenses(subject: Subject, section: AuditSection) -> AuditResult:
    """Judge every source of every kept or rejected row, and the student's other sources, alone and together.

    The figure `rows` is the number of rows with each status; a row without sources is UNKNOWN. The figure `blame` has
    the smallest sets of sources that fail the audit, and maps each set to the number of rows with at least one source
    of the set. `blame` has only the 100 sets with the most rows.
    """
    assessment = assess(subject, section)
    judgments, combined = assessment.judgments, assessment.occurring.every
    together = join({judgment.verdict for judgment in judgments.values()})
    disputed = between({judgment.verdict for judgment in judgments.values()})
    findings = list(dict.fromkeys(finding(term, judgments[term]) for term in sorted(judgments)))
    findings += [_conflict(one, judgments) for one in disputed]
    rows = _status_of_rows(combined, judgments)
    status: Status = max([together.status, *rows], key=STATUSES.index)
    blame = _blame(disputed, judgments, combined)
    figures: dict[str, dict[str, float]] = {"rows": dict(sorted(rows.items())), "blame": blame}
    today = datetime.date.today()
    reasons = {reason for judgment in judgments.values() for reason in judgment.verdict.reasons}
    counts = _without_waived(assessment, disputed) if section.waivers else status
    return AuditResult(
        status,
        tuple(marked(findings, section.waivers, today)),
        figures,
        repairs=repairs(assessment, section) if counts in FAILING else (),
        notes=(
            *remarks(findings, section.waivers, today),
            *idle(reasons, section.permissions, today),
            *_unasked(section),
        ),
        counts=counts,
    )


def _unasked(section: AuditSection) -> tuple[str, ...]:
    """Notes on providers in `audit.competes` that change nothing, for example because the name is misspelt."""
    if isinstance(section.competes, str):
        return ()
    every = catalogue(section.terms).by_name.values()
    asks = (terms for terms in every if terms.train_on_outputs == "noncompete" or terms.unless_competing)
    asking = sorted({terms.family.lower() for terms in asks if terms.family})
    unknown = (name for name in section.competes if name.lower() not in asking)
    return tuple(
        f"audit.competes names '{name}', but no terms ask whether a student competes with it{nearest(name, asking)}"
        for name in unknown
    )


def _without_waived(assessment: Assessment, disputed: list[Conflict]) -> Status:
    """The status when each finding that a waiver covers counts as CONTESTED."""
    statuses: list[Status] = [
        "CONTESTED" if judgment.verdict.status in FAILING and not assessment.fails(term) else judgment.verdict.status
        for term, judgment in assessment.judgments.items()
    ]
    statuses += ["CONTESTED" if assessment.waived.conflict(one) else "DENY" for one in disputed]
    statuses += ["UNKNOWN"] if () in assessment.occurring.every else []
    return worst(statuses)


def finding(term: Term, judgment: Judgment) -> Finding:
    """The judgment of a source, for the report."""
    found = judgment.verdict
    obligations = dict.fromkeys((one.duty, one.text) for one in sorted(found.obligations))
    return Finding(
        source=term.source,
        role=term.role,
        terms=judgment.terms,
        status=found.status,
        reasons=tuple(sorted(found.reasons)),
        obligations=tuple(text for _, text in obligations),
        notes=judgment.notes,
        texts=judgment.texts,
        duties=tuple(duty for duty, _ in obligations),
    )


def _sources_of(conflict: Conflict, judgments: Mapping[Term, Judgment]) -> dict[str, list[Term]]:
    """For each license of a conflict: the sources whose obligations from this license are part of the conflict."""
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


def _status_of_rows(combined: Counter[Combination], judgments: Mapping[Term, Judgment]) -> Counter[Status]:
    """The number of rows with each status."""
    rows: Counter[Status] = Counter()
    known: dict[frozenset[int], Status] = {}
    for combination, count in combined.items():
        verdicts = frozenset(id(judgments[term]) for term in combination)  # many sources share one judgment
        if verdicts not in known:
            known[verdicts] = status_of(combination, judgments)
        rows[known[verdicts]] += count
    return rows


def _blame(
    disputed: list[Conflict], judgments: Mapping[Term, Judgment], combined: Counter[Combination]
) -> dict[str, float]:
    """The smallest sets of sources that fail the audit, each with the number of rows that have a source of the set."""
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
