"""Writes a loss statement in words and as a table. The card, the page and `distill eval` all take their words from this
module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from synthgen.results.audit_text import listed
from synthgen.results.measures import FORMATS, Interval, Value, middle, shown, text_table
from synthgen.results.statement import FEWEST, Entry, Statement
from synthgen.tables.dimensions import DIMENSIONS

TITLE = "What the student lost or gained"
HEADER = ("", "teacher", "base", "student", "student against teacher", "student against base", "measured on")
_OTHERS = (("teacher", "minus_teacher"), ("base", "minus_base"))
_BASE = "the student before its training"
_MOST = 8  # maximum number of measures of one dimension that are shown
_UNCLEAR = "no clear difference"
_WORDS = {"higher": ("better", "worse"), "lower": ("worse", "better"), "": ("higher", "lower")}
"""`Entry.better` → the words for a clear positive difference and for a clear negative difference."""


@dataclass(frozen=True)
class Shown:
    """The texts of a loss statement for a template. `lines` are the rows of a table with the columns HEADER.
    `not_measured` has the reasons why something is not measured, and `notes` say how the measures are computed.
    """

    paragraphs: list[str]
    lines: list[list[str]]
    not_measured: list[str]
    notes: list[str]


def words_of(statement: Statement) -> Shown:
    """All texts of a statement."""
    entries = _measured(statement)
    few = [one for name in dict.fromkeys(one.dimension for one in entries) for one in _first(entries, name)]
    left = len(entries) - len(few)
    notes = list(dict.fromkeys(_note(one) for one in few if one.note))
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


def _note(entry: Entry) -> str:
    """What a dimension is about, and how its measure is computed."""
    about = f" ({DIMENSIONS[entry.dimension].about})" if entry.dimension in DIMENSIONS else ""
    return f"{_title(entry.dimension)}{about}, {entry.measure}: {entry.note}"


def _name(entry: Entry, entries: Sequence[Entry]) -> str:
    """The name of an entry's dimension for a sentence. If the dimension has several measures, the measure is added."""
    several = sum(one.dimension == entry.dimension for one in entries) > 1
    return f"{_title(entry.dimension).lower()}{f' ({entry.measure})' if several else ''}"


def _paragraphs(statement: Statement, entries: Sequence[Entry]) -> list[str]:
    """What is compared, which differences are clear, and how to read the table."""
    if not entries:
        return []
    teacher, base = statement.models.get("teacher", ""), statement.models.get("base", _BASE)
    named = f"The teacher is {teacher}. The base is {base}." if teacher else f"The base is {base}."
    count = sum(bool(verdict(one, key)) for one in entries for _, key in _OTHERS)
    read = (
        "Each value has its 95% interval in brackets. Differences are paired: both models were measured on the same "
        "rows. A difference has a verdict, such as “worse”, only if its interval does not include zero. “No clear "
        "difference” means that these data show none. It does not mean that there is none."
    )
    if count > 1:
        by_chance = shown(0.05 * count, "significant")
        read += (
            f" {count} differences were tested. Even if the models did not differ, about {by_chance} of them would "
            "still be called better, worse, higher or lower by chance."
        )
    return [named, *filter(None, (_summary(entries, *one) for one in _OTHERS)), read]


def _summary(entries: Sequence[Entry], other: str, key: str) -> str:
    """One paragraph about the differences between the student and the other model. "" when there are no differences."""
    found: dict[str, list[str]] = {}
    for one in entries:
        if getattr(one, key) is not None:
            found.setdefault(verdict(one, key), []).append(_name(one, entries))
    words = {
        "worse": "worse in",
        "better": "better in",
        "higher": "higher in",
        "lower": "lower in",
        _UNCLEAR: "no clear difference in",
        "": "too few rows to tell in",
    }
    parts = [f"{says} {listed(found[word])}" for word, says in words.items() if word in found]
    return f"The student against its {other}: {'; '.join(parts)}." if parts else ""


def verdict(entry: Entry, key: str) -> str:
    """The verdict on the difference `key` of an entry: better, worse, higher, lower, or no clear difference. "" when
    there are too few groups of rows for a verdict, or when the difference has no interval.
    """
    difference = getattr(entry, key)
    if not isinstance(difference, Interval) or entry.groups < FEWEST:
        return ""
    if not (difference.low > 0 or difference.high < 0):  # this is also true when an end is NaN
        return _UNCLEAR
    return _WORDS[entry.better][0 if difference.low > 0 else 1]


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
    values = [getattr(entry, role) for role in _ROLES]
    return [
        f"{_title(entry.dimension)}: {entry.measure}",
        *("not measured" if value is None else shown(value, entry.format) for value in values),
        *(_against(entry, key) for _, key in _OTHERS),
        f"{entry.n:,} {entry.unit}" + (f" in {entry.groups:,} groups" if 0 < entry.groups < entry.n else ""),
    ]


_ROLES = ("teacher", "base", "student")


def _against(entry: Entry, key: str) -> str:
    value = getattr(entry, key)
    if value is None:
        return "not measured"
    return f"{verdict(entry, key) or 'too few rows to tell'}: {difference_text(value, entry.format)}"


def _not_measured(statement: Statement) -> list[str]:
    """Everything that has no value, with the reason. Whole dimensions come first, and then values of single models."""
    reasons = [f"{_title(name)}: {reason}." for name, reason in statement.not_measured.items()]
    grouped: dict[tuple[str, str], list[str]] = {}
    for one in statement.entries:
        for role, reason in one.missing.items():
            if role == "student":
                reasons.append(f"{_title(one.dimension)}, {one.measure}: {reason}.")
            elif one.student is not None:
                grouped.setdefault((role, reason), []).append(one.measure)
    return reasons + [f"For the {role}, {listed(names)}: {reason}." for (role, reason), names in grouped.items()]
