"""What the terms of teacher and seeds say about an intended use. Not legal advice: it reports texts.

A verdict is one of a chain, ALLOW < CONTESTED < UNKNOWN < DENY; sources join by taking the worst, so adding a
source never helps, and unknown terms never pass as allowed. The facts are in data/licenses.yaml, each with the
version of the text that was read.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import yaml

from synthgen.errors import UserError
from synthgen.recipe import AuditSection, shipped

STATUSES = ("ALLOW", "CONTESTED", "UNKNOWN", "DENY")


@dataclass(frozen=True)
class Finding:
    """What one source's terms say of one intent."""

    source: str
    role: str
    terms: str
    status: str
    reasons: tuple[str, ...]
    obligations: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


@lru_cache
def catalog() -> dict[str, dict[str, Any]]:
    """Terms by id and by every alias."""
    path = shipped("data") / "licenses.yaml"
    entries = yaml.safe_load(path.read_text())["terms"]
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for name in (entry["id"], *entry.get("aliases", ())):
            if name.lower() in found:
                raise UserError(f"{path}: '{name}' is there twice")
            found[name.lower()] = entry
    return found


def worst(statuses: Iterable[str]) -> str:
    """Join of the chain; ALLOW when there is nothing."""
    return max(statuses, key=STATUSES.index, default="ALLOW")


def judge(source: str, role: str, terms: str, intent: AuditSection, today: datetime.date) -> Finding:
    """Apply one source's terms to the intent."""
    entry = catalog().get(terms.lower())
    if entry is None:
        return Finding(source, role, terms, "UNKNOWN", (f"terms '{terms}' are not in the catalog",))
    verdicts: list[tuple[str, str]] = []
    if intent.use == "commercial":
        verdicts.append(_commercial(entry))
    if "train" in intent.actions and role in ("generator", "logits", "rewriter", "seed"):
        verdicts.append(_train(entry, role, intent))
    if {"share_data", "release_weights"} & set(intent.actions):
        verdicts.append(_share(entry, role, intent))
    obligations = list(entry.get("obligations", ()))
    if "release_weights" in intent.actions and entry.get("name_prefix"):
        prefix = entry["name_prefix"]
        obligations.append(f"the student's name begins with '{prefix}'")
        if intent.student_name and not intent.student_name.startswith(prefix):
            verdicts.append(("DENY", f"the student's name '{intent.student_name}' does not begin with '{prefix}'"))
    return Finding(
        source,
        role,
        entry["id"],
        worst(status for status, _ in verdicts),
        tuple(reason for _, reason in verdicts if reason),
        tuple(obligations),
        _staleness(entry, today),
    )


def _commercial(entry: dict[str, Any]) -> tuple[str, str]:
    return {
        "yes": ("ALLOW", ""),
        "no": ("DENY", "commercial use is not granted"),
        "conditional": ("CONTESTED", f"commercial use under conditions: {entry.get('condition', 'see the text')}"),
        "unknown": ("UNKNOWN", "the text does not settle commercial use"),
    }[entry["commercial_use"]]


def _train(entry: dict[str, Any], role: str, intent: AuditSection) -> tuple[str, str]:
    rule = entry["train_on_outputs"]
    if rule == "noncompete":
        return {
            "no": ("ALLOW", "training is barred for competing models only; declared as not competing"),
            "yes": ("DENY", "training a competing model on outputs is barred"),
            "unknown": ("UNKNOWN", "training a competing model is barred, and audit.competes is not declared"),
        }[intent.competes]
    if rule == "family":
        same = intent.student_family.lower() == entry.get("family", "").lower()
        allowed = ("ALLOW", f"training allowed within the {entry['family']} family")
        return allowed if same else ("DENY", f"outputs may train models of the {entry['family']} family only")
    if rule == "research" and intent.use == "research":
        return "ALLOW", "training allowed for research"
    return {
        "allow": ("ALLOW", "training is allowed by name" if role != "seed" else ""),
        "silent": ("ALLOW", "the terms are silent on training" if role != "seed" else ""),
        "research": ("DENY", "training is allowed for research only"),
        "deny": ("DENY", "training on outputs is barred"),
        "unknown": ("UNKNOWN", "the text does not settle training on outputs"),
    }[rule]


def _share(entry: dict[str, Any], role: str, intent: AuditSection) -> tuple[str, str]:
    if entry.get("no_redistribution") and "share_data" in intent.actions:
        return "DENY", "the data may not be redistributed"
    if entry.get("no_derivatives") and "share_data" in intent.actions and role == "seed":
        return "DENY", "rewritten rows may not be shared"
    if entry.get("student_terms") == "contested":
        return "CONTESTED", "whether a student inherits these terms is contested"
    return "ALLOW", ""


def _staleness(entry: dict[str, Any], today: datetime.date) -> tuple[str, ...]:
    if entry["instrument"] != "contract":
        return ()
    seen = datetime.date.fromisoformat(str(entry["read_on"]))
    age = (today - seen).days
    return (f"contract text of {entry['version']}, read {age} days ago: check for a newer one",) if age > 180 else ()
