"""One-sided tests: a leak makes an effect larger than its null value, never smaller.

    measurement = OneSided(name, subject, about, unit, value, null, margin, …)
    judged(tests, "membership")      # Measurements, with Holm's correction

A leak is `found` if its corrected p-value is below 5%, and the effect exceeds the null value by at least the margin. A
leak is `absent` if the upper end of the 90% interval stays below null + margin, which is a test of level 5%. All other
results are `inconclusive`, so few rows never count as "no leak".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from synthgen.auditing.result import Measurement, Outcome
from synthgen.auditing.statistics import LEVEL, Estimate, holm

Bounds = tuple[float, float]
"""The two ends of an interval. NaN where there is no interval."""
_ANY = (-math.inf, math.inf)


@dataclass(frozen=True)
class OneSided:
    """One test. `value` is the effect, `null` its value without a leak, and `p` the one-sided p-value. `interval` is
    the 95% interval, and `upper` the upper end of the 90% interval. `span` has the smallest and the largest possible
    effect. Intervals are cut at these values. `n` counts rows or canaries. `why_not` says why the test cannot be done.
    In this case, `value` and the interval are shown, but the outcome is "not measurable".
    """

    name: str
    subject: str
    about: str
    unit: str
    value: float
    null: float
    p: float
    interval: Bounds
    upper: float
    margin: float
    n: int
    detectable: float = math.nan
    note: str = ""
    why_not: str = ""
    span: Bounds = _ANY

    @classmethod
    def of(
        cls,
        name: str,
        subject: str,
        about: str,
        effect: Estimate,
        *,
        unit: str,
        null: float,
        margin: float,
        note: str = "",
        why_not: str = "",
        span: Bounds = _ANY,
    ) -> OneSided:
        """A test of an estimate with a standard error. Without a standard error, the test cannot be done."""
        both = effect.p_value(null)
        return cls(
            name,
            subject,
            about,
            unit=unit,
            value=effect.value,
            null=null,
            p=both / 2 if effect.value > null else 1 - both / 2,
            interval=effect.interval(),
            upper=effect.interval(0.9)[1],
            margin=margin,
            n=effect.n,
            detectable=null + effect.detectable(margin),
            note=note,
            why_not=why_not or ("" if effect.measurable else "too few rows, or values that are not numbers"),
            span=span,
        )


def judged(tests: Sequence[OneSided], family: str) -> list[Measurement]:
    """The measurements of one family of tests, with Holm's correction for all tests that can be done."""
    done = [one for one in tests if not one.why_not]
    corrected = dict(zip(map(id, done), holm([one.p for one in done]).tolist(), strict=True))
    return [_measurement(one, family, corrected.get(id(one))) for one in tests]


def outcome(test: OneSided, corrected_p: float) -> Outcome:
    """The outcome of a test that can be done; the docstring of the module has the rule."""
    if corrected_p < LEVEL and test.value - test.null >= test.margin:
        return "found"
    return "absent" if test.upper < test.null + test.margin else "inconclusive"


def _measurement(test: OneSided, family: str, corrected: float | None) -> Measurement:
    low, high = (min(max(end, test.span[0]), test.span[1]) if math.isfinite(end) else end for end in test.interval)
    made = Measurement(
        name=test.name,
        subject=test.subject,
        about=test.about,
        unit=test.unit,
        outcome="not measurable",
        n=test.n,
        clusters=test.n,
        estimate=_number(test.value),
        low=_number(low),
        high=_number(high),
        null=test.null,
        family=family,
        margin=test.margin,
        note=test.why_not or test.note,
    )
    if corrected is None:
        return made
    return replace(
        made,
        outcome=outcome(test, corrected),
        p=test.p,
        corrected_p=corrected,
        detectable=_number(test.detectable),
    )


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
