"""The gate of training: a student is trained only if an audit of its corpus passed for the intended use of this
student.

    passage = check(recipe, Path("runs/first/curated"))  # raises GateDenied
    passage.status, passage.overridden                   # "ALLOW", False

A report counts if it was made from the same corpus, for the same section `audit`, and for a student with the same
sources. Without such a report, training is refused. With `override`, the gate opens in any case, and the passage says
so.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from synthgen import corpus, durable
from synthgen.auditing import audit, folder_of, intent_of
from synthgen.auditing.result import FAILING
from synthgen.errors import GateDenied, SynthgenError
from synthgen.files import read_text
from synthgen.lineage import student_sources
from synthgen.manifest import SourceTerms
from synthgen.recipe import AuditSection, Recipe, load_recipe
from synthgen.recipe.exceptions import Permission, Waiver
from synthgen.results.audit import Intent, StoredAudit, read_audit
from synthgen.results.stored import parse
from synthgen.results.training import Passage

NO_AUDIT = "no audit"
"""The status of a passage when there is no report that counts."""
_ANYWAY = "; --override-audit trains anyway, and every card will say so"
_KEYS = ("source", "role", "license")
_STATE = {
    "dataset": "state the license of the rows with --license ID",
    "student_base": "state the license of the student's checkpoint with --student-license ID",
}
"""Hints for sources without a stated license, by the source's role."""


class _Finding(Protocol):
    """The facts about a finding that a refusal needs. The finding is in a new or a stored report."""

    @property
    def source(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def terms(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def waived(self) -> str: ...


class _Report(Protocol):
    """The facts about a new or a stored report that the gate needs."""

    @property
    def status(self) -> str: ...
    @property
    def passed(self) -> bool: ...
    @property
    def findings(self) -> Sequence[_Finding]: ...
    @property
    def waivers(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class _Wanted:
    """The report that a training needs: its folder and its subject."""

    folder: Path
    name: str
    intent: Intent
    place: Path
    corpus_sha256: str


def check(recipe: Recipe, source: Path, *, override: bool = False) -> Passage:
    """Check whether a student of this recipe may be trained on the corpus `source`, and return how it passes the gate.
    With `override`, the student always passes.

    Raises GateDenied when the report of the corpus for this intent is missing or does not pass. Raises CorpusError when
    the corpus is unfinished, or the report is damaged.
    """
    wanted = _wanted(recipe, source)
    report = wanted.place / "report.json"
    stored = read_audit(report) if report.exists() else None
    if stored is not None and stored.corpus_sha256 == wanted.corpus_sha256:
        ended = _ended(recipe.audit, stored.date)
        if ended and not override:
            kind = type(ended).__name__.lower()
            raise GateDenied(
                f"the {kind} of {ended.who} ended on {ended.until}, since the audit of {wanted.folder}",
                f"run {_command(wanted, recipe)}, then train again{_ANYWAY}",
            )
        passage = _passage(wanted, stored, override)
        return replace(passage, overridden=True) if ended else passage
    if override:
        return Passage(status=NO_AUDIT, use=wanted.intent.use, actions=wanted.intent.actions, overridden=True)
    if stored is None:
        raise _without_report(wanted, recipe)
    raise GateDenied(
        f"the rows of {source} have changed since the audit of {wanted.folder}",
        f"run {_command(wanted, recipe)}, then train again{_ANYWAY}",
    )


def audit_and_check(recipe: Recipe, source: Path, *, override: bool = False) -> Passage:
    """Audit the corpus `source` for this recipe, and pass the gate. This is for rows that a training has just adopted,
    because nobody could audit them before. Raises GateDenied when the audit does not pass, unless `override` is true.
    """
    report = audit(recipe, source)
    return _passage(_wanted(recipe, source), report, override)


def notice(recipe: Recipe, source: Path) -> str:
    """The text of attribution.md in the report for this intended use. It says what the licenses ask for when a student
    of this recipe, trained on the corpus `source`, is passed on. Empty when there is no report about these rows.
    """
    wanted = _wanted(recipe, source)
    path, report = wanted.place / "attribution.md", wanted.place / "report.json"
    if not (path.exists() and report.exists()) or read_audit(report).corpus_sha256 != wanted.corpus_sha256:
        return ""
    return read_text(path, "audit again: `synthgen audit RUN`")


def check_above(path: Path, *, override: bool = False) -> str | None:
    """The gate for a data set that is a folder inside a run. If the latest audit of this run does not pass and
    `override` is true, returns the status of this audit, otherwise None. Raises GateDenied when the audit does not pass
    and `override` is false.
    """
    for folder in path.resolve().parents[:2]:
        report = folder / "audit" / "report.json"
        stored = read_audit(report) if report.exists() else None
        if stored and not stored.passed:
            if override:
                return stored.status
            raise GateDenied(
                f"the audit status of {folder} is {stored.status} for {stored.intent.use} use",
                f"'{path}' holds rows of this run: read {folder}/audit/report.md{_ANYWAY}",
            )
    return None


def _ended(section: AuditSection, since: str) -> Waiver | Permission | None:
    """A waiver or permission that counted on the day of the audit, and whose last day is over now."""
    today = datetime.date.today()
    given: list[Waiver | Permission] = [*section.waivers, *section.permissions]
    return next((one for one in given if one.ended(today) and since <= (one.until or "")), None)


def _passage(wanted: _Wanted, report: _Report, override: bool) -> Passage:
    """The passage for a report that counts. Raises GateDenied when the report does not pass."""
    status, findings = report.status, report.findings
    if not report.passed and not override:
        left = [one for one in findings if one.status in FAILING and not one.waived]
        failing = [one for one in left if one.status == status] or left  # all findings with this status may be waived
        worst = [f"'{one.source}' ({one.role}, {one.terms})" for one in failing]
        because = f": {worst[0]}{f' and {len(worst) - 1} more' if len(worst) > 1 else ''}" if worst else ""
        unstated = [_STATE[one.role] for one in findings if one.terms == "unknown" and one.role in _STATE]
        raise GateDenied(
            f"the audit status of {wanted.folder} is {status} for {wanted.intent.use} use{because}",
            "; ".join([*dict.fromkeys(unstated), f"read {wanted.place}/report.md"]) + _ANYWAY,
        )
    return Passage(
        status=status,
        use=wanted.intent.use,
        actions=wanted.intent.actions,
        overridden=not report.passed,
        waivers=list(report.waivers),
    )


def _wanted(recipe: Recipe, source: Path) -> _Wanted:
    intent = intent_of(recipe.audit, student_sources(recipe))
    place = source.parent / "audit" / folder_of(intent, source.name)
    files = corpus.manifest(source)["files"]
    return _Wanted(source.parent, source.name, parse(intent, Intent), place, durable.digest(files))


def _without_report(wanted: _Wanted, recipe: Recipe) -> GateDenied:
    """The refusal when there is no report for the intent. The message says what the latest report is about."""
    latest = wanted.folder / "audit" / "report.json"
    stored = read_audit(latest) if latest.exists() else None
    hint = f"run {_command(wanted, recipe)}, then train again{_ANYWAY}"
    if stored is None:
        return GateDenied(f"{wanted.folder} was not audited for {wanted.intent.text()}", hint)
    if one := _unjudged(stored, wanted.intent):
        return GateDenied(
            f"the audit of {wanted.folder} did not judge '{one[0]}' ({one[1]}, {one[2]}), a source of this student",
            hint,
        )
    judged, needed = stored.intent.text(), wanted.intent.text()
    if judged == needed:
        judged = "other values of the section `audit`, another student, or with another catalog of licenses"
        needed = "those of this training"
    return GateDenied(f"{wanted.folder} was audited for {judged}, not for {needed}", hint)


def _unjudged(stored: StoredAudit, intent: Intent) -> tuple[object, ...] | None:
    """The first source of the student that the audit did not judge: its name, role and license."""
    judged, wanted = ([tuple(map(one.get, _KEYS)) for one in some.student] for some in (stored.intent, intent))
    return next((one for one in wanted if one not in judged), None)


def _command(wanted: _Wanted, recipe: Recipe) -> str:
    """The command that makes the report. The command uses the run's own recipe if that recipe leads to this intent."""
    command = f"synthgen audit {wanted.folder if wanted.name == 'curated' else wanted.folder / wanted.name}"
    student = recipe.train.student if recipe.train else None
    stated = {key: getattr(student, key, None) for key in ("model", "license")}
    named = [f"train.student.{key}={value}" for key, value in stated.items() if value]
    for settings in ([], named, [*named, "train.kd_weight=0"]):  # with weight 0, the student learns from text alone
        with suppress(SynthgenError):
            if _section(load_recipe(wanted.folder / "recipe.yaml", settings)) == _section(recipe):
                return f"`{' --set '.join([command, *settings])}`"
    return f"`{command}` with the --recipe and --set of this training"


def _section(recipe: Recipe) -> tuple[AuditSection, list[SourceTerms]]:
    return recipe.audit, student_sources(recipe)
