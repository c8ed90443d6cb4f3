"""Times of day and dates: "12:30 pm" and "12:30" are one time, "March 5, 2024" and "2024-03-05" are one date."""

from __future__ import annotations

import re

CLOCK = re.compile(
    r"(?<![\d:.])(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?\s?(?P<half>[ap]\.?m\b\.?)?"
    r"|\s?(?P<only>[ap]\.?m\b\.?|o'?clock\b))(?![:\d])",
    re.IGNORECASE,
)
_MONTHS = str.split("jan feb mar apr may jun jul aug sep oct nov dec")
_FULL = str.split("january february march april may june july august september october november december sept")
_MONTH = "|".join([*_FULL, *_MONTHS])
_DAY_FIRST = re.compile(
    rf"(?:the )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)? (?:of )?(?P<month>{_MONTH})\.?(?:,? (?P<year>\d{{4}}))?",
    re.IGNORECASE,
)
_MONTH_FIRST = re.compile(
    rf"(?P<month>{_MONTH})\.? (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?", re.IGNORECASE
)
_ISO = re.compile(r"(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})")
_NUMERIC = re.compile(r"(?P<one>\d{1,2})[-/.](?P<two>\d{1,2})[-/.](?P<year>\d{4})")


def clock(text: str) -> str | None:
    """A key of the time of day if the text is a time, else None. A time without am or pm is read on the 24-hour
    clock.
    """
    text = re.sub(r"^(?:at|it's|it is|is|around|about) ", "", text.strip().rstrip("."), flags=re.IGNORECASE)
    time = CLOCK.fullmatch(text) or CLOCK.fullmatch(text + ".")
    if time is None:
        return None
    hour, minute, second = int(time["hour"]), int(time["minute"] or 0), int(time["second"] or 0)
    half = (time["half"] or time["only"] or "").lower().replace(".", "").strip()
    if half in ("am", "pm"):
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "pm" else 0)
    if hour > 24:
        return None
    return f"time {hour}:{minute:02}:{second:02}"


def date(text: str) -> str | None:
    """A key of the date if the text is a date, else None. "3/5/2024" may be in March or in May, so its result is
    None.
    """
    text = re.sub(r"^(?:on|it's|it is|is|the date is) ", "", text.strip().rstrip("."), flags=re.IGNORECASE)
    found = _DAY_FIRST.fullmatch(text) or _MONTH_FIRST.fullmatch(text) or _ISO.fullmatch(text)
    if found:
        name = found["month"].lower()
        month = int(name) if name.isdecimal() else _MONTHS.index(name[:3]) + 1
        day = int(found["day"])
        return f"date {found['year'] or ''}-{month}-{day}" if 1 <= month <= 12 and 1 <= day <= 31 else None
    numeric = _NUMERIC.fullmatch(text)
    if numeric is None:
        return None
    one, two = int(numeric["one"]), int(numeric["two"])
    if one > 12 >= two >= 1 and one <= 31:
        return f"date {numeric['year']}-{two}-{one}"
    if two > 12 >= one >= 1 and two <= 31:
        return f"date {numeric['year']}-{one}-{two}"
    return None
