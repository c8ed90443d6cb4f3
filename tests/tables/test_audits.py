"""A user can add an audit without changing the package. Its result is in the report and decides whether the audit
passes.
"""

from __future__ import annotations

import json

from support.corpora import corpus_of, curating, row

import synthgen
from synthgen.auditing.result import AuditResult, Finding
from synthgen.tables.audits import AUDITS, Audit


def counts(subject, section) -> AuditResult:
    """Denies a corpus with more than two rows."""
    rows = subject.manifest["counts"]["rows"]
    finding = Finding("the corpus", "size", "two rows", "DENY" if rows > 2 else "ALLOW", (f"{rows} rows",))
    return AuditResult(finding.status, (finding,), {"size": {"rows": rows}})


def test_an_audit_added_from_outside_decides(tmp_path, monkeypatch):
    monkeypatch.setitem(AUDITS, "size", Audit(about="Few rows.", run=counts))
    terms = {"terms_date": None, "made_by": None, "account": None, "tools": []}
    sources = [{"id": "s", "role": "seed", "license": "MIT", **terms}]
    for count, status in [(2, "ALLOW"), (3, "DENY")]:
        run = corpus_of(tmp_path / str(count), [row("x", n, sources=sources) for n in range(count)])
        report = synthgen.audit(curating(), run)
        assert (report.status, report.passed) == (status, status == "ALLOW")
        assert f"{count} rows" in report.text()
        assert f"{count} rows" in (run / "audit" / "report.md").read_text()
        stored = json.loads((run / "audit" / "report.json").read_text())
        figures = {"size": {"rows": count}}
        assert stored["audits"]["size"] == {"status": status, "figures": figures, "notes": [], "measurements": []}
        assert stored["audits"]["license"]["status"] == "ALLOW"
