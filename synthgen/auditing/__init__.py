"""The audit: may this corpus, and a student trained on it, be used as intended? Verdict with reasons.

Writes audit/report.json, report.md and attribution.md. Strict about ignorance: UNKNOWN and DENY do not pass.
"""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from synthgen import corpus, durable
from synthgen.auditing.license import Finding, judge, worst
from synthgen.cards import environment
from synthgen.recipe import AuditSection, Recipe
from synthgen.tables.students import KINDS
from synthgen.ui import UI


@dataclass(frozen=True)
class Audit:
    """`status` is the join over all findings; `passed` when it is ALLOW or CONTESTED. `rows` counts rows whose
    own sources join to each status."""

    status: str
    passed: bool
    intent: dict[str, Any]
    findings: list[Finding]
    rows: dict[str, int]
    date: str

    def to_dict(self) -> dict[str, Any]:
        """As in report.json."""
        return asdict(self)


def audit(
    recipe: Recipe, run: str | Path, *, use: str | None = None, out: str | Path | None = None, ui: UI | None = None
) -> Audit:
    """Judge the sources of every row under the recipe's `audit` section (`use` overrides its use).

    Reads the curated corpus, or the generated one where there is no curated; writes beside it into audit/.
    """
    ui = ui or UI(quiet=True)
    intent = AuditSection.model_validate({**recipe.audit.model_dump(), **({"use": use} if use else {})})
    source = corpus.resolve(Path(run))
    corpus.verify(source)
    combinations: Counter[tuple[tuple[str, str, str], ...]] = Counter()
    for part in ("data", "rejected"):  # rejected rows teach too, by their distribution
        for _, records in corpus.records(source, part):
            for record in records:
                combinations[tuple(sorted((s["id"], s["role"], s["license"]) for s in record.sources))] += 1
    today = datetime.date.today()
    terms = {triple for combination in combinations for triple in combination}
    if recipe.train:
        kind = KINDS[recipe.train.student.kind]
        if kind.copies_teacher(recipe.train.student):
            terms.add((recipe.teacher.model, kind.audit_role, recipe.teacher.license))
    findings = {triple: judge(*triple, intent, today) for triple in sorted(terms)}
    rows: Counter[str] = Counter()
    for combination, count in combinations.items():
        # A row without lineage has an unknown teacher.
        rows[worst(findings[t].status for t in combination) if combination else "UNKNOWN"] += count
    status = worst([*(f.status for f in findings.values()), *rows])
    result = Audit(
        status,
        status in ("ALLOW", "CONTESTED"),
        intent.model_dump(mode="json"),
        list(findings.values()),
        dict(sorted(rows.items())),
        today.isoformat(),
    )
    folder = Path(out) if out else source.parent / "audit"
    durable.sweep(folder)
    durable.write_text(folder / "report.md", environment().get_template("audit.md.j2").render(audit=result))
    durable.write_text(folder / "attribution.md", environment().get_template("attribution.md.j2").render(audit=result))
    durable.write_json(folder / "report.json", result.to_dict())
    return result
