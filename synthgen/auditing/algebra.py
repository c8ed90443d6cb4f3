"""How verdicts on single sources become the verdict on a row, a corpus or a student.

A verdict is a status, the obligations that come with it, and the reasons. Statuses are ordered: ALLOW < CONTESTED <
UNKNOWN < DENY. Joined verdicts have the worst of their statuses, and all their obligations and reasons. If two
obligations cannot be met together, the joined status is DENY. So the order of the sources does not matter, a source
that is named twice counts once, and a further source never improves the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

from synthgen.auditing.result import Status, worst

Duty = Literal["credit", "notice", "statement", "flow_down", "name_prefix", "share_alike", "no_further_terms"]
"""`flow_down` is the duty to pass on a policy of use (`use_policy`). Every duty except `flow_down` is named after a key
of `Terms`, and this key states the duty.
"""


class Obligation(NamedTuple):
    """An obligation that one license asks for. `of` is the id of the license, and `text` states the obligation in
    words. `values` holds what code compares: the prefix that a student's name must have, or the ids of the licenses
    under which an adapted work may be shared.
    """

    duty: Duty
    of: str
    text: str
    values: tuple[str, ...] = ()


Duties = frozenset[tuple[Duty, str]]
"""Obligations without their texts: pairs of a duty and the id of the license that asks for it."""


class Conflict(NamedTuple):
    """Obligations that cannot be met together. If any one of these obligations is left out, the others can be met
    together.
    """

    duties: Duties
    reason: str

    @property
    def of(self) -> frozenset[str]:
        """The ids of the licenses."""
        return frozenset(name for _, name in self.duties)


@dataclass(frozen=True)
class Verdict:
    """The verdict of the terms of one or several sources on an intended use. Joining ALLOW without obligations to
    another verdict does not change this verdict.
    """

    status: Status = "ALLOW"
    obligations: frozenset[Obligation] = frozenset()
    reasons: frozenset[str] = frozenset()


def join(verdicts: Iterable[Verdict]) -> Verdict:
    """Join several verdicts into one verdict. Without verdicts, the result is ALLOW."""
    several = list(verdicts)
    obligations = frozenset[Obligation]().union(*(one.obligations for one in several))
    reasons = frozenset[str]().union(*(one.reasons for one in several))
    found = conflicts(obligations)
    status = "DENY" if found else worst(one.status for one in several)
    return Verdict(status, obligations, reasons | {one.reason for one in found})


def conflicts(obligations: Iterable[Obligation]) -> list[Conflict]:
    """All conflicts between obligations, each with as few licenses as possible, in a stable order."""
    by_duty: dict[str, dict[str, tuple[str, ...]]] = {}
    for one in obligations:
        by_duty.setdefault(one.duty, {})[one.of] = one.values
    found = [
        *_of_names(by_duty.get("name_prefix", {})),
        *_of_share_alike(by_duty.get("share_alike", {})),
        *(
            Conflict(
                frozenset({("flow_down", policy), ("no_further_terms", free)}),
                f"{policy} passes restrictions of use on, which {free} forbids",
            )
            for policy in by_duty.get("flow_down", {})
            for free in by_duty.get("no_further_terms", {})
        ),
    ]
    return sorted(set(found), key=lambda one: (sorted(one.of), one.reason))


def between(verdicts: Iterable[Verdict]) -> list[Conflict]:
    """The conflicts between verdicts on different sources. A conflict within a single source is left out, because the
    verdict on this source already has it.
    """
    several = set(verdicts)
    duties = [duties_of(one) for one in several]
    found = conflicts(frozenset[Obligation]().union(*(one.obligations for one in several)))
    return [one for one in found if any(one.duties & some and not one.duties <= some for some in duties)]


def duties_of(verdict: Verdict) -> Duties:
    """The obligations of a verdict, without their texts."""
    return frozenset((one.duty, one.of) for one in verdict.obligations)


def _of_names(prefixes: dict[str, tuple[str, ...]]) -> list[Conflict]:
    """Conflicts between two licenses that ask for different prefixes of a name. There is no conflict if one prefix
    begins with the other.
    """
    return [
        Conflict(
            frozenset({("name_prefix", one), ("name_prefix", other)}),
            f"a name cannot begin with '{a}' ({one}) and with '{b}' ({other})",
        )
        for (one, (a,)), (other, (b,)) in combinations(sorted(prefixes.items()), 2)
        if not (a.startswith(b) or b.startswith(a))
    ]


def _of_share_alike(allowed: dict[str, tuple[str, ...]]) -> list[Conflict]:
    """Conflicts between licenses that allow adapted works only under certain licenses: no license is allowed by all of
    them. A set of licenses is left out when a part of the set already has a conflict.
    """
    found: list[frozenset[str]] = []
    together: list[tuple[str, ...]] = [(name,) for name in sorted(allowed)]  # sets without a conflict
    while together:
        larger = [(*some, name) for some in together for name in sorted(allowed) if name > some[-1]]
        new = [some for some in larger if not any(one <= set(some) for one in found)]
        common = [set.intersection(*(set(allowed[name]) for name in some)) for some in new]
        together = [some for some, licenses in zip(new, common, strict=True) if licenses]
        found += [frozenset(some) for some, licenses in zip(new, common, strict=True) if not licenses]
    return [
        Conflict(
            frozenset(("share_alike", name) for name in one),
            f"no license is allowed by the share-alike clauses of {' and '.join(sorted(one))}",
        )
        for one in found
    ]
