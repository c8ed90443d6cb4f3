"""Decides which rows of a corpus may be used together as intended, and why each of the other rows may not.

First, a row is left out if its own sources do not pass. The obligations of the remaining rows may still conflict. Then
the rows on one side of each conflict are left out. These sides are chosen so that as few as possible of the rows that
curation kept are left out. The result is a decision on each set of sources; see `synthgen.auditing.combinations`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from synthgen.auditing.algebra import Conflict, Duties, Duty, Verdict, between, duties_of, join
from synthgen.auditing.combinations import Combination, Occurring, Term
from synthgen.auditing.judging import Assessment, Judgment
from synthgen.auditing.sides import Choice, Weight, choose, total
from synthgen.errors import GateDenied

_NAMED = 3  # maximum number of sources that a reason names
NO_SOURCES = "the row names no sources, so its licenses are not known"


@dataclass(frozen=True)
class Allowed:
    """The decision. `assessment` has the judgments of all sources, without the rows. `left_out` maps each obligation
    whose rows were left out to the reason. `sides` says in words which rows were left out, and how many they were.
    """

    assessment: Assessment
    left_out: Mapping[tuple[Duty, str], str] = field(default_factory=dict)
    sides: tuple[str, ...] = ()

    def reason(self, combination: Combination) -> str | None:
        """Why a row with these sources is left out, or None if it stays."""
        alone = _alone(combination, self.assessment)
        if alone is not None or not self.left_out:
            return alone
        duties = {duty for term in combination for duty in duties_of(self.assessment.judgments[term].verdict)}
        return "; ".join(self.left_out[duty] for duty in sorted(duties & self.left_out.keys())) or None


def allowed(assessment: Assessment) -> Allowed:
    """Decide which rows may stay.

    Raises GateDenied when no choice of rows passes, because the student's own sources do not pass.
    """
    judgments = assessment.judgments
    alone = replace(assessment, occurring=Occurring(Counter(), Counter()))
    fixed = join(judgments[term].verdict for term in assessment.of_student)
    if why := _alone(assessment.of_student, assessment) if assessment.of_student else None:
        raise _unrepairable(why)
    rows: dict[frozenset[Verdict], Weight] = {}
    for one in dict.fromkeys((*assessment.occurring.kept, *assessment.occurring.rejected)):
        if _alone(one, assessment) is None:
            verdicts = frozenset(judgments[term].verdict for term in one)
            rows[verdicts] = total([rows.get(verdicts, (0, 0)), weight_of(one, assessment)])
    different = {judgments[term].verdict for term in assessment.of_student}.union(*rows)
    found = [one for one in between(different) if not assessment.waived.conflict(one)]
    return _sides(alone, found, rows, fixed) if found else Allowed(alone)


def weight_of(combination: Combination, assessment: Assessment) -> Weight:
    """The number of kept and of rejected rows with these sources."""
    return assessment.occurring.kept[combination], assessment.occurring.rejected[combination]


def _alone(combination: Combination, assessment: Assessment) -> str | None:
    """Why a row with these sources is left out, or None if it stays."""
    if not combination:
        return NO_SOURCES
    judgments = assessment.judgments
    failing = [term for term in combination if assessment.fails(term)]
    if failing:
        return _blamed(failing, judgments)
    found = _between(frozenset(judgments[term].verdict for term in combination))
    return "; ".join(one.reason for one in found if not assessment.waived.conflict(one)) or None


@lru_cache(maxsize=1 << 16)
def _between(verdicts: frozenset[Verdict]) -> list[Conflict]:
    return between(verdicts)


def _blamed(terms: Collection[Term], judgments: Mapping[Term, Judgment]) -> str:
    """Which sources fail, and why, in one line."""
    parts = []
    for term in list(dict.fromkeys(terms))[:_NAMED]:
        found = judgments[term]
        reasons = "; ".join(sorted(found.verdict.reasons))
        parts.append(f"{found.verdict.status} for '{term.source}' ({term.role}, {found.terms}): {reasons}")
    return " | ".join(parts)


def _sides(
    assessment: Assessment,
    found: list[Conflict],
    rows: Mapping[frozenset[Verdict], Weight],
    fixed: Verdict,
) -> Allowed:
    """Leave out some of the rows that pass by themselves, so that the other rows pass together."""
    disputed: Duties = frozenset().union(*(one.duties for one in found))
    weights: dict[Duties, Weight] = {}
    for verdicts, weight in rows.items():
        duties = frozenset().union(*map(duties_of, verdicts)) & disputed
        weights[duties] = total([weights.get(duties, (0, 0)), weight])
    choice = choose([one.duties for one in found], weights, duties_of(fixed) & disputed)
    if choice is None:
        raise _unrepairable("; ".join(one.reason for one in found))
    reasons = {duty: _reason(duty, found, choice) for duty in choice.left_out}
    return Allowed(
        assessment, reasons, tuple(_in_words(duty, found, weights, choice) for duty in sorted(choice.left_out))
    )


def _of_duty(duty: tuple[Duty, str], found: list[Conflict]) -> list[Conflict]:
    return [one for one in found if duty in one.duties]


def _reason(duty: tuple[Duty, str], found: list[Conflict], choice: Choice) -> str:
    """Why the rows with this obligation are left out."""
    ended = [one.reason for one in _of_duty(duty, found) if not one.duties & (choice.left_out - {duty})]
    reasons = ended or [one.reason for one in _of_duty(duty, found)]
    return f"left out for the sake of the other rows: {'; '.join(reasons)}"


def _in_words(duty: tuple[Duty, str], found: list[Conflict], weights: Mapping[Duties, Weight], choice: Choice) -> str:
    gone = total(weight for duties, weight in weights.items() if duty in duties)
    reasons = "; ".join(one.reason for one in _of_duty(duty, found))
    most = "no other choice keeps more rows" if choice.proven else "there are too many choices to try them all"
    return f"left out {gone[0]:,} kept rows under {duty[1]}, because {reasons}; {most}"


def _unrepairable(why: str) -> GateDenied:
    return GateDenied(
        f"no choice of rows passes the audit, because of what the student is made from: {why}",
        "train a student from another checkpoint or teacher, or change what is intended (see audit/report.md)",
    )
