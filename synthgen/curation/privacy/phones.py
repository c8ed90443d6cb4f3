"""Decides whether a match of a pattern is a telephone number: by its code, its length, how its digits are grouped, and
the words before it.
"""

from __future__ import annotations

import re
from itertools import pairwise

from synthgen.curation.privacy.numbering import CALLING_CODES, words
from synthgen.curation.privacy.validate import digits, in_sum

_DIGITS = re.compile(r"[0-9]+")
_EXTENSION = re.compile(r"(?i:[ ,;]{0,2}(?:x|(?:ext\.?|extension|durchwahl|poste|int\.) ?)[0-9]{1,6})(?![A-Za-z0-9_])")
_BEFORE_PLUS = re.compile(r"[\d)] *\Z|[*×÷^=] +\Z")  # after these signs, the plus sign may be a part of a sum
_DATE = re.compile(
    r"(?:19|20)\d\d[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)\d\d(?!\d)|"
    r"(?:19|20)\d\d ?[-–/ ] ?(?:19|20)\d\d(?!\d)"
)
_NUMBER_BESIDE = re.compile(r"\d[ \t]+\Z"), re.compile(r"[ \t]+\d")

_CODE_OF_AMERICA = re.compile(r"(?:\(?\+|00)?1(?![0-9]{10})|\+1")
_GOES_ON = re.compile(r"[A-Za-z0-9_À-ɏͰ-ӿ]|[.:\-–][0-9]")

# The groups of digits of national numbers that begin with 0, with examples of countries that use these groups.
_TRUNK_SHAPES = {
    tuple(map(int, shape.split("-")))
    for shape in words(
        """
2-8 3-7 3-8 4-6 4-7 4-8 5-5 5-6 5-7
2-4-4 3-4-4 4-3-4 4-3-3 4-3-2 3-3-4 5-3-3 4-2-4 2-3-5 3-4-3 4-3-5
3-3-2-2 2-3-2-2 2-3-3-2 4-2-2-2 3-2-2-2 4-3-2-2 4-2-2-3
2-2-2-2-2
"""
    )
}


def subscriber(value: str) -> str:
    """The digits of a telephone number. An extension, the country code of North America and a 0 in brackets are left
    out.
    """
    extension = _EXTENSION.search(value)
    number = digits((value[: extension.start()] if extension else value).replace("(0)", ""))
    number = number[2:] if number.startswith("00") else number
    return number[1:] if len(number) == 11 and _CODE_OF_AMERICA.match(value) else number


def international(text: str, start: int, stop: int) -> int | None:
    """A number that begins with + or 00 and the code of a country. The number must have as many digits as numbers of
    this country can have. Groups of digits at the end that do not belong to the number are cut off.
    """
    if _BEFORE_PLUS.search(text[max(0, start - 8) : start]):
        return None
    spans = _groups(text, start, stop)
    for last in range(len(spans), 0, -1):
        end = spans[last - 1][1]
        groups = [text[begin:finish] for begin, finish in spans[:last] if text[begin - 1 : finish + 1] != "(0)"]
        if _ends(text, end) and _is_international(groups, plus=text[start:stop].lstrip("(")[0] == "+"):
            return None if in_sum(text, start, end) else _with_extension(text, end)
    return None


def _is_international(groups: list[str], *, plus: bool) -> bool:
    first = groups[0] if plus else groups[0][2:]
    number = first + "".join(groups[1:])
    code = next((number[:length] for length in (1, 2, 3) if number[:length] in CALLING_CODES), "")
    if not code or not (len(first) == len(code) or len(first) > len(code) + 1):
        return False
    rest = number[len(code) :]
    if len(rest) not in CALLING_CODES[code] or not (plus or len(groups) > 1):
        return False
    return code != "1" or _is_american(rest, strict=len(groups) == 1)


def _is_american(number: str, *, strict: bool) -> bool:
    """Whether ten digits are an area code, an exchange and a line of the North American Numbering Plan. Without
    `strict`, any exchange is accepted, because texts often have examples such as 555-123-4567.
    """
    area, exchange = number[:3], number[3:6]
    if len(number) != 10 or area[0] in "01" or area[1:] == "11":
        return False
    return not strict or (exchange[0] not in "01" and exchange[1:] != "11")


def north_american(text: str, start: int, stop: int) -> int | None:
    """A number of North America with separators: ten digits, perhaps with a 1 before them."""
    strict = not any(sign in text[start:stop] for sign in "(-‑–")
    return written(text, start, stop) if _is_american(digits(text[start:stop])[-10:], strict=strict) else None


def trunk(text: str, start: int, stop: int) -> int | None:
    """A national number that begins with 0. The digits must be grouped as in the numbers of some country."""
    spans = _groups(text, start, stop)
    for last in range(len(spans), 1, -1):
        end = spans[last - 1][1]
        shape = tuple(finish - begin for begin, finish in spans[:last])
        if shape in _TRUNK_SHAPES and _is_even(text, spans[:last]) and written(text, start, end) is not None:
            return None if _DATE.match(text, start) else _with_extension(text, end)
    return None


def _is_even(text: str, spans: list[tuple[int, int]]) -> bool:
    """Whether the groups after the first one have the same separator, and are not a list of growing numbers."""
    between = [text[left[1] : right[0]] for left, right in pairwise(spans)]
    pairs = all(finish - begin == 2 for begin, finish in spans)
    if len(set(between if pairs else between[1:])) > 1:
        return False
    values = [int(text[begin:finish]) for begin, finish in spans]
    return not pairs or values != sorted(values)


def written(text: str, start: int, stop: int) -> int | None:
    """A number in a national form that is recognizable without a word such as "phone" before it. A list of numbers with
    spaces between them, such as "250 300 1200 75", is not a telephone number.
    """
    if in_sum(text, start, stop) or not _ends(text, stop):
        return None
    before, after = _NUMBER_BESIDE
    spaced = not any(sign in text[start:stop] for sign in "()-.‑–/")
    if spaced and (before.search(text[max(0, start - 8) : start]) or after.match(text, stop)):
        return None
    return _with_extension(text, stop)


def after_word(text: str, start: int, stop: int) -> int | None:
    """Seven to twelve digits after a word such as "phone" or "call"."""
    if _DATE.match(text, start):
        return None
    spans = _groups(text, start, stop)
    for last in range(len(spans), 0, -1):
        end = spans[last - 1][1]
        sizes = [finish - begin for begin, finish in spans[:last]]
        whole = last == 1 or (sizes[0] < 7 and min(sizes[1:]) > 1)
        if last == 1 and sizes[0] < 9 and text[start:end].endswith("000"):
            return None  # a round number, as in "text 5000000 people"
        if whole and 7 <= sum(sizes) <= 12 and _ends(text, end) and not in_sum(text, end - 1, end):
            return _with_extension(text, end)
    return None


def _groups(text: str, start: int, stop: int) -> list[tuple[int, int]]:
    return [found.span() for found in _DIGITS.finditer(text, start, stop)]


def _ends(text: str, stop: int) -> bool:
    """Whether a number may end here: an extension follows, or neither a letter nor a further digit follows."""
    return _EXTENSION.match(text, stop) is not None or _GOES_ON.match(text, stop) is None


def _with_extension(text: str, stop: int) -> int:
    found = _EXTENSION.match(text, stop)
    return found.end() if found else stop
