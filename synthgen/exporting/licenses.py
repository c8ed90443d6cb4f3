"""Writes licenses as SPDX expressions, with the addresses of their texts."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from synthgen.auditing.catalogue import catalogue

_LIST = "https://spdx.org/licenses/"
_SAYS_NOTHING = ("", "unknown")
_OPERATORS = ("AND", "OR", "WITH")


class Named(NamedTuple):
    """A license expression in the spelling of SPDX. `addresses` maps each license in the expression to the address of
    the license's text, or to "" if the catalog has none. Licenses that are not on the list of SPDX have names that
    begin with `LicenseRef-`.
    """

    expression: str
    addresses: dict[str, str]


def named(license: str) -> Named | None:
    """The license of a source. None if the license or a part of the expression is unknown."""
    addresses: dict[str, str] = {}
    found = []
    for word in _words(license):
        if word.upper() in _OPERATORS or word in "()":
            found.append(word.upper())
            continue
        name, address = _name(word)
        if name.lower() in _SAYS_NOTHING:
            return None
        addresses[name] = address
        found.append(name)
    if not _readable(found):
        return None
    return Named(" ".join(found).replace("( ", "(").replace(" )", ")"), addresses) if addresses else None


def joined(licenses: list[str]) -> Named | None:
    """The expression that joins these licenses with AND. None when a license is unknown, or when there are no
    licenses.
    """
    each = [named(one) for one in sorted(set(licenses))]
    known = [one for one in each if one is not None]
    if not known or len(known) < len(each):
        return None
    parts = list(dict.fromkeys(one.expression for one in known))
    several = len(parts) > 1
    text = " AND ".join(f"({part})" if several and " " in part else part for part in parts)
    return Named(text, {name: address for one in known for name, address in one.addresses.items()})


def _words(license: str) -> list[str]:
    """The names, operators and parentheses of an expression. Consecutive words that are not operators are one name."""
    words: list[str] = []
    for word in re.findall(r"[()]|[^\s()]+", license):
        names = [one for one in (word, *words[-1:]) if one.upper() not in _OPERATORS and one not in "()"]
        words = [*words[:-1], f"{words[-1]} {word}"] if len(names) == 2 else [*words, word]
    return words


def _name(word: str) -> tuple[str, str]:
    """The name of one license and the address of its text."""
    terms = catalogue().get(word)
    listed = _spdx_ids().get(terms.id.lower()) or _spdx_ids().get(word.lower())
    if listed:
        return listed, f"{_LIST}{listed}.html"
    if terms.id.lower() in _SAYS_NOTHING:
        return "", ""
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", re.sub(r"(?i)^licenseref-", "", terms.id)).strip("-") or "unnamed"
    return f"LicenseRef-{slug}", terms.source


def _readable(words: list[str]) -> bool:
    """Whether the words form a license expression."""
    from license_expression import ExpressionError, Licensing

    try:
        return Licensing().parse(" ".join(words)) is not None
    except ExpressionError:
        return False


@lru_cache
def _spdx_ids() -> dict[str, str]:
    """Maps ids in lower case to the ids of the SPDX License List, including the names of exceptions. The list is in the
    package license-expression.
    """
    from license_expression import get_license_index

    every = [name for one in get_license_index() for name in [one.get("spdx_license_key")] if name]
    return {name.lower(): name for name in every if not name.startswith("LicenseRef-")}
