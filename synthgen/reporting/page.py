"""The page of a run: one HTML file with all plots inside, which needs no server and no network.

    report("runs/demo")                   # → runs/demo/report.html

The page can be made at any stage of the run. The page shows the results that exist at that time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from synthgen import corpus, durable
from synthgen.errors import CorpusError
from synthgen.files import is_regular, parse_json, read_text
from synthgen.manifest import Manifest
from synthgen.records import SPLITS
from synthgen.removed import notices, refuse_half
from synthgen.reporting.audit import audit_view
from synthgen.reporting.look import Seen, kinds, look
from synthgen.results import statement_text
from synthgen.results.audit import audit_of_student, read_audit
from synthgen.results.curve import read_curve
from synthgen.results.evaluation import Evaluation, read_evaluation
from synthgen.results.export import Export, read_export
from synthgen.results.measures import shown
from synthgen.results.statement import statement_of
from synthgen.results.statement_text import Shown, words_of
from synthgen.results.training import Training, read_training
from synthgen.tally import funnel
from synthgen.visible import finalize


@dataclass(frozen=True)
class Report:
    """The result of `report`: the path of the page that was written."""

    path: Path

    def to_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {"report": str(self.path)}

    def text(self) -> str:
        """The page's path."""
        return str(self.path)


@dataclass
class _Student:
    """The results of training, evaluation and exports. A result is None or empty if the command that makes it has not
    finished.
    """

    training: Training | None = None
    evaluation: Evaluation | None = None
    exports: list[Export] = field(default_factory=list)


def report(run: str | Path) -> Report:
    """Write RUN/report.html from the run's files.

    Raises CorpusError when there is no finished corpus, and UserError when matplotlib is not installed.
    """
    folder = Path(run)
    refuse_half(folder)
    if not (folder / "generated" / "manifest.json").exists():
        raise CorpusError(
            f"{folder} has no finished corpus to report on" if folder.exists() else f"'{folder}' does not exist",
            "make one: `synthgen run RECIPE -o RUN`",
        )
    environment = Environment(
        loader=PackageLoader("synthgen", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        finalize=finalize,
    )
    environment.filters.update(pct=lambda v: shown(v, "percent"), num=lambda v: shown(v, "rate"))
    html = environment.get_template("report.html.j2").render(**_page(folder))
    durable.write_text(folder / "report.html", html)
    return Report(folder / "report.html")


def _page(folder: Path) -> dict[str, Any]:
    """The variables with which the page's template is rendered."""
    generated = corpus.manifest(folder / "generated")
    curated = corpus.manifest(folder / "curated") if (folder / "curated" / "manifest.json").exists() else None
    source, manifest = (folder / "curated", curated) if curated else (folder / "generated", generated)
    sides = {
        "kept": look(source, "data", manifest, generated["labels"]),
        "rejected": look(source, "rejected", manifest, generated["labels"]),
    }
    student = _student(folder / "student")
    recipe = folder / "recipe.yaml"
    audit = folder / "audit" / "report.json"
    return {
        "generated": generated,
        "counts": {"generated": _counts(generated), "curated": _counts(curated) if curated else None},
        "figures": _figures(generated, curated, student.evaluation),
        "funnel": funnel(manifest),
        "sides": sides,
        "kinds": kinds(*sides.values()),
        "splits": [
            (split, *(seen.splits[split] for seen in sides.values()))
            for split in SPLITS
            if any(seen.splits[split] for seen in sides.values())
        ],
        "disk": _disk(folder, generated),
        "removed": notices(folder),
        "stages": _stages(folder),
        "recipe": read_text(recipe, "repeat `synthgen run`, or move the file away") if recipe.exists() else "",
        **audit_view(
            read_audit(audit) if audit.exists() else None,
            durable.digest(manifest["files"]),
            audit_of_student(folder / "student"),
        ),
        **_of_student(student, folder),
        **_corpus_plots(curated, sides),
    }


def _student(folder: Path) -> _Student:
    """Read the results in the student's folder."""
    training, evaluation = folder / "training.json", folder / "evaluation.json"
    return _Student(
        read_training(training) if training.exists() else None,
        read_evaluation(evaluation) if evaluation.exists() else None,
        [read_export(path) for path in sorted(folder.glob("export-*.json"))],
    )


def _of_student(student: _Student, folder: Path) -> dict[str, Any]:
    """The variables of the page's template that are about the student: results, tables and plots."""
    from synthgen.reporting import plots, tables

    evaluation, training = student.evaluation, student.training
    curve = folder / "student" / "curve.json"
    drawn = plots.evaluation_plots(evaluation) if evaluation else []
    drawn += [plots.curve_plot(read_curve(curve))] if curve.exists() else []
    drawn += [plots.loss_plot(training)] if training and any(training.metrics.values()) else []
    return {
        "training": training,
        "evaluation": evaluation,
        "statement": _statement(student, folder / "student"),
        "statement_text": statement_text,
        "student_tables": tables.evaluation_tables(evaluation) if evaluation else [],
        "differences": tables.differences(evaluation) if evaluation else [],
        "parts": tables.parts_table(evaluation) if evaluation else None,
        "student_plots": drawn,
        "exports": [(export, tables.export_table(export)) for export in student.exports],
    }


def _statement(student: _Student, folder: Path) -> Shown | None:
    """What the student lost or gained. None when there is no student."""
    if student.training is None:
        return None
    evaluated = student.evaluation.statement if student.evaluation else None
    return words_of(statement_of(folder, student.training.kind, evaluated))


def _corpus_plots(curated: Manifest | None, sides: dict[str, Seen]) -> dict[str, Any]:
    """The plots of rejection reasons and of completion lengths. A plot without data is left out."""
    from synthgen.reporting import plots

    drawn = [plots.rejected_plot(curated["rejected_by"])] if curated and curated.get("rejected_by") else []
    lengths = {name: seen.lengths for name, seen in sides.items()}
    if any(length > 0 for side in lengths.values() for length in side):
        drawn.append(plots.lengths_plot(lengths))
    return {"corpus_plots": drawn}


def _counts(manifest: Manifest) -> Counter[str]:
    """The counts of a manifest by name. A count that the manifest does not have is 0."""
    return Counter({name.replace(" ", "_"): count for name, count in manifest["counts"].items()})


def _figures(generated: Manifest, curated: Manifest | None, evaluation: Evaluation | None) -> list[tuple[str, str]]:
    """Pairs (label, value) for the key figures below the title of the page."""
    found = [("rows generated", shown(_counts(generated)["rows"], "rate"))]
    if curated:
        counts = _counts(curated)
        found.append(("rows kept", shown(counts["kept"], "rate")))
        if counts["tokens_kept"]:  # rows of strategy `classify` have no tokens
            found.append(("tokens kept", shown(counts["tokens_kept"], "rate")))
        if counts["answers_checked"]:
            share = counts["answers_correct"] / counts["answers_checked"]
            found.append(("answers right", shown(share, "percent")))
    return found + [(figure.label, figure.text()) for figure in (evaluation.figures if evaluation else ())]


def _disk(folder: Path, generated: Manifest) -> list[tuple[str, int, str]]:
    """(folder or file, bytes, remark) for each folder or file of the run."""
    parts: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            inner = path.relative_to(folder).parts
            deep = inner[0] in ("generated", "curated") and len(inner) > 2
            parts["/".join(inner[:2]) if deep else inner[0]] += path.stat().st_size
    tokens = _counts(generated)["tokens"]
    return [
        (name, size, f"{size / tokens:.1f} bytes a token" if name == "generated/logits" and tokens else "")
        for name, size in sorted(parts.items())
    ]


def _stages(folder: Path) -> list[tuple[str, float]]:
    """How many seconds each stage took when it last did any work."""
    path = folder / "log.jsonl"
    last: dict[str, float] = {}
    for line in path.read_bytes().decode(errors="replace").splitlines() if is_regular(path) else []:
        try:
            entry = parse_json(line)
        except ValueError:
            continue  # the machine crashed while this line was written, so the line is incomplete
        if isinstance(entry, dict) and entry.get("worked") is True and isinstance(entry.get("seconds"), int | float):
            last[str(entry.get("stage"))] = float(entry["seconds"])
    return list(last.items())
