"""Texts about the rows of an export: how they were made, what they may be used for, and what is known about bias.

The exports to Croissant and SPDX get these texts from the same manifest and the same audit. An empty text or list means
that nothing is known.
"""

from __future__ import annotations

import json

from synthgen.exporting.card import About
from synthgen.exporting.licenses import named
from synthgen.results import audit_text
from synthgen.results.audit import StoredAudit

WROTE = ("generator", "rewriter", "logits")
JUDGED = ("judge",)
BEGINNINGS = ("seed", "dataset")
"""Roles of sources: models that wrote rows, models that judged rows, and texts from which rows were made."""


def uses(about: About) -> list[str]:
    """What the rows may be used for, as the audit judged it."""
    if about.audit is None:
        return [audit_text.NOT_AUDITED]
    return [audit_text.verdict(about.audit), f"Date of the audit: {about.audit.date}.", audit_text.NOT_ADVICE]


def biases(audit: StoredAudit | None) -> list[str]:
    """A text for each test of bias, or the statement that no test was made."""
    tests = [one for some in audit_text.by_outcome(audit.about("bias") if audit else ()).values() for one in some]
    return [f"{one.name}, {one.subject}: {audit_text.measured(one)}" for one in tests] or [audit_text.NOT_MEASURED]


def limitations(about: About) -> list[str]:
    """What is not known about the licenses, what was left out, and what people must do when they pass the rows on."""
    unknown = [one for one in about.sources if named(one["license"]) is None]
    lines = [f"The license of {one['source']} ({one['role']}) is not known." for one in unknown]
    if not about.sources and not about.license:
        lines.append("The license of the rows is not known: nobody stated it.")
    if about.rejected:
        lines.append(f"{about.rejected} rows that curation rejected are left out.")
    return lines + duties(about.audit)


def duties(audit: StoredAudit | None) -> list[str]:
    """What people must do when they pass the rows or the student on, and the sources whose licenses require it."""
    asked = audit_text.obligations(audit) if audit else {}
    return [f"Obligation: {duty}. Asked for by {audit_text.listed(sources)}." for duty, sources in asked.items()]


def personal(about: About) -> str:
    """Whether curation searched the rows for personal data, and what the audit of privacy found in them."""
    settings = (about.manifest.get("thresholds") or {}) if about.manifest else {}
    audited = _privacy(about.audit)
    if settings.get("redact"):
        done = "Curation replaced personal data of known kinds, such as e-mail addresses, by pseudonyms."
    elif settings.get("personal_data"):
        done = "Curation rejected rows with personal data of known kinds, such as e-mail addresses."
    elif audited:
        done = "Curation did not search the rows for personal data."
    else:
        return "The rows were not searched for personal data here."
    return " ".join([done, *audited, "Names of persons were not searched for."])


def _privacy(audit: StoredAudit | None) -> list[str]:
    """One sentence for each test of privacy."""
    lines = audit_text.privacy_lines(audit.about("privacy") if audit else [])
    return [f"{one.test} ({one.subject}): {one.says}, {one.value}." for one in lines]


def collection(about: About) -> str:
    """How the rows came to be."""
    if about.manifest is None:
        return ""
    sentences = []
    if wrote := models(about, WROTE):
        sentences.append(f"Language models wrote the rows: {audit_text.listed(wrote)}.")
    if about.manifest["strategy"]:
        sentences.append(f"The strategy was `{about.manifest['strategy']}`.")
    if about.manifest["prompt_version"]:
        sentences.append(f"The prompts were made with the templates {about.manifest['prompt_version']}.")
    texts = [f"{one['source']} ({one['license']})" for one in about.sources if one["role"] in BEGINNINGS]
    if texts:
        sentences.append(f"The rows began with texts from {audit_text.listed(texts)}.")
    return " ".join(sentences)


def models(about: About, roles: tuple[str, ...]) -> list[str]:
    """The models with these roles. A model's revision is added if the manifest states it."""
    teachers = about.manifest["teachers"].values() if about.manifest else ()
    revisions = {str(one["model"]): str(one["revision"]) for one in teachers}
    names = dict.fromkeys(one["source"] for one in about.sources if one["role"] in roles)
    return [f"{name} (revision {revisions[name]})" if revisions.get(name) else name for name in names]


def annotation(about: About) -> list[str]:
    """Which models wrote and judged the rows."""
    wrote = [f"Written by {one}." for one in models(about, WROTE)]
    return wrote + [f"Judged by {one}." for one in models(about, JUDGED)]


def preprocessing(about: About) -> list[str]:
    """The rules of curation with their settings, and the number of rows that each rule was the first to reject."""
    if about.manifest is None:
        return []
    settings = about.manifest.get("thresholds") or {}
    lines = [f"{name}: {_setting(value)}" for name, value in settings.items() if value not in (None, False)]
    dropped = about.manifest.get("dropped_by") or {}
    return lines + [f"{name} was the first to reject {count} rows" for name, count in dropped.items()]


def _setting(value: object) -> str:
    return "on" if value is True else json.dumps(value, ensure_ascii=False, default=str)
