"""A loss statement in words and as a table. The card, the page and `distill eval` use the same words, because they take
them from this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synthgen.results.measures import FORMATS, Interval, Value, middle, shown, text_table
from synthgen.results.statement import Entry, Statement
from synthgen.tables.dimensions import DIMENSIONS

TITLE = "What the student lost or gained"
HEADER = ("", "teacher", "base", "student", "student against teacher", "student against base", "measured on")
_OTHERS = (("teacher", "minus_teacher"), ("base", "minus_base"))
_BASE = "the student before its training"
_MOST = 8  # maximum number of measures of one dimension that are shown
_UNCLEAR = "no clear difference"
WORDS = {"higher": ("better", "worse"), "lower": ("worse", "better"), "": ("higher", "lower")}
"""What a clear difference is called if it is positive, and if it is negative, by `Entry.better`."""


@dataclass(frozen=True)
class Shown:
    """A loss statement for a template: paragraphs, the lines of a table with the columns HEADER, the reasons why
    something is not measured, and notes on the measures.
    """

    paragraphs: list[str]
    lines: list[list[str]]
    not_measured: list[str]
    notes: list[str]


def words_of(statement: Statement) -> Shown:
    """The whole statement in words."""
    entries = _measured(statement)
    few = [one for name in dict.fromkeys(one.dimension for one in entries) for one in _first(entries, name)]
    left = len(entries) - len(few)
    notes = list(dict.fromkeys(f"{_capital(one.measure)}: {one.note}" for one in few if one.note))
    notes += [f"{left:,} more measures are in audit/report.json."] if left else []
    return Shown(_paragraphs(statement, entries), [_line(one) for one in few], _not_measured(statement), notes)


def terminal(statement: Statement) -> str:
    """The statement for a terminal. Intervals are shown only for the differences."""
    found = words_of(statement)
    lines = [
        [line[0], *(value.partition(" [")[0] for value in line[1:4]), *line[4:]] if line[1:] else line
        for line in found.lines
    ]
    table = [text_table(HEADER, lines)] if lines else []
    reasons = [f"not measured: {reason}" for reason in found.not_measured]
    named = {one.dimension for one in statement.entries} | statement.not_measured.keys()
    later = [one.title.lower() for name, one in DIMENSIONS.items() if one.audit and name not in named]
    reasons += (
        [f"not part of the evaluation: {' and '.join(later)}; `synthgen audit STUDENT` measures them"] if later else []
    )
    return "\n".join([f"{TITLE}:", *table, *reasons])


def _measured(statement: Statement) -> list[Entry]:
    return [one for one in statement.entries if one.student is not None]


def _first(entries: Sequence[Entry], dimension: str) -> list[Entry]:
    return [one for one in entries if one.dimension == dimension][:_MOST]


def _title(dimension: str) -> str:
    return DIMENSIONS[dimension].title if dimension in DIMENSIONS else dimension


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _paragraphs(statement: Statement, entries: Sequence[Entry]) -> list[str]:
    """What is compared, and which differences are clear."""
    teacher, base = statement.models.get("teacher", ""), statement.models.get("base", _BASE)
    if not entries:
        return []
    named = f"The teacher is {teacher}. The base is {base}." if teacher else f"The base is {base}."
    count = sum(isinstance(getattr(one, key), Interval) for one in entries for _, key in _OTHERS)
    read = (
        f"{named} Each value has its 95% interval in brackets. Differences are paired: both models were measured on "
        "the same rows. A difference has a verdict such as “worse” only if its interval does not include zero. "
        "Otherwise these data do not show a difference, which does not prove that there is none."
    )
    if count:
        read += (
            f" There are {count} differences. Of {count} differences that are zero in truth, about "
            f"{shown(0.05 * count, 'significant')} would have a verdict by chance."
        )
    return [*filter(None, (_summary(entries, *one) for one in _OTHERS)), read]


def _summary(entries: Sequence[Entry], other: str, key: str) -> str:
    """One paragraph on the differences of the student from the other model. Empty when there are none."""
    found: dict[str, list[str]] = {}
    for one in entries:
        value = getattr(one, key)
        if value is not None:
            found.setdefault(verdict(value, one.better), []).append(one.measure)
    order = ("worse", "better", "higher", "lower", _UNCLEAR, "")
    says = {"": "without an interval", _UNCLEAR: _UNCLEAR}
    parts = [f"{says.get(word, word)}: {', '.join(found[word])}" for word in order if word in found]
    return f"The student against its {other}: {'; '.join(parts)}." if parts else ""


def verdict(difference: Value, better: str) -> str:
    """A difference in one or three words: better or worse, higher or lower if neither is better, or no clear
    difference. "" when the difference has no interval, so that nobody knows.
    """
    if not isinstance(difference, Interval):
        return ""
    if not (difference.low > 0 or difference.high < 0):  # also when an end is not a number
        return _UNCLEAR
    return WORDS[better][0 if difference.low > 0 else 1]


def difference_text(value: Value, format: str) -> str:
    """A difference with its sign: "-5.0 points [-9.0, -1.0]". A difference of percentages is in percentage points."""
    write, unit = FORMATS[format].write, " points" if FORMATS[format].unit == "%" else ""
    number = middle(value)
    if number is None:
        return ""
    plus = "+" if number > 0 and write(number).strip("0.,") else ""
    ends = f" [{write(value.low)}, {write(value.high)}]" if isinstance(value, Interval) else ""
    return f"{plus}{write(number)}{unit}{ends}"


def _line(entry: Entry) -> list[str]:
    """The cells of one line of the table."""
    values = [shown(getattr(entry, role), entry.format) if _has(entry, role) else "not measured" for role in _ROLES]
    return [
        f"{_title(entry.dimension)}: {entry.measure}",
        *values,
        *(_against(getattr(entry, key), entry) for _, key in _OTHERS),
        f"{entry.n:,} {entry.unit}",
    ]


_ROLES = ("teacher", "base", "student")


def _has(entry: Entry, role: str) -> bool:
    return getattr(entry, role) is not None


def _against(value: Value, entry: Entry) -> str:
    if value is None:
        return "not measured"
    said = verdict(value, entry.better) or "no interval"
    return f"{said}: {difference_text(value, entry.format)}"


def _not_measured(statement: Statement) -> list[str]:
    """Everything that has no value, with the reason: whole dimensions first, and then values of single models."""
    found = [f"{_title(name)}: {reason}." for name, reason in statement.not_measured.items()]
    grouped: dict[tuple[str, str], list[str]] = {}
    for one in statement.entries:
        for role, reason in one.missing.items():
            if role == "student" or one.student is not None:
                grouped.setdefault((role, reason), []).append(f"{one.measure}")
    return found + [f"{', '.join(names)} of the {role}: {reason}." for (role, reason), names in grouped.items()]
