"""AUDITS: the audits that `synthgen audit` runs on a corpus or a student. The worst status of all audits decides
whether the command fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from synthgen.tables.reference import Reference

Topic = Literal["bias", "privacy"]
"""What the tests of an audit are about."""
TOPICS: tuple[Topic, ...] = get_args(Topic)


@dataclass(frozen=True)
class Audit:
    """One audit. `run(subject, section)` gets a `synthgen.auditing.result.Subject` and the audit's settings from the
    recipe, and returns an `AuditResult`: a status, findings and figures.

    `about` says in one line what is audited. `key` is the key of the settings in the recipe's `audit` section; "" means
    that `run` gets the whole section, which is the intended use. An audit whose key is null in the recipe does not run.

    The page and the cards show the tests of an audit together with all tests of the same `topic`. If `asks_student` is
    true, the audit tests a student, and also runs on a model whose corpus is not known. If `heading` is not "", the
    cards and the page show the notes of the audit below this heading. `needs` names the packages of the extra `audit`
    that the audit imports.
    """

    about: str
    run: Reference
    key: str = ""
    topic: Topic = "bias"
    asks_student: bool = False
    heading: str = ""
    needs: tuple[str, ...] = ()


AUDITS: dict[str, Audit] = {
    "rows": Audit(
        about="Does not pass a corpus without kept rows, because there is nothing to judge.",
        run="synthgen.auditing.rows:audit_rows",
    ),
    "license": Audit(
        about="Judges the intended use by the licenses and terms of all sources.",
        run="synthgen.auditing.license:audit_licenses",
    ),
    "inheritance": Audit(
        about="Says whether student and teacher come from the same model, so that hidden traits can pass between them.",
        run="synthgen.auditing.inheritance:audit_inheritance",
        heading="Hidden traits",
    ),
    "bias": Audit(
        about="Tests how the rows speak of groups of people, and whom curation drops.",
        run="synthgen.bias:audit_bias",
        key="bias",
        needs=("scipy", "numba"),
    ),
    "models": Audit(
        about="Measures the bias of a student, and what it inherited from its teacher.",
        run="synthgen.auditing.models.job:audit_models",
        key="models",
        asks_student=True,
        needs=("scipy",),
    ),
    "privacy": Audit(
        about="Searches personal data and private texts in the rows, and measures what a student reveals of them.",
        run="synthgen.privacy:audit_privacy",
        key="privacy",
        topic="privacy",
        asks_student=True,
        needs=("scipy",),
    ),
}
