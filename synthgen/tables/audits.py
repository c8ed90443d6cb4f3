"""AUDITS: what `synthgen audit` judges of a corpus or a student. The gate says what the worst of them says."""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.tables.reference import Reference


@dataclass(frozen=True)
class Audit:
    """One audit. `run(subject, section)` gets a `synthgen.auditing.result.Subject` and the audit's section of the
    recipe, and returns an `AuditResult`: its status, its findings and its figures.

    `about`: one line for people. `key`: where its settings stand in the recipe's `audit` section; "" for the section
    itself, the intended use. An audit whose key is null in the recipe does not run.
    """

    about: str
    run: Reference
    key: str = ""


AUDITS: dict[str, Audit] = {
    "license": Audit(
        about="What the licenses and terms of all sources say of the intended use.",
        run="synthgen.auditing.license:audit_licenses",
    ),
}
