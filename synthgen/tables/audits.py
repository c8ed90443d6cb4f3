"""AUDITS: the audits that `synthgen audit` runs on a corpus or a student. The worst status decides whether the gate
passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from synthgen.tables.reference import Reference


@dataclass(frozen=True)
class Audit:
    """One audit. `run(subject, section)` gets a `synthgen.auditing.result.Subject` and the audit's section of the
    recipe, and returns an `AuditResult`: its status, its findings and its figures.

    `about` is one line for people. `key` is the key of its settings in the recipe's `audit` section; "" means the
    section itself, which is the intended use. An audit whose key is null in the recipe does not run.
    """

    about: str
    run: Reference
    key: str = ""


AUDITS: dict[str, Audit] = {
    "license": Audit(
        about="Judges the intended use by the licenses and terms of all sources.",
        run="synthgen.auditing.license:audit_licenses",
    ),
}
