"""The loss statement of a student: what the student lost or gained, compared with its teacher and its base. The base is
the untrained student.

    statement = statement_of(run / "student", evaluation.kind, evaluation.statement)
    statement.entries[0].minus_teacher            # Interval(-0.05, -0.09, -0.01): five points lost

The evaluation measures most dimensions, and stores them in evaluation.json. The audits of a student measure privacy and
bias, and store the results in their report. Only the function `statement_of` joins both. The card and the page show the
statement that it returns, so they show the same values. `statement_text` writes a statement in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from synthgen.results.audit import Measurement, StoredAudit, audits_of_student
from synthgen.results.measures import Interval, Value
from synthgen.tables.dimensions import DIMENSIONS
from synthgen.tables.students import KINDS

NOT_EVALUATED = "the student was not evaluated; “distill eval” evaluates it"
_OLDER = "the evaluation was made by an older version without loss statements; “distill eval” measures it"
_NOT_AUDITED = "no audit of the student measured it; “synthgen audit STUDENT” does, if the recipe sets “audit.{key}”"
FEWEST = 8
"""The minimum number of independent groups of rows for a verdict on a difference. With fewer groups, the intervals are
too narrow. If the differences of all G groups have the same sign, the bootstrap's interval excludes zero. If the models
do not differ, this happens with the probability 2·0.5^G, which is 0.8% for 8 groups.
"""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One measure of one dimension.

    `dimension` is a key of DIMENSIONS, `measure` is the name of the measure with its unit, and `format` is a key of
    `synthgen.results.measures.FORMATS`. `better` is "higher" or "lower", or "" if neither higher nor lower values are
    better. `teacher`, `base` and `student` are the values of the three models. `minus_teacher` and `minus_base` are the
    paired differences: the student's value minus the other model's value, on the same rows. If a value has no interval,
    it is a number. The student was measured on `n` rows in `groups` independent groups, and `unit` says what a row is.
    `note` says how the measure is computed. `missing` maps "teacher", "base" or "student" to the reason why this model
    has no value.
    """

    dimension: str
    measure: str
    format: str = "number"
    better: Literal["higher", "lower", ""] = ""
    teacher: Value = None
    base: Value = None
    student: Value = None
    minus_teacher: Value = None
    minus_base: Value = None
    n: int = 0
    groups: int = 0
    unit: str = ""
    note: str = ""
    missing: dict[str, str] = field(default_factory=dict)

    def valued(self, values: Mapping[str, Value]) -> Entry:
        """A copy of this entry with values for these fields."""
        return replace(
            self,
            teacher=values.get("teacher"),
            base=values.get("base"),
            student=values.get("student"),
            minus_teacher=values.get("minus_teacher"),
            minus_base=values.get("minus_base"),
        )


@dataclass(frozen=True)
class Statement:
    """What a student lost or gained. `not_measured` maps a dimension without entries to the reason. `models` says what
    "teacher" and "base" are.
    """

    entries: list[Entry] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def completed(self, kind: str, reason: str) -> Statement:
        """A copy of this statement in which each missing dimension has a reason. The reason is in the field
        `not_stated` of the student's kind in KINDS. If it is not there, the reason is `reason`. Dimensions that audits
        measure are left out.
        """
        named = {one.dimension for one in self.entries} | self.not_measured.keys()
        cannot = KINDS[kind].not_stated if kind in KINDS else {}
        more = {
            name: cannot.get(name, reason) for name, one in DIMENSIONS.items() if name not in named and not one.audit
        }
        return _ordered(self.entries, {**self.not_measured, **more}, self.models)


def _ordered(entries: Iterable[Entry], not_measured: Mapping[str, str], models: dict[str, str]) -> Statement:
    """A copy of the statement, sorted in the order of DIMENSIONS. Dimensions that are not in this table come last."""
    order = {name: place for place, name in enumerate(DIMENSIONS)}
    reasons = sorted(not_measured.items(), key=lambda one: order.get(one[0], len(order)))
    return Statement(sorted(entries, key=lambda one: order.get(one.dimension, len(order))), dict(reasons), models)


def statement_of(folder: Path, kind: str, evaluated: Statement | None) -> Statement:
    """The whole statement of the student in `folder`. `kind` is the kind of the student. `evaluated` is the statement
    of its evaluation, or None if there is no evaluation. The entries of the audits that measured the student after its
    training are added. In the result, each key of DIMENSIONS has an entry or a reason.

    Raises CorpusError when the report of an audit is damaged.
    """
    found = (evaluated or Statement()).completed(kind, NOT_EVALUATED if evaluated is None else _OLDER)
    audits = audits_of_student(folder)
    cannot = KINDS[kind].not_stated if kind in KINDS else {}
    entries, reasons = list(found.entries), dict(found.not_measured)
    for name, dimension in DIMENSIONS.items():
        if dimension.audit:
            measured = next(filter(None, (_measurements(audit, dimension.audit) for audit in audits)), [])
            audited = entries_of(name, measured)
            entries += audited
            if not audited:
                reasons[name] = _why_not(measured) or cannot.get(name, _NOT_AUDITED.format(key=dimension.audit))
    return _ordered(entries, reasons, found.models)


_SUBJECTS = {"student": "student", "teacher": "teacher", "untrained student": "base"}
_DIFFERENCES = {"student minus teacher": "minus_teacher", "student minus untrained student": "minus_base"}
"""The subject of a measurement in an audit → the field of an entry."""


def _measurements(audit: StoredAudit, name: str) -> list[Measurement]:
    """The measurements of an audit that are about a model."""
    about = {**_SUBJECTS, **_DIFFERENCES}
    return [one for one in (audit.audits[name].measurements if name in audit.audits else ()) if one.subject in about]


def entries_of(dimension: str, measurements: Iterable[Measurement]) -> list[Entry]:
    """An entry for each test of an audit that measured the student. Tests without a number for the student are left
    out.
    """
    tests: dict[str, dict[str, Measurement]] = {}
    for one in measurements:
        tests.setdefault(one.name, {})[one.subject] = one
    found = []
    for name, by_subject in tests.items():
        student = by_subject.get("student")
        if student is None or _value(student) is None:
            continue
        values = {key: _value(by_subject.get(subject)) for subject, key in {**_SUBJECTS, **_DIFFERENCES}.items()}
        is_share = student.unit.startswith("share")
        entry = Entry(
            dimension=dimension,
            measure=name if is_share or not student.unit else f"{name}, {student.unit}",
            format="percent" if is_share else "number",
            n=student.n,
            groups=student.clusters,
            unit="items",
            note=student.about,
            missing={
                key: (by_subject[subject].note if subject in by_subject else "") or "the audit did not measure it"
                for subject, key in _SUBJECTS.items()
                if values[key] is None
            },
        )
        found.append(entry.valued(values))
    return found


def _value(one: Measurement | None) -> Value:
    """The value of a test. None if the test could not be done. Such a test can have numbers too, which say nothing
    about its subject: a model that guesses has a score, for example.
    """
    if one is None or one.estimate is None or one.outcome == "not measurable":
        return None
    return one.estimate if one.low is None or one.high is None else Interval(one.estimate, one.low, one.high)


def _why_not(measurements: Iterable[Measurement]) -> str:
    """The reason why an audit that ran has no number for the student. "" when no audit ran."""
    return "; ".join(dict.fromkeys(one.note for one in measurements if one.subject == "student" and one.note))
