"""The repairs after which an audit would pass. A report lists the repairs, each with the number of rows that it
concerns.

A person chooses a repair. Only the first repair, which leaves rows out, is made by a command; see
`synthgen.auditing.allowed`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from synthgen.auditing.allowed import allowed
from synthgen.auditing.combinations import Term
from synthgen.auditing.judging import UNSTATED, Assessment, Judgment
from synthgen.auditing.result import Repair
from synthgen.auditing.rules import BASE
from synthgen.errors import GateDenied
from synthgen.recipe import AuditSection

_NAMED = 3  # maximum number of sources that a repair names
_ASKED = re.compile(r"does not set (audit\.\w+(?:\.[\w-]+)?)")
_MODELS = ("generator", "logits", "rewriter", "judge")

Kind = Literal["license", "terms", "key", "name", "replace"]


class _What(NamedTuple):
    """What a repair changes: the license of sources, the facts about terms, a key of the recipe, the student's name, or
    the sources themselves. `about` is the license, the terms, the key, or the beginning of the name.
    """

    kind: Kind
    about: str


def repairs(assessment: Assessment, section: AuditSection) -> tuple[Repair, ...]:
    """The repairs of a corpus that does not pass. The repair that a command makes comes first, if there is one. The
    other repairs are sorted by the number of rows that they concern, the largest number first.
    """
    terms: dict[_What, list[Term]] = defaultdict(list)
    for term in sorted(assessment.judgments):
        if assessment.fails(term):
            for what in _needed(assessment.judgments[term], section):
                terms[what].append(term)
    concerned: dict[Term, set[_What]] = defaultdict(set)
    for what, some in terms.items():
        for term in some:
            concerned[term].add(what)
    rows: Counter[_What] = Counter()
    for combination, count in assessment.occurring.every.items():
        for what in set().union(*(concerned.get(term, ()) for term in combination)):
            rows[what] += count
    choices = [Repair(_text(what, some, section), rows[what]) for what, some in terms.items()]
    return (*_left_out(assessment), *sorted(choices, key=lambda one: (-one.rows, one.text)))


def _needed(judgment: Judgment, section: AuditSection) -> Iterator[_What]:
    """The changes that are needed for a source that fails."""
    verdict = judgment.verdict
    if judgment.terms.lower() == UNSTATED:
        yield _What("license", UNSTATED)
        return
    keys = [_What("key", key) for reason in verdict.reasons for key in _ASKED.findall(reason)]
    names = [
        _What("name", one.values[0])
        for one in verdict.obligations
        if one.duty == "name_prefix" and section.student_name and not section.student_name.startswith(one.values[0])
    ]
    yield from dict.fromkeys([*keys, *names])
    if any("are not in the catalog" in reason for reason in verdict.reasons):
        yield _What("terms", judgment.terms)
    elif not names and (verdict.status == "DENY" or not keys):
        yield _What("replace", judgment.terms)


def _text(what: _What, terms: list[Term], section: AuditSection) -> str:
    names = list(dict.fromkeys(f"'{term.source}'" for term in terms))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    sources = ", ".join(names[:_NAMED]) + more
    match what.kind:
        case "license":
            return f"state the license of {sources}"
        case "terms":
            return f"describe the terms '{what.about}' of {sources} under audit.terms"
        case "key":
            return f"set {what.about} in the recipe, which the terms of {sources} ask for"
        case "name":
            return f"name the student so that it begins with '{what.about}', not '{section.student_name}' ({sources})"
    if all(term.role == BASE for term in terms):
        return f"make the student from another checkpoint than {sources} ({what.about})"
    if all(term.role in _MODELS for term in terms):
        return f"use another teacher than {sources} ({what.about}), or ask for permission"
    return f"replace {sources} ({what.about}), or ask for permission"


def _left_out(assessment: Assessment) -> list[Repair]:
    """The repair that leaves out some rows, if the other rows then pass."""
    kept: Mapping[tuple[Term, ...], int] = assessment.occurring.kept
    try:
        decision = allowed(assessment)
    except GateDenied:
        return []
    gone = sum(count for one, count in kept.items() if decision.reason(one) is not None)
    if gone == sum(kept.values()):
        return []
    of = f"leave out {gone:,} of {sum(kept.values()):,} kept rows"
    return [Repair("; ".join([of, *decision.sides]), gone, "synthgen audit RUN --keep-allowed -o OUT")]
