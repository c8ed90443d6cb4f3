"""The license audit: what the licenses of all sources say about an intended use. This is not legal advice: the audit
only reports what the license texts say.

Statuses are ordered from best to worst: ALLOW, CONTESTED, UNKNOWN, DENY. A row gets the worst status of its sources, so
another source never improves the row's status. A license that is not in the catalog never counts as allowed. The facts
about licenses are in data/licenses.yaml. Each entry states which version of the license text was read.
"""

from __future__ import annotations

import datetime
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from synthgen import corpus
from synthgen.auditing.result import AuditResult, Finding, Status, Subject, worst
from synthgen.errors import UserError
from synthgen.recipe import AuditSection, shipped

Term = tuple[str, str, str]
"""The id, role and license of a source."""
# The roles of models and texts whose license may forbid training on the rows that were made with them.
_OF_OUTPUTS = ("generator", "logits", "rewriter", "seed", "dataset")
_TEXTS = ("seed", "dataset")  # roles of texts that rows are made from


def audit_licenses(subject: Subject, section: AuditSection) -> AuditResult:
    """Judge every source of every kept or rejected row, and the student's other sources.

    The figure `rows` is the number of rows with each status. The status of a row is the worst status of its sources, or
    UNKNOWN when the row has no sources.
    """
    today = datetime.date.today()
    combinations = source_combinations(subject)
    terms = {term for combination in combinations for term in combination}
    terms |= {(one["source"], one["role"], one["license"]) for one in subject.of_student}
    findings = {term: judge(*term, section, today) for term in sorted(terms)}
    rows: Counter[Status] = Counter()
    for combination, count in combinations.items():
        rows[worst(findings[term].status for term in combination) if combination else "UNKNOWN"] += count
    status = worst([*(finding.status for finding in findings.values()), *rows])
    return AuditResult(status, tuple(findings.values()), {"rows": dict(sorted(rows.items()))})


def source_combinations(subject: Subject) -> Counter[tuple[Term, ...]]:
    """For each set of sources that occurs in the corpus: the number of rows with exactly these sources. Reads only the
    column `sources`, in batches.
    """
    combinations: Counter[tuple[Term, ...]] = Counter()
    for part in ("data", "rejected"):  # a student may still learn from the distributions of rejected rows
        for _, batch in corpus.batches(subject.corpus, part, ["sources"], rows=65536):
            combinations.update(_combinations(batch["sources"]))
    return combinations


def _combinations(sources: pa.Array) -> Counter[tuple[Term, ...]]:
    """For each set of sources that occurs in a batch: the number of rows with exactly these sources. Python code runs
    once for each set, not for each row.
    """
    flat = sources.flatten()
    names = [pc.fill_null(pc.struct_field(flat, name), "") for name in ("id", "role", "license")]
    coded = pc.binary_join_element_wise(*names, "\0").dictionary_encode()
    terms: list[Term] = [tuple(text.split("\0")) for text in coded.dictionary.to_pylist()]
    codes = np.asarray(coded.indices.to_numpy(zero_copy_only=False))
    lengths = np.asarray(pc.fill_null(pc.list_value_length(sources), 0).to_numpy(zero_copy_only=False))
    starts = np.cumsum(lengths) - lengths
    combinations: Counter[tuple[Term, ...]] = Counter()
    for length in np.unique(lengths).tolist():
        of_length = starts[lengths == length]
        if not length:
            combinations[()] += len(of_length)
            continue
        rows = np.sort(codes[of_length[:, None] + np.arange(length)], axis=1)
        different, counts = np.unique(rows, axis=0, return_counts=True)
        for row, count in zip(different.tolist(), counts.tolist(), strict=True):
            combinations[tuple(sorted(terms[code] for code in row))] += count
    return combinations


@lru_cache
def catalog() -> dict[str, dict[str, Any]]:
    """Maps each license id and each alias in data/licenses.yaml, in lower case, to the license's entry in this file."""
    path = shipped("data") / "licenses.yaml"
    entries = yaml.safe_load(path.read_text())["terms"]
    by_name: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for name in (entry["id"], *entry.get("aliases", ())):
            if name.lower() in by_name:
                raise UserError(f"{path}: the name '{name}' occurs twice")
            by_name[name.lower()] = entry
    return by_name


def judge(source: str, role: str, terms: str, intent: AuditSection, today: datetime.date) -> Finding:
    """Compare the terms of one source with the intended use."""
    entry = catalog().get(terms.lower())
    if entry is None:
        return Finding(source, role, terms, "UNKNOWN", (f"terms '{terms}' are not in the catalog",))
    verdicts: list[tuple[Status, str]] = []
    if intent.use == "commercial":
        verdicts.append(_commercial(entry))
    if "train" in intent.actions and role in _OF_OUTPUTS:
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
        obligations=tuple(obligations),
        notes=_staleness(entry, today),
    )


def _commercial(entry: dict[str, Any]) -> tuple[Status, str]:
    verdicts: dict[str, tuple[Status, str]] = {
        "yes": ("ALLOW", ""),
        "no": ("DENY", "commercial use is not granted"),
        "conditional": ("CONTESTED", f"commercial use under conditions: {entry.get('condition', 'see the text')}"),
        "unknown": ("UNKNOWN", "the text does not say whether commercial use is allowed"),
    }
    return verdicts[entry["commercial_use"]]


def _train(entry: dict[str, Any], role: str, intent: AuditSection) -> tuple[Status, str]:
    rule = entry["train_on_outputs"]
    verdicts: dict[str, tuple[Status, str]]
    if rule == "noncompete":
        verdicts = {
            "no": (
                "ALLOW",
                "competing models may not be trained; the recipe says that the student does not compete",
            ),
            "yes": ("DENY", "a competing model may not be trained on outputs"),
            "unknown": ("UNKNOWN", "a competing model may not be trained, and the recipe does not set audit.competes"),
        }
        return verdicts[intent.competes]
    if rule == "family":
        if intent.student_family.lower() == entry.get("family", "").lower():
            return "ALLOW", f"training is allowed within the {entry['family']} family"
        return "DENY", f"outputs may train models of the {entry['family']} family only"
    if rule == "research" and intent.use == "research":
        return "ALLOW", "training is allowed for research"
    verdicts = {
        "allow": ("ALLOW", "the terms allow training explicitly" if role not in _TEXTS else ""),
        "silent": ("ALLOW", "the terms do not mention training" if role not in _TEXTS else ""),
        "research": ("DENY", "training is allowed for research only"),
        "deny": ("DENY", "models may not be trained on outputs"),
        "unknown": ("UNKNOWN", "the text does not say whether models may be trained on outputs"),
    }
    return verdicts[rule]


def _share(entry: dict[str, Any], role: str, intent: AuditSection) -> tuple[Status, str]:
    if entry.get("no_redistribution") and "share_data" in intent.actions:
        return "DENY", "the data may not be redistributed"
    if entry.get("no_derivatives") and "share_data" in intent.actions and role in _TEXTS:
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
