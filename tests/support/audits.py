"""Audits with toy results.

report = audited(run, [measurement(outcome="found")])     # RUN/audit/report.json of this corpus, with tests of bias
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import synthgen
from support.corpora import curating

BIASED = {
    "name": "representation",
    "subject": "women",
    "about": "How often the completions mention the group, compared with the prompts",
    "unit": "log2 ratio",
    "n": 300,
    "clusters": 40,
    "estimate": -0.62,
    "low": -0.9,
    "high": -0.35,
    "p": 0.0001,
    "corrected_p": 0.0004,
    "family": "groups",
    "detectable": 0.3,
    "margin": 0.2,
    "note": "",
}


def measurement(**values: Any) -> dict[str, Any]:
    """A test of bias as report.json holds it."""
    return {**BIASED, "outcome": "found", **values}


def source(name: str, role: str, license: str) -> Any:
    """A source of a row."""
    return {
        "id": name,
        "role": role,
        "license": license,
        "terms_date": None,
        "made_by": None,
        "account": None,
        "tools": [],
    }


def audited(
    run: Path, measurements: Sequence[dict[str, Any]] = (), duties: Sequence[Sequence[str]] = (), **changes: Any
) -> dict[str, Any]:
    """Audits a run for research, and adds tests of bias to the report. `duties` adds obligations to the first
    findings, and `changes` replaces values of the report. Returns the report.
    """
    recipe = curating().model_copy(update={"audit": curating().audit.model_copy(update={"use": "research"})})
    synthgen.audit(recipe, run)
    path = run / "audit" / "report.json"
    report: dict[str, Any] = json.loads(path.read_text())
    report["audits"]["bias"] = {"status": "ALLOW", "figures": {}, "measurements": list(measurements)}
    for one, asked in zip(report["findings"], duties, strict=False):
        one["obligations"] = list(asked)
    report |= changes
    for place in run.glob("audit/**/report.json"):
        place.write_text(json.dumps(report))
    return report
