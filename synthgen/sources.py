"""The sources of rows: texts and models from which rows were made, each with its role, its license, and the account
that was used.

A row lists its sources in the column `sources`, and a corpus lists the sources of all rows in its manifest. The audit
judges each source by itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from synthgen.manifest import SourceTerms
from synthgen.recipe import SeedSource
from synthgen.records import ROLES, Source
from synthgen.values import accepted


def source(name: str, role: str, license: str) -> Source:
    """An entry for a row's column `sources`. The entry names something from which the row was made, such as a model."""
    return {
        "id": name,
        "role": role if role in ROLES else "generator",
        "license": license,
        "terms_date": None,
        "made_by": None,
        "account": None,
        "tools": [],
    }


LICENSE_COLUMNS = ("license", "licence")
"""Columns of a row that state the row's own license."""
_KEY = re.compile(r"""["'](license|role)["']\s*:""")  # in a text that is no JSON
_LONGEST = 100  # a longer text is not the name of a license


def own_license(row: Mapping[str, object]) -> str | None:
    """The license that a row states in a column of its own, or None. A list of licenses means that all of them apply.
    A value that cannot be the name of a license, such as a whole license text, gives `unknown`.
    """
    try:
        parts = next((found for name in LICENSE_COLUMNS if (found := accepted(row.get(name)))), None)
    except ValueError:  # an object
        return "unknown"
    if parts is None:
        return None
    named = list(dict.fromkeys(one.strip() for one in parts))
    if any(len(one) > _LONGEST or "\n" in one for one in named):
        return "unknown"
    return named[0] if len(named) == 1 else " AND ".join(f"({one})" for one in named)


def stated_sources(stated: SeedSource, name: str, role: str, own: str | None = None) -> list[Source]:
    """The sources of texts from a file or data set, from an entry of the recipe's `seeds`. The first source is the file
    or data set under `name`. If the entry names a model that wrote the texts, this model is the second source. The
    model has the role `generator`. Both sources say whose account asked the model, and with which tools. If a row
    states its `own` license, the last source has the same name as the first source and this license, because both
    licenses apply.
    """
    text, maker = source(name, role, stated.license), stated.made_by
    if own is not None and own != stated.license:
        return [*stated_sources(stated, name, role), {**text, "license": own}]
    if maker is None:
        return [text]
    model = source(maker.model, "generator", maker.license)
    model["terms_date"] = str(maker.date) if maker.date else None
    for one in (text, model):
        one["account"], one["tools"] = maker.account, list(maker.tools)
    return [{**text, "made_by": maker.model}, model]


def given_sources(value: object) -> list[Source]:
    """The sources that are stored in a row of another corpus. `value` is the row's field `sources`: a list, one source,
    or the JSON text of either, as in a CSV file. The result is empty when no entry states a license or a role of a
    source, for example when a user's own column is called `sources` too.

    If an entry cannot be read in full, its missing parts get the values that the audit judges most strictly: an unknown
    role becomes `generator`, and a missing license becomes `unknown`. So does a text that is no JSON but names a
    license, such as a list as Python prints it.
    """
    try:
        return [_source_of(one) for one in _entries(value) if "license" in one or _has_role(one)]
    except RecursionError:
        return [_source_of({})]


def _entries(value: object) -> Iterator[Mapping[str, object]]:
    """All objects in `value`: in lists, in JSON texts, and in lists of these."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else value
    if isinstance(text, str) and text.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(text)
        except ValueError:
            value = {"license": None} if _KEY.search(text) else None
    if isinstance(value, list):
        for one in value:
            yield from _entries(one)
    elif isinstance(value, dict):
        yield value


def terms_of(one: Source) -> SourceTerms:
    """The manifest's entry for a source of a row."""
    terms: SourceTerms = {"role": one["role"], "source": one["id"], "license": one["license"]}
    if one["account"] is not None:
        terms["account"] = one["account"]
    if one["terms_date"] is not None:
        terms["terms_date"] = one["terms_date"]
    if one["tools"]:
        terms["tools"] = list(one["tools"])
    return terms


def distinct(terms: Iterable[SourceTerms]) -> list[SourceTerms]:
    """The entries without repetitions, in the order of their first occurrence."""
    found: dict[tuple[object, ...], SourceTerms] = {}
    for one in terms:
        found.setdefault(_key(one), one)
    return list(found.values())


def _key(one: SourceTerms) -> tuple[object, ...]:
    return (
        one["role"],
        one["source"],
        one["license"],
        one.get("account"),
        one.get("terms_date"),
        tuple(one.get("tools", ())),
    )


def _has_role(value: Mapping[str, object]) -> bool:
    role = value.get("role")
    return isinstance(role, str) and role in ROLES


def _source_of(value: Mapping[str, object]) -> Source:
    def text(key: str) -> str | None:
        part = value.get(key)
        return part if isinstance(part, str) else None

    role, tools = text("role") or "", value.get("tools")
    return {
        "id": text("id") or "a source without a name",
        "role": role if role in ROLES else "generator",
        "license": text("license") or "unknown",
        "terms_date": text("terms_date"),
        "made_by": text("made_by"),
        "account": text("account"),
        "tools": [str(tool) for tool in tools] if isinstance(tools, list) else [],
    }
