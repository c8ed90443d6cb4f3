"""The audit: may this corpus, and a student trained on it, be used as intended? The answer is a status with reasons.

The audits are the entries of the table AUDITS. Each audit returns a result with a status. The worst status is the
status of the report. The report passes with ALLOW or CONTESTED, and fails with UNKNOWN or DENY. Each intended use has
its own folder, RUN/audit/<hash of the intent>/, with report.json, report.md and attribution.md. RUN/audit/ also holds a
copy of the latest report. A report holds the hash of the corpus that it judges. `synthgen.auditing.gate` finds the
report for a training by the hash of the intent and the hash of the corpus.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from synthgen import corpus, durable, outputs
from synthgen.auditing.catalogue import catalogue_hash
from synthgen.auditing.notices import carry, notices
from synthgen.auditing.result import FAILING, AuditResult, Finding, Repair, Status, Subject, worst
from synthgen.auditing.subjects import as_trained, find
from synthgen.cards import environment, write_dataset_card
from synthgen.lineage import begins_with, student_sources
from synthgen.manifest import Facts, SourceTerms, make
from synthgen.recipe import AuditSection, Recipe, check_audits, check_recipe
from synthgen.results.audit import audit_of_student, training_hash
from synthgen.tables.audits import AUDITS, Audit, Topic
from synthgen.tables.reference import resolve
from synthgen.tables.students import CARD
from synthgen.ui import UI


@dataclass(frozen=True)
class Report:
    """The results of all audits of a corpus for one intended use.

    `status` is the worst status of all audits. `passed` is true when `status` is ALLOW or CONTESTED, or when waivers
    cover all findings that do not pass. `findings` holds the findings of all audits, and `audits` holds the result of
    each audit. `rows` maps a status to a number of rows; the status of a row is the worst status of its sources.
    `intent` holds the recipe's section `audit`, and, under the key `student`, the student's sources that are not
    sources of its rows. `corpus_sha256` is the hash of the list of the corpus's files. `student_sha256` is the hash of
    the training.json of the student that was tested; "" when none was.
    """

    status: Status
    passed: bool
    intent: dict[str, object]
    corpus_sha256: str
    findings: list[Finding]
    rows: Mapping[str, float]
    date: str
    audits: dict[str, AuditResult]
    student_sha256: str = ""

    @property
    def repairs(self) -> list[Repair]:
        """The changes after which the corpus, or more of its rows, would pass. Empty when the report passes."""
        return [one for result in self.audits.values() for one in result.repairs]

    def about(self, topic: Topic) -> list[AuditResult]:
        """The results of the audits of this topic, without results that have no measurement."""
        return [one for name, one in self.audits.items() if AUDITS[name].topic == topic and one.measurements]

    @property
    def gate(self) -> Status:
        """The status that decides whether the report passes: the status without the waived findings."""
        return worst(result.gate for result in self.audits.values())

    @property
    def notes(self) -> list[str]:
        """Remarks that are not findings, for example about a waiver that covers nothing."""
        return [note for result in self.audits.values() for note in result.notes]

    @property
    def waivers(self) -> list[str]:
        """The waivers that cover findings, in words."""
        return list(dict.fromkeys(f"{one.source} ({one.terms}) {one.waived}" for one in self.findings if one.waived))

    def text(self) -> str:
        """For people."""
        passes = ", and passes because of waivers" if self.passed and self.status in FAILING else ""
        lines = [f"{self.status} for {intended_text(self.intent)}{passes}"]
        for f in self.findings:
            reasons = "".join(f"; {reason}" for reason in f.reasons + f.notes)
            lines.append(f"  {f.status:<9} {f.source} ({f.role}, {f.terms}){reasons}")
            lines += [f"            {f.waived}"] if f.waived else []
        lines += [f"note: {note}" for note in self.notes]
        if self.repairs:
            lines.append("to make it pass:")
            lines += [f"  {one.line()}" for one in self.repairs]
        return "\n".join(lines)

    def notices(self) -> str:
        """The texts that must be stated and passed on, in Markdown; see `synthgen.auditing.notices`."""
        return notices(self.findings, intended_text(self.intent))

    def to_dict(self) -> dict[str, object]:
        """The content of report.json."""
        audits = {
            name: {
                "status": result.status,
                "figures": dict(result.figures),
                "notes": list(result.notes),
                "measurements": [asdict(one) for one in result.measurements],
            }
            for name, result in self.audits.items()
        }
        return {
            "status": self.status,
            "passed": self.passed,
            "intent": self.intent,
            "corpus_sha256": self.corpus_sha256,
            "student_sha256": self.student_sha256,
            "findings": [asdict(finding) for finding in self.findings],
            "repairs": [asdict(one) for one in self.repairs],
            "notes": self.notes,
            "waivers": self.waivers,
            "rows": dict(self.rows),
            "date": self.date,
            "audits": audits,
        }


def audit(
    recipe: Recipe,
    run: str | Path,
    *,
    use: str | None = None,
    out: str | Path | None = None,
    ask_models: bool = True,
    ui: UI | None = None,
) -> Report:
    """Judge a corpus for the intended use in the recipe's `audit` section. `use` replaces the key `audit.use`. `run` is
    a run, a corpus, the folder of a student, or any model. If `ask_models` is false, no test sends a question to a
    student or a teacher.

    Reads the curated corpus, or the generated corpus if there is no curated corpus. A student is judged by the corpus
    that it was trained on, and by the checkpoint that it began with; if the corpus is not known, the status is UNKNOWN.
    Writes the report into the folder audit/ beside the corpus or in the student's folder, or into `out`. Without `out`,
    the cards of the corpus and of the student are written again, with what the audit found. Raises UserError when the
    folder of the report overlaps the corpus or another stage's folder, and RunChanged when the folder of the report
    holds files but no audit.
    """
    check_recipe(recipe)
    ui = ui or UI(quiet=True)
    section = intended(recipe, use)
    place = find(Path(run))
    folder = Path(out) if out else place.folder
    if place.corpus is None:
        return _audit_model(recipe, section, Path(run), folder)
    source = place.corpus
    if place.student == Path(run):
        recipe = as_trained(recipe, place.student)
    if folder == Path(run) / "audit" and place.student == Path(run):
        outputs.not_around(folder, source)
    else:
        outputs.apart(folder, source, "audit")
    outputs.check(folder, outputs.AUDITED, fresh=False)
    manifest = corpus.verify(source)
    of_student = tuple(student_sources(recipe))
    student, base = place.student if ask_models else None, begins_with(recipe)
    subject = Subject(source, manifest, student, of_student, recipe, ask_models=ask_models, begins_with=base)
    results = _results(subject, section, AUDITS)
    rows = next((result.figures["rows"] for result in results.values() if "rows" in result.figures), {})
    report = Report(
        status=worst(result.status for result in results.values()),
        passed=worst(result.gate for result in results.values()) not in FAILING,
        intent=intent_of(section, of_student),
        corpus_sha256=durable.digest(manifest["files"]),
        findings=[finding for result in results.values() for finding in result.findings],
        rows=rows,
        date=datetime.date.today().isoformat(),
        audits=results,
        student_sha256=training_hash(student) if student else "",
    )
    if durable.writes():
        _write(folder, report, source.name)
        carry(source, report.notices())
        if folder == source.parent / "audit":
            write_dataset_card(source, manifest, f"{manifest['task']}: {manifest['kind']}")
        if place.student and folder == place.folder and (place.student / "README.md").is_file():
            resolve(CARD)(place.student, as_trained(recipe, place.student), manifest, source=source)
    return report


def _results(subject: Subject, section: AuditSection, audits: Mapping[str, Audit]) -> dict[str, AuditResult]:
    """Run these audits, and return their results by name. An audit does not run if its settings in the section are
    null. Raises RecipeError when a package is missing.
    """
    check_audits(section)
    settings = {name: getattr(section, one.key, None) if one.key else section for name, one in audits.items()}
    run = {name: value for name, value in settings.items() if value is not None}
    return {name: resolve(audits[name].run)(subject, value) for name, value in run.items()}


def asks_student(recipe: Recipe) -> bool:
    """Whether the recipe has the settings of an audit that tests a student."""
    return any(entry.asks_student and getattr(recipe.audit, entry.key) is not None for entry in AUDITS.values())


def audit_student(recipe: Recipe, student: Path, ui: UI | None = None) -> None:
    """Audit a student that was just trained. Nothing is done if a report was written after the training and after the
    recipe of the run, and is about the same rows.
    """
    report, stated = student / "audit" / "report.json", student.parent / "recipe.yaml"
    done, source = audit_of_student(student), find(student).corpus
    newer = done and stated.is_file() and report.stat().st_mtime_ns > stated.stat().st_mtime_ns
    if newer and done and source and done.corpus_sha256 == durable.digest(corpus.manifest(source)["files"]):
        return
    audit(recipe, student, ui=ui)


def intended(recipe: Recipe, use: str | None) -> AuditSection:
    """The recipe's section `audit`. If `use` is not None, it replaces the section's key `use`."""
    return AuditSection.model_validate({**recipe.audit.model_dump(), **({"use": use} if use else {})})


NO_FACTS: Facts = {
    "description": "",
    "task": "",
    "strategy": "",
    "prompt_version": "",
    "labels": [],
    "teachers": {},
    "sources": [],
    "counts": {},
}
"""The facts for a model whose corpus is not known."""


def _audit_model(recipe: Recipe, section: AuditSection, model: Path, folder: Path) -> Report:
    """The report on a model whose corpus is not known. No license of a row can be judged, so the status is UNKNOWN."""
    outputs.check(folder, outputs.AUDITED, fresh=False)
    why = "the corpus that this model was trained on is not known"
    results = {"rows": AuditResult("UNKNOWN", (Finding(str(model), "student", "unknown", "UNKNOWN", (why,)),))}
    subject = Subject(model, make("curated", NO_FACTS, {}), model, recipe=recipe, known=False)
    results |= _results(subject, section, {name: one for name, one in AUDITS.items() if one.asks_student})
    report = Report(
        status="UNKNOWN",
        passed=False,
        intent=intent_of(section, ()),
        corpus_sha256="",
        findings=[finding for result in results.values() for finding in result.findings],
        rows={},
        date=datetime.date.today().isoformat(),
        audits=results,
        student_sha256=training_hash(model),
    )
    if durable.writes():
        _write(folder, report, "model")
    return report


def intent_of(section: AuditSection, of_student: Sequence[SourceTerms]) -> dict[str, object]:
    """The purpose for which a report judges a corpus: the intended use, and the student that learns from the corpus.
    `of_student` are the student's sources that are not sources of its rows; see `synthgen.lineage.student_sources`. The
    settings of the tests of bias and privacy are left out, because these tests do not decide whether a student may be
    trained. The key `privacy.deny` is an exception: if it names a finding, it is part of the intent.
    """
    denied = [*section.privacy.deny] if section.privacy else []
    return {
        **section.model_dump(mode="json", exclude=_MEASURED),
        **({"privacy": {"deny": denied}} if denied else {}),
        "student": [dict(one) for one in of_student],
    }


def intended_text(intent: Mapping[str, object]) -> str:
    """The use and the actions, as text for people."""
    actions = intent["actions"]
    listed = ", ".join(map(str, actions)) if isinstance(actions, list) else str(actions)
    return f"{intent['use']} use ({listed})"


_MEASURED = {"bias", "models", "privacy"}
"""Keys of the section `audit` that say what is measured. These keys are not part of the intent, because a measurement
alone does not decide whether a report passes.
"""


def folder_of(intent: Mapping[str, object], corpus_name: str) -> str:
    """The name of the folder for the reports about the corpora named `corpus_name`, such as `curated`, and an intent.
    A run may have several curated corpora side by side, so the report about one must not overwrite the report about
    another. A report made with another version of the catalog of licenses has another folder, so it does not count any
    more.
    """
    return durable.digest([dict(intent), corpus_name, catalogue_hash()])[:16]


def _write(folder: Path, report: Report, corpus_name: str) -> None:
    """Write the report into the folder of its intended use, and then into `folder` as the latest report."""
    outputs.sweep(folder, outputs.AUDITED)
    text = environment().get_template("audit.md.j2").render(audit=report)
    for place in (folder / folder_of(report.intent, corpus_name), folder):
        durable.write_text(place / "report.md", text)
        durable.write_text(place / "attribution.md", report.notices())
        durable.write_json(place / "report.json", report.to_dict())
