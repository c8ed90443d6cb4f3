"""Decides whether two texts hold the same value, such as a telephone number in two spellings.

Each value has two sets of tokens, `given` and `sought`. Two values are the same if a token in `sought` of one value is
in `given` of the other. White space, separators and case are ignored. A telephone number with a country code equals the
same number without the code. Numbers with different country codes differ.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from synthgen.curation.privacy.find import hits_in
from synthgen.curation.privacy.numbering import CALLING_CODES
from synthgen.curation.privacy.patterns import ENTITIES
from synthgen.curation.privacy.validate import digits, letters_and_digits
from synthgen.tables.curation_settings import Entity

_NUMBERS: tuple[Entity, ...] = ("card", "iban", "national_id")
"""Kinds whose values are letters and digits, with separators between them."""
_PHONE: Entity = "phone"
_LEAST = 7  # no kind of value that is searched for has fewer digits
_MOST_DIGITS = 15  # minimum and maximum number of digits of a telephone number (ITU-T E.164)
_MOST_GROUPS = 8  # maximum number of groups of digits in a number
_EXTENSION = re.compile(r"(?i:[ ,;]{0,2}(?:x|ext|extension|durchwahl|poste|int)[. ]{0,2}[0-9]{1,6})\Z")
_BETWEEN = "[ ().\\-/\u00a0\u202f\u2009\u2011\u2013]"
_RUN = re.compile(rf"\(?\+?\(?[0-9]+(?:{_BETWEEN}{{1,3}}[0-9]+)*")
_GROUP = re.compile(r"\+?[0-9]+")
_SPACE = re.compile(r"\s+")
# An address or a secret inside a longer one does not count: ann@example.org is not found in joann@example.org.uk.
_NO_PART_BEFORE = r"(?<![A-Za-z0-9])(?<![A-Za-z0-9][._%+\-])"
_NO_PART_AFTER = r"(?![A-Za-z0-9])(?![._%+\-@][A-Za-z0-9])"


def given(entity: Entity, value: str) -> set[str]:
    """The tokens under which a value is found."""
    if entity != _PHONE:
        return {_plain(entity, value)}
    full, national = _phone(value)
    return {f"+{full}", *(f"of {one}" for one in national)} if full else {f"phone {one}" for one in national}


def sought(entity: Entity, value: str) -> set[str]:
    """The tokens by which a value is looked for."""
    if entity != _PHONE:
        return {_plain(entity, value)}
    full, national = _phone(value)
    local = {f"phone {one}" for one in national}
    return {f"+{full}", *local} if full else {*local, *(f"of {one}" for one in national)}


def tokens_in(text: str, hints: Collection[str]) -> set[str]:
    """The tokens of all values in a text. A number counts even if no word near it says what kind of number it is.
    `hints` are the hints of the text; see `synthgen.curation.privacy.likely`.
    """
    found: set[str] = set()
    for hit in hits_in(text, hints):
        found |= sought(hit.entity, text[hit.start : hit.stop])
    for number in _numbers(text):
        found |= sought(_PHONE, number)
        found.add(_plain(_NUMBERS[0], number))
    return found


def stands_in(entity: Entity, value: str, text: str) -> bool:
    """Whether a text contains a value in any spelling. This function is slower than `tokens_in`. But it also finds a
    value with white space inside it, and letters and digits with other separators.
    """
    if entity == _PHONE:
        return any(sought(_PHONE, number) & given(_PHONE, value) for number in _numbers(text))
    if entity in _NUMBERS:
        signs = rf"{_BETWEEN}{{0,3}}".join(map(re.escape, letters_and_digits(value)))
        return re.search(rf"(?<![A-Za-z0-9]){signs}(?![A-Za-z0-9])", text, re.IGNORECASE) is not None
    signs = r"\s*".join(map(re.escape, _SPACE.sub("", value)))
    return re.search(rf"{_NO_PART_BEFORE}{signs}{_NO_PART_AFTER}", text, re.IGNORECASE) is not None


def _plain(entity: Entity, value: str) -> str:
    if entity in _NUMBERS:
        return f"number {letters_and_digits(value)}"
    return f"text {_SPACE.sub('', ENTITIES[entity].same(value)).casefold()}"


def _phone(value: str) -> tuple[str, set[str]]:
    """(the number with its country code, or "" if the value has no code; the possible numbers without the code)."""
    plain = _EXTENSION.sub("", value).replace("(0)", "")
    number = digits(plain)
    if number.startswith("00"):
        number = number[2:]
    elif "+" not in plain:
        whole = number.lstrip("0")
        # 1-415-… and 415-… are the same number.
        america = {whole[1:]} if len(whole) == 11 and whole.startswith("1") else set()
        return "", {whole, *america}
    codes = [code for code in CALLING_CODES if number.startswith(code) and len(number) - len(code) >= _LEAST - 1]
    return number, {number[len(code) :] for code in codes}


def _numbers(text: str) -> Iterator[str]:
    """The numbers in a text. A number is a sequence of groups of digits with separators between the groups. All shorter
    sequences inside a sequence are also returned, because two numbers may stand side by side. But no returned sequence
    begins inside a number that begins with + or 00, because its country code is part of the number.
    """
    for run in _RUN.finditer(text):
        whole = run.group()
        groups = [one.span() for one in _GROUP.finditer(whole)]
        inside = 0  # the number of digits that may still belong to a number with a country code
        for place, (start, stop) in enumerate(groups):
            if whole[start] == "+" or whole[start : start + 2] == "00":
                inside = _MOST_DIGITS
            elif inside > 0:
                inside -= stop - start
                continue
            inside -= stop - start
            for _, end in groups[place : place + _MOST_GROUPS]:
                if len(digits(whole[start:end])) >= _LEAST:
                    yield whole[start:end]
