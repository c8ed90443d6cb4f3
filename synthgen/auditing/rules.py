"""Judges one source of a row or a student by the terms of one license, for an intended use.

Each rule answers one question with a status and a reason. The questions are: is commercial use granted, may a model
learn from the rows, may the rows be shared, does the use stay below a limit on scale, is the region allowed, may a
tool's output be used, can the terms cover a checkpoint. The verdict has the worst of the statuses. A fact that is not
known gives UNKNOWN for every role and every intended use.

The role of a source decides which rules apply:

- `seed`, `dataset`, `generator`, `logits`, `rewriter`: the student learns from what these sources wrote. All rules
  apply.
- `template`, `few_shot`, `judge`: these sources shape or choose the rows, and the student does not learn from their
  texts. For these roles, a ban on training leads to CONTESTED at worst, and no term binds the student.
- `student_base`: the student is made from the weights, so the license of the weights holds for it.

A role that is not in this list is treated as a generator, which has the strictest rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from synthgen.auditing.algebra import Obligation, Verdict, join
from synthgen.auditing.result import STATUSES, Status, worst
from synthgen.recipe import AuditSection
from synthgen.recipe.exceptions import Permission
from synthgen.recipe.terms import Terms, Threshold

BASE = "student_base"
_BESIDE = ("judge", "few_shot", "template")  # roles of sources from whose texts the student does not learn
_REWRITTEN = ("seed", "dataset")  # rows count as adaptations of sources with these roles
_MAKES_STUDENT = frozenset({"train", "release_weights", "serve"})
_PUBLISHES_STUDENT = frozenset({"release_weights", "serve"})

Judged = tuple[Status, str]
"""A status and its reason."""


class Role(NamedTuple):
    """The facts about a source that the rules use: its role, whose account was used, and the tools of the model."""

    name: str
    account: str = ""
    tools: tuple[str, ...] = ()


def verdict(terms: Terms, role: Role, intent: AuditSection, permissions: Sequence[Permission] = ()) -> Verdict:
    """The verdict of the terms on a source with this role, for the intended use. `permissions` are the permissions
    about the source and these terms that are valid today. A permission allows the actions that it names, even if the
    terms forbid them.
    """
    if not permissions:
        return _verdict(terms, role, intent, None)
    verdicts = []
    for action in intent.actions:  # a permission may be about only some of the actions
        allowing = next((one for one in permissions if action in one.allows), None)
        verdicts.append(_verdict(terms, role, intent.model_copy(update={"actions": (action,)}), allowing))
    return join(verdicts or [_verdict(terms, role, intent, None)])


def _verdict(terms: Terms, role: Role, intent: AuditSection, permission: Permission | None) -> Verdict:
    judged = [
        *_commercial(terms, intent),
        *_training(terms, role, intent),
        *_sharing(terms, role, intent),
        *_scale(terms, intent),
        *_region(terms, intent),
        *_tools(terms, role, intent),
        *_checkpoint(terms, role),
    ]
    if terms.contract and role.account == "third_party":
        judged = [_of_a_third_party(one) for one in judged]
    if permission is not None:
        judged = [("ALLOW", f"{permission.text()} ({why})") if said == "DENY" else (said, why) for said, why in judged]
    judged += _unknown(terms)
    obligations = frozenset(_obligations(terms, role, intent))
    judged += _name(obligations, intent)
    status = worst(status for status, _ in judged)
    return Verdict(status, obligations, frozenset(reason for _, reason in judged))


def _unknown(terms: Terms) -> Iterator[Judged]:
    if terms.commercial_use == terms.train_on_outputs == "unknown":
        if not terms.source:
            yield "UNKNOWN", f"terms '{terms.id}' are not in the catalog"
        elif terms.confidence == "unread":
            yield "UNKNOWN", f"nobody read the terms '{terms.id}' for the catalog"
        else:
            yield "UNKNOWN", "no license is stated"
    elif terms.commercial_use == "unknown":
        yield "UNKNOWN", "it is not known whether commercial use is allowed"
    elif terms.train_on_outputs == "unknown":
        yield "UNKNOWN", "it is not known whether models may be trained on outputs"


def _of_a_third_party(judged: Judged) -> Judged:
    status, reason = judged
    if STATUSES.index(status) <= STATUSES.index("CONTESTED"):
        return judged
    return "CONTESTED", f"{reason}; the contract binds the holder of the account, who is a third party"


def _commercial(terms: Terms, intent: AuditSection) -> Iterator[Judged]:
    if intent.use != "commercial":
        return
    if terms.commercial_use == "no":
        yield "DENY", "commercial use is not granted"
    elif terms.commercial_use == "conditional":
        yield "CONTESTED", f"commercial use under a condition: {terms.condition}"


def _training(terms: Terms, role: Role, intent: AuditSection) -> Iterator[Judged]:
    if role.name == BASE or not _MAKES_STUDENT & set(intent.actions) or terms.train_on_outputs == "unknown":
        return
    status, reason = _learning(terms, intent)
    if role.name in _BESIDE and status != "ALLOW":
        yield "CONTESTED", f"{reason}; as a {role.name}, it wrote nothing that the student learns from"
    elif status != "ALLOW" or role.name not in _REWRITTEN:
        yield status, reason


def _learning(terms: Terms, intent: AuditSection) -> Judged:
    """Whether a student may learn from the licensed data, or from what the licensed model wrote."""
    fixed: dict[str, Judged] = {
        "allow": ("ALLOW", "the terms allow training"),
        "silent": ("ALLOW", "the terms do not mention training"),
        "contested": ("CONTESTED", "the terms can be read as allowing training and as forbidding it"),
    }
    rule = terms.train_on_outputs
    if rule in fixed:
        return fixed[rule]
    if rule == "research":
        if intent.use == "research":
            return "ALLOW", "training is allowed for research"
        return "DENY", "training is allowed for research only"
    if rule == "family":
        return _family(terms.family, intent.student_family.lower())
    competes, key = intent.competes_with(terms.family)
    if rule == "deny" and terms.unless_competing and competes == "no":
        return "CONTESTED", f"models may not be trained on outputs, but {terms.unless_competing}"
    if rule == "deny":
        return "DENY", "models may not be trained on outputs"
    verdicts: dict[str, Judged] = {
        "no": ("ALLOW", "competing models may not be trained; the recipe says that the student does not compete"),
        "yes": ("DENY", "a competing model may not be trained on outputs"),
        "unknown": ("UNKNOWN", f"a competing model may not be trained, and the recipe does not set {key}"),
    }
    return verdicts[competes]


def _family(family: str, student: str) -> Judged:
    if student == family.lower():
        return "ALLOW", f"training is allowed within the {family} family"
    only = f"outputs may train models of the {family} family only"
    if not student:
        return "UNKNOWN", f"{only}, and the recipe does not set audit.student_family"
    if family.lower().startswith(student):
        return "UNKNOWN", f"{only}, and audit.student_family does not say which version the student belongs to"
    return "DENY", only


def _sharing(terms: Terms, role: Role, intent: AuditSection) -> Iterator[Judged]:
    if "share_data" in intent.actions and role.name not in ("judge", BASE):
        if terms.no_redistribution:
            yield "DENY", "the data may not be redistributed"
        if terms.no_derivatives and role.name in _REWRITTEN:
            yield "DENY", "rewritten rows may not be shared"
    if terms.student_terms == "contested" and "release_weights" in intent.actions and role.name not in (*_BESIDE, BASE):
        yield "CONTESTED", "whether a student inherits these terms is contested"


def _scale(terms: Terms, intent: AuditSection) -> Iterator[Judged]:
    for limit in terms.thresholds:
        actual, words = _measured(limit, intent), limit.measure.replace("_", " ")
        if limit.then == "deny" and actual is not None and actual > limit.above:
            yield "DENY", f"more than {limit.above:,.0f} {words}: {limit.text}"
        elif limit.then == "deny" and actual is None and intent.use == "commercial":
            key = "monthly_users" if limit.measure == "monthly_users" else "yearly_revenue_usd"
            yield (
                "UNKNOWN",
                f"nothing is granted above {limit.above:,.0f} {words}, and the recipe does not set audit.{key}",
            )


def _measured(limit: Threshold, intent: AuditSection) -> float | None:
    revenue = intent.yearly_revenue_usd
    monthly = None if revenue is None else revenue / 12
    return {
        "monthly_users": intent.monthly_users,
        "yearly_revenue_usd": revenue,
        "monthly_revenue_usd": monthly,
    }[limit.measure]


def _region(terms: Terms, intent: AuditSection) -> Iterator[Judged]:
    excluded = sorted({region.upper() for region in terms.excluded_regions} & {one.upper() for one in intent.regions})
    if excluded:
        yield "DENY", f"nothing is granted in {', '.join(excluded)}"
    elif terms.excluded_regions and not intent.regions:
        named = ", ".join(terms.excluded_regions)
        yield "UNKNOWN", f"nothing is granted in {named}, and the recipe does not set audit.regions"


def _tools(terms: Terms, role: Role, intent: AuditSection) -> Iterator[Judged]:
    if role.name == BASE or not _MAKES_STUDENT & set(intent.actions):
        return
    for tool in sorted(set(role.tools) & set(terms.tools)):
        if terms.tools[tool] == "unknown":
            yield "UNKNOWN", f"output of the tool {tool} has terms of its own, which are not known"
        else:
            status: Status = "CONTESTED" if role.name in _BESIDE else "DENY"
            yield status, f"models may not be trained on output of the tool {tool}"


def _checkpoint(terms: Terms, role: Role) -> Iterator[Judged]:
    if terms.contract and role.name == BASE:
        yield "UNKNOWN", "the contract of a service does not say what may be done with weights"


def _name(obligations: frozenset[Obligation], intent: AuditSection) -> Iterator[Judged]:
    for one in sorted(obligations):
        if one.duty == "name_prefix" and intent.student_name and not intent.student_name.startswith(one.values[0]):
            yield "DENY", f"the student's name '{intent.student_name}' does not begin with '{one.values[0]}'"


def _obligations(terms: Terms, role: Role, intent: AuditSection) -> Iterator[Obligation]:
    """The obligations when rows are shared, and when the student is released or served."""
    actions = set(intent.actions)
    shares = "share_data" in actions and role.name not in ("judge", BASE)
    base = role.name == BASE
    publishes = bool(_PUBLISHES_STUDENT & actions) and role.name not in _BESIDE
    releases = "release_weights" in actions and role.name not in _BESIDE
    if terms.credit and (shares or releases):
        yield Obligation("credit", terms.id, terms.credit)
    if terms.notice and (shares or (releases and (base or terms.student_terms == "flow_down"))):
        yield Obligation("notice", terms.id, terms.notice)
    if terms.statement and publishes:
        yield Obligation("statement", terms.id, f"state: {terms.statement}")
    if terms.use_policy and publishes and (base or terms.student_terms == "flow_down"):
        yield Obligation("flow_down", terms.id, f"pass on: {terms.use_policy}")
    if terms.name_prefix and publishes:
        text = f"the student's name begins with '{terms.name_prefix}'"
        yield Obligation("name_prefix", terms.id, text, (terms.name_prefix,))
    if terms.share_alike and (shares or (releases and (base or terms.student_terms == "contested"))):
        text = f"share what is adapted under {' or '.join(terms.share_alike)}"
        yield Obligation("share_alike", terms.id, text, terms.share_alike)
        if terms.no_further_terms:
            yield Obligation("no_further_terms", terms.id, "add no further restrictions")
    for limit in terms.thresholds:
        actual = _measured(limit, intent)
        if limit.then == "statement" and publishes and (actual is None or actual > limit.above):
            words = limit.measure.replace("_", " ")
            yield Obligation("statement", terms.id, f"above {limit.above:,.0f} {words}: {limit.text}")
