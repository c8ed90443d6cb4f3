"""Writes the student's model card, README.md: the corpus, the licenses, how to run the student, evaluation results.

The YAML header has the metadata of the Hugging Face hub. Evaluation results are included only if the student has been
evaluated. The header has no entry for an unknown fact; the text then says that the fact is unknown.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from synthgen import corpus, durable
from synthgen.auditing import folder_of, intent_of
from synthgen.auditing.notices import NAME
from synthgen.cards import (
    audit_sections,
    environment,
    header,
    hub_license,
    is_hub_id,
    markdown_rows,
    markdown_table,
)
from synthgen.lineage import BASE, sources_of, student_sources
from synthgen.manifest import Manifest
from synthgen.recipe import Recipe
from synthgen.removed import outdated
from synthgen.results.audit import StoredAudit, audit_of_student, read_audit
from synthgen.results.evaluation import Evaluation, read_evaluation
from synthgen.results.measures import columns, middle
from synthgen.results.statement import statement_of
from synthgen.results.statement_text import HEADER, TITLE, words_of
from synthgen.results.training import Training, read_training
from synthgen.tables.students import KINDS


@dataclass
class Written:
    """Facts about the origin of a corpus that are recorded in its rows, not in its manifest.

    `served` maps a teacher's name in the rows to the names of the models that answered for this teacher, as the servers
    stated them. `read_on` maps a source to the dates of its terms, as the rows state them.
    """

    served: dict[str, set[str]] = field(default_factory=dict)
    read_on: dict[str, set[str]] = field(default_factory=dict)


def write_model_card(
    folder: Path,
    recipe: Recipe,
    manifest: Manifest,
    training: Training | None = None,
    evaluation: Evaluation | None = None,
    *,
    source: Path | None = None,
) -> None:
    """Write README.md of the student in `folder`.

    `manifest` is the manifest of the student's corpus, and `source` the corpus's folder. Without `source`, the card
    leaves out facts that are recorded only in the rows and in their audit. When `training` or `evaluation` is left out,
    it is read from `folder`.
    """
    if training is None:
        training = read_training(folder / "training.json")
    measured = folder / "evaluation.json"
    if evaluation is None and measured.exists():
        evaluation = read_evaluation(measured)
    tables = {"quality": "", "cost": ""}
    if evaluation is not None:
        for about in tables:
            shown = columns(evaluation.measures, evaluation.table.values(), about)
            rows = {name: row for name, row in evaluation.table.items() if any(key in row for key in shown)}
            tables[about] = markdown_table(shown, rows) if shown else ""
    written = written_in(source) if source else Written()
    statement = words_of(statement_of(folder, training.kind, evaluation.statement if evaluation else None))
    corpus_sha256 = durable.digest(manifest["files"])
    audit = _audit(source, recipe, corpus_sha256) if source else None
    sections = audit_sections(audit, audit_of_student(folder)) if source else ""
    terms = hub_license(one["license"] for one in student_sources(recipe) if one["role"] == BASE)
    text = (
        environment()
        .get_template("model_card.md.j2")
        .render(
            head=header(
                {**_head(folder, recipe, manifest, training), **terms, **_results(manifest, training, evaluation)}
            ),
            has_license=bool(terms),
            has_notice=(folder / NAME).exists(),
            manifest=manifest,
            written=written,
            audit_sections=sections,
            authors=authors(manifest, written),
            sources=sources_of(recipe, manifest),
            corpus_sha256=corpus_sha256,
            training=training,
            evaluation=evaluation,
            statement=statement,
            statement_title=TITLE,
            statement_table=markdown_rows(HEADER, statement.lines) if statement.lines else "",
            **tables,
        )
    )
    gone = outdated(folder.parent, folder)
    durable.write_text(folder / "README.md", gone.marked(text) if gone else text)


def _audit(source: Path, recipe: Recipe, corpus_sha256: str) -> StoredAudit | None:
    """The audit of the corpus for the intended use of this student; the gate of training requires the same audit."""
    intent = intent_of(recipe.audit, student_sources(recipe))
    report = source.parent / "audit" / folder_of(intent, source.name) / "report.json"
    audit = read_audit(report) if report.exists() else None
    return audit if audit and audit.corpus_sha256 == corpus_sha256 else None


def written_in(source: Path) -> Written:
    """Read facts about the origin of a corpus from its kept rows."""
    found = Written()
    for _, batch in corpus.batches(source, "data", ["teacher", "served_model", "sources"]):
        pairs = pa.table({"teacher": batch["teacher"], "served": batch["served_model"]})
        for pair in pairs.group_by(["teacher", "served"]).aggregate([]).to_pylist():
            names = found.served.setdefault(pair["teacher"], set()) if pair["teacher"] else set()
            names.update([pair["served"]] if pair["served"] else [])
        every = batch["sources"].flatten()
        dated = every.filter(pc.is_valid(pc.struct_field(every, "terms_date")))
        for one in dated.to_pylist():
            found.read_on.setdefault(one["id"], set()).add(one["terms_date"])
    return found


def authors(manifest: Manifest, written: Written) -> str:
    """The names of the teachers that wrote the rows of a corpus, in words. The names come from the manifest, or from
    the rows if the manifest names no teacher. "" when unknown.
    """
    stated = manifest["teachers"]
    wrote = [key for key in stated if key in written.served] or list(stated)
    named = [str(stated[key]["model"]) for key in wrote] or sorted(written.served)
    return " and ".join(dict.fromkeys(named))


def _head(folder: Path, recipe: Recipe, manifest: Manifest, training: Training) -> dict[str, object]:
    """The header of the card, except for license and results."""
    kind = KINDS.get(training.kind)
    # a student of copied layers has weights of the teacher, but it is not a finetune of the whole teacher
    bases = sorted({one["source"] for one in student_sources(recipe) if one["role"] == BASE})
    bases = [name for name in bases if is_hub_id(name)]
    whole = recipe.train is not None and getattr(recipe.train.student, "model", None) in bases
    adapter = (folder / "adapter_config.json").exists()
    stated = {one["source"] for one in manifest["sources"] if one["role"] in ("seed", "dataset")}
    used = [one.dataset for one in recipe.seeds if one.dataset and one.source in stated]
    return {
        "library_name": training.library_name,
        "pipeline_tag": kind.pipeline_tag if kind else "",
        "base_model": bases,
        "base_model_relation": ("adapter" if adapter else "finetune") if whole else None,
        "datasets": sorted({name for name in used if is_hub_id(name)}),
        "tags": ["distillation", "synthgen"],
    }


def _results(manifest: Manifest, training: Training, evaluation: Evaluation | None) -> dict[str, object]:
    """The key `model-index` of the header: the student's value of each measure of quality that was evaluated."""
    kind = KINDS.get(training.kind)
    if evaluation is None or kind is None or not kind.pipeline_tag:
        return {}
    values = {name: middle(value) for name, value in evaluation.table.get(evaluation.student, {}).items()}
    metrics = [
        {"type": name, "value": value, "name": measure.title}
        for name, measure in evaluation.measures.items()
        if measure.about == "quality" and (value := values.get(name)) is not None and math.isfinite(value)
    ]
    if not metrics:
        return {}
    task, rows = manifest["task"] or "unnamed", f"{evaluation.rows} held-out {evaluation.unit}"
    result = {
        "task": {"type": kind.pipeline_tag},
        "dataset": {
            "type": re.sub(r"[^\w.-]+", "-", task, flags=re.ASCII).strip("-") or "rows",
            "name": f"{task}: {rows}",
        },
        "metrics": metrics,
    }
    return {"model-index": [{"name": task, "results": [result]}]}
