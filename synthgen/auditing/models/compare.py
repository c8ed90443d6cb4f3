"""The measurements of models, of the differences between them, and of what a student inherits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from synthgen.auditing.models.effects import Effect
from synthgen.auditing.result import Measurement, Outcome
from synthgen.auditing.statistics import Array, Estimate, Planned, judged, outcome

SEEDS = 3
"""With fewer training seeds than this number, a difference holds only for the seeds that were used."""
INHERITED_MARGIN = 0.2
"""The smallest inherited share of a teacher's bias that matters."""


Subjects = Sequence[tuple[str, Effect]]
"""Pairs of the name of a subject, such as "student", and an effect of this subject."""


def measurements(effects: Subjects, family: str) -> list[Measurement]:
    """The measurements of `effects`, with p-values that are corrected for the number of tests.

    An effect of BBQ is found, or absent, only if both ways to score say so. The effect's p-value is the greater of the
    two p-values, which tests the hypothesis that at least one of the two effects is zero (Berger, Technometrics 24,
    1982).
    """
    tested = [(subject, one, one.estimates()) for subject, one in effects if not one.why_not]
    done = judged([_planned(*three) for three in tested], family)
    agreed = iter([_agreed(one, three[1], three[2]) for one, three in zip(done, tested, strict=True)])
    return [_not_measurable(one, subject, family) if one.why_not else next(agreed) for subject, one in effects]


def _planned(subject: str, effect: Effect, estimates: Sequence[Estimate]) -> Planned:
    same = len({np.sign(one.value) for one in estimates}) == 1
    p = max(one.p_value() for one in estimates) if same else 1.0
    return Planned(
        name=effect.name,
        subject=subject,
        about=effect.about,
        unit=effect.unit,
        effect=estimates[0],
        margin=effect.margin,
        note=_note(effect, estimates),
        p=p,
    )


def _note(effect: Effect, estimates: Sequence[Estimate]) -> str:
    seeds = len(effect.values)
    notes = [effect.note] if effect.note else []
    if len(estimates) > 1:
        low, high = estimates[1].interval()
        notes.append(f"by pointwise mutual information {estimates[1].value:+.3f} [{low:+.3f}, {high:+.3f}]")
    if seeds > 1:
        each = ", ".join(f"{value:+.3f}" for value in effect.values.mean(1))
        notes.append(f"seeds: {each}" + ("" if seeds >= SEEDS else "; too few seeds to speak of others"))
    return "; ".join(notes)


def _agreed(done: Measurement, effect: Effect, estimates: Sequence[Estimate]) -> Measurement:
    """The measurement of an effect. If the estimates of the effect have different outcomes, the outcome is "not
    measurable" if one of them is, and otherwise "inconclusive".
    """
    corrected = 1.0 if done.corrected_p is None else done.corrected_p
    outcomes: list[Outcome] = [done.outcome, *(outcome(one, corrected, effect.margin) for one in estimates[1:])]
    if len(set(outcomes)) > 1:
        unknown = "not measurable" in outcomes
        return replace(done, outcome="not measurable" if unknown else "inconclusive")
    return done


def _not_measurable(effect: Effect, subject: str, family: str) -> Measurement:
    """The measurement of an effect that says nothing about bias. The numbers of the effect are reported without a
    test.
    """
    first = effect.estimates()[0]
    low, high = first.interval()
    numbers = first.value, low, high, first.detectable(effect.margin)
    value, low_, high_, detectable = (float(one) if np.isfinite(one) else None for one in numbers)
    return Measurement(
        name=effect.name,
        subject=subject,
        about=effect.about,
        unit=effect.unit,
        outcome="not measurable",
        n=first.n,
        clusters=first.clusters,
        estimate=value,
        low=low_,
        high=high_,
        family=family,
        detectable=detectable,
        margin=effect.margin,
        note=effect.why_not,
    )


def differences(first: Sequence[Effect], second: Sequence[Effect]) -> list[Effect]:
    """The effects of the first model minus the effects of the second model, item by item. The second model has only one
    training seed.
    """
    others = {one.name: one for one in second}
    return [_minus(one, others[one.name]) for one in first if one.name in others]


def _minus(a: Effect, b: Effect) -> Effect:
    pmi = None if a.by_pmi is None or b.by_pmi is None else a.by_pmi - b.by_pmi
    about = f"the difference of: {a.about}"
    why_not, span = a.why_not or b.why_not, 2 * a.span
    return replace(a, about=about, values=a.values - b.values, by_pmi=pmi, note="", why_not=why_not, span=span)


def inheritance(student: Sequence[Effect], untrained: Sequence[Effect], teacher: Sequence[Effect]) -> list[Measurement]:
    """ρ = (b(student) − b(untrained)) / (b(teacher) − b(untrained)) for each effect: 0 when training changes nothing, 1
    when the student gets all of the teacher's bias, more than 1 when the student amplifies this bias. The ratio is
    measurable only if the 95% interval of the denominator excludes 0. For BBQ, the interval must exclude 0 in both ways
    to score.
    """
    gained = {one.name: one for one in differences(student, untrained)}
    apart = {one.name: one for one in differences(teacher, untrained)}
    ratios = [_ratio(gained[name], apart[name]) for name in gained if name in apart]
    return measurements([("inheritance", one) for one in ratios], "inheritance")


def _ratio(gained: Effect, apart: Effect) -> Effect:
    """The effect ρ. The values of the effect come from linearization, so their mean is ρ."""
    why_not = gained.why_not or apart.why_not
    if not why_not and not all(_excludes_zero(one) for one in apart.estimates()):
        why_not = "the teacher and the untrained student do not differ clearly, so there is nothing to inherit"
    by_sum = _linear(gained.values, apart.values)
    by_pmi = None if gained.by_pmi is None or apart.by_pmi is None else _linear(gained.by_pmi, apart.by_pmi)
    if why_not:  # a ratio is meaningless if its denominator may be zero
        by_sum, by_pmi = np.full_like(by_sum, np.nan), None
    about = "what training changed in the student, as a share of the difference between teacher and untrained student"
    return replace(
        gained,
        about=about,
        unit="share",
        margin=INHERITED_MARGIN,
        values=by_sum,
        by_pmi=by_pmi,
        why_not=why_not,
        span=0,
    )


def _linear(numerators: Array, denominators: Array) -> Array:
    middle = denominators.mean()
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = numerators.mean() / middle
        return (numerators - ratio * denominators) / middle + ratio


def _excludes_zero(found: Estimate) -> bool:
    low, high = found.interval()
    return bool(found.measurable and (low > 0 or high < 0))


def compared(
    student: Sequence[Effect], untrained: Sequence[Effect] | None, teacher: Sequence[Effect] | None
) -> list[Measurement]:
    """The measurements of each model, of the differences between the student and the other models, and of inheritance.
    None stands for a model that the recipe does not name. All differences are one family of tests.
    """
    found = measurements([("student", one) for one in student], "student")
    others = {"untrained student": untrained, "teacher": teacher}
    changes: list[tuple[str, Effect]] = []
    for name, effects in others.items():
        if effects is not None:
            found += measurements([(name, one) for one in effects], name)
            changes += [(f"student minus {name}", one) for one in differences(student, effects)]
    found += measurements(changes, "differences")
    if untrained is not None and teacher is not None:
        found += inheritance(student, untrained, teacher)
    return found
