"""`run`: runs all stages of a recipe in order. Each stage finds out from the files of the run what is left to do."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from synthgen import corpus, durable, outputs
from synthgen.auditing import asks_student, audit, audit_student
from synthgen.curation import Curation, curate
from synthgen.curation.preview import ROWS, Preview, preview
from synthgen.datasets import adopt, open_dataset
from synthgen.errors import GateDenied, RunChanged, UserError, missing_extra
from synthgen.files import is_regular
from synthgen.generation.claim import begin, check_run, keep_recipe
from synthgen.generation.driver import generate
from synthgen.manifest import rows_of_splits
from synthgen.recipe import (
    Recipe,
    SeedSource,
    check_audits,
    check_installed,
    check_recipe,
    deciding,
    digest_of_rows,
    load_recipe,
    recipe_of_values,
    with_values,
)
from synthgen.recipe.overrides import parse_settings, read
from synthgen.recipe.places import resolve
from synthgen.removed import outdated
from synthgen.reporting.page import report
from synthgen.stores.address import url_of
from synthgen.tally import Outcome, tally
from synthgen.ui import UI

T = TypeVar("T")


@dataclass(frozen=True)
class Run:
    """The result of `run`: the folder, the seconds that each stage took, the audit's status, whether any work was done,
    and the numbers of kept rows, rejected rows and failed requests.

    `worked` is False when all files of the run already existed.
    """

    folder: Path
    seconds: dict[str, float]
    audit: str
    worked: bool
    outcome: Outcome

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"folder": str(self.folder), "seconds": self.seconds, "audit": self.audit, "worked": self.worked}

    def text(self) -> str:
        """The result in one line of text."""
        times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.seconds.items())
        state = "" if self.worked else "already complete; nothing to do. "
        return f"{self.folder}: {state}audit {self.audit}. {times}"


class _Where(TypedDict):
    """Where the work on shards runs."""

    executor: str
    workers: int | None


@dataclass
class _Stages:
    """Runs the stages one after another, keeps the duration of each stage, and writes the durations to the log of the
    run.
    """

    folder: Path
    recipe: Recipe
    executor: str
    fresh: bool
    same: bool
    seconds: dict[str, float] = field(default_factory=dict)
    worked: bool = False

    def do(self, name: str, act: Callable[[bool], T]) -> T:
        """Run a stage. `act` does the work of the stage. The argument of `act` is True when the stage must start over.

        With `fresh` and a recipe that equals the run's recipe (`same`), every stage starts over. With `fresh` and a
        changed recipe, a stage starts over only if its inputs changed.
        """
        began, before = time.monotonic(), _state(self.folder)
        # the rows of a cluster say nothing about the rate of one node
        anew = self.executor == "local" and not (self.folder / _MADE.get(name, "")).exists()
        try:
            value = act(self.fresh and self.same)
        except RunChanged:
            if not self.fresh:
                raise
            value = act(True)
        self.seconds[name] = round(time.monotonic() - began, 2)
        worked = _state(self.folder) != before
        self.worked |= worked
        counts = corpus.manifest(self.folder / _MADE[name])["counts"] if anew else {}
        line = {"stage": name, "seconds": self.seconds[name], "worked": worked}
        if rows := sum(counts.get(key, 0) for key in ("rows", "kept", "rejected")):
            line |= {"rows": rows, "recipe": digest_of_rows(self.recipe)}
        _log(self.folder / "log.jsonl", line)
        return value


_MADE = {"generate": "generated", "curate": "curated"}
"""The folders of the stages whose rows are counted in the log."""


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    fresh: bool = False,
    repair: bool = False,
    override_audit: bool = False,
    executor: str = "local",
    workers: int | None = None,
    ui: UI | None = None,
) -> Run:
    """Run all stages in the folder `out`: generate, curate, audit, train, evaluate and report. If the recipe asks for
    tests of a student, the student is audited after its evaluation. A repeated call resumes.

    With `fresh`, stages whose inputs changed start over; if no inputs changed, all stages start over. Raises GateDenied
    when no row was kept, or when the audit does not pass. In these cases, no student is trained, and the report is
    written before the error is raised. With `override_audit`, a student is trained although the audit does not pass,
    and its cards and the page say so. `executor` is where generation and curation run, with at most `workers` workers
    (see `generate` and `curate`).
    """
    durable.one_process("synthgen run")
    ui = ui or UI(quiet=True)
    folder = Path(out)
    if recipe.train and importlib.util.find_spec("transformers") is None:
        raise missing_extra("transformers", "train")  # fail now, before the teacher costs time or money
    check_installed(recipe.curate)
    check_audits(recipe.audit)
    check_run(folder)
    with durable.lock(folder):
        path = folder / "recipe.yaml"
        same = path.exists() and deciding(load_recipe(path)) == deciding(recipe)
        begin(recipe, folder, fresh)
        stages = _Stages(folder, recipe, executor, fresh, same)
        where: _Where = {"executor": executor, "workers": workers}
        stages.do("generate", lambda again: generate(recipe, folder, fresh=again, repair=repair, ui=ui, **where))
        keep_recipe(recipe, folder)
        stages.do("curate", lambda again: curate(recipe, folder, fresh=again, repair=repair, ui=ui, **where))
        later = recipe.train is not None and asks_student(recipe)  # tests with models run once, after the training
        verdict = stages.do("audit", lambda again: audit(recipe, folder, ask_models=not later, ui=ui))
        outcome, override = tally(folder / "curated"), override_audit and recipe.train is not None
        if recipe.train and outcome.kept and (verdict.passed or override):
            _train(recipe, folder, stages, override, ui)
        stages.do("report", lambda again: report(folder))
    outcome.check(folder)
    if not (verdict.passed or override):
        raise GateDenied(
            f"audit status {verdict.status} for {verdict.intent['use']} use; no student was trained",
            f"read {folder}/audit/report.md; --override-audit trains anyway, and every card will say so",
        )
    how = "" if verdict.passed else " (overridden)"
    status = f"{verdict.status}{' (waived)' if verdict.waivers and verdict.passed else how}"
    return Run(folder, stages.seconds, status, stages.worked, outcome)


def recipe_of_rows(source: SeedSource, settings: Sequence[str] = ()) -> Recipe:
    """The recipe that curates the rows of a data set with the default rules. `settings` are texts such as
    "curate.near_duplicates=true", which replace defaults. Raises RecipeError.
    """
    recipe = recipe_of_values({"task": source.source, "seeds": [source.model_dump()]})
    return resolve(with_values(recipe, read(parse_settings(settings))), Path.cwd())


def curate_dataset(
    source: SeedSource,
    out: str | Path,
    recipe: Recipe | None = None,
    *,
    fresh: bool = False,
    repair: bool = False,
    workers: int | None = None,
    executor: str = "local",
    ui: UI | None = None,
) -> Curation:
    """Curate the rows of a data set. `out` becomes the folder of a run without a teacher: its rows are in
    `out`/generated, and the result is in `out`/curated. `source` comes from `synthgen.datasets.source_of`. `recipe`
    holds the rules; without it, the default rules apply. A repeated call resumes.

    Raises the errors of `synthgen.datasets.open_dataset`, of `adopt` and of `curate`. Also raises UserError when `out`
    is inside the data set or contains it, and RunChanged when `out` belongs to another recipe. When a file cannot be
    read, nothing is written. A row that a record cannot hold is a failure.
    """
    if source.path is None:
        raise UserError("curation of a data set reads files", "give the path of a file or folder")
    ui, folder, rows = ui or UI(quiet=True), Path(out), Path(source.path)
    outputs.not_around(folder, rows)
    outputs.not_inside(folder, [rows])
    recipe = recipe.model_copy(update={"seeds": (source,)}) if recipe else recipe_of_rows(source)
    check_recipe(recipe)
    check_installed(recipe.curate)
    check_run(folder)
    dataset = open_dataset(source, skip=True)
    ui.note(f"curate: {dataset.text()}")
    with durable.lock(folder):
        begin(recipe, folder, fresh)
        named = recipe.model_copy(update={"seeds": (source.model_copy(update={"path": url_of(rows)}),)})
        keep_recipe(named, folder)  # the recipe comes before the rows, so that a killed command leaves a run
        manifest = corpus.manifest(adopt(dataset, recipe, folder, fresh=fresh, repair=repair))
        ui.note("split: " + ", ".join(f"{split} {count:,}" for split, count in rows_of_splits(manifest).items()))
        return curate(recipe, folder, fresh=fresh, repair=repair, workers=workers, executor=executor, ui=ui)


def preview_dataset(source: SeedSource, recipe: Recipe | None = None) -> Preview:
    """Curate the first rows of a data set in a temporary folder, and say what each rule would reject or change. The
    arguments are the same as for `curate_dataset`. Raises the errors of `synthgen.datasets.open_dataset` and of
    `curate`.
    """
    first = source.model_copy(update={"limit": min(source.limit or ROWS, ROWS)})
    recipe = recipe.model_copy(update={"seeds": (first,)}) if recipe else recipe_of_rows(first)
    check_installed(check_recipe(recipe).curate)
    dataset = open_dataset(first, skip=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = adopt(dataset, recipe, Path(scratch))
        return preview(recipe, folder, partial=dataset.rows == ROWS)


def _train(recipe: Recipe, folder: Path, stages: _Stages, override: bool, ui: UI) -> None:
    """Train and evaluate the student. `_train` is the only function of the package synthgen that calls the package
    distill. `_train` recognizes a finished student without loading torch.
    """

    def trained(again: bool) -> None:
        if recipe.train and not again and is_trained(recipe.train, folder / "curated", folder / "student"):
            ui.note(f"{folder / 'student'} is already trained; nothing to do")
            return
        from distill.training import train

        old = outdated(folder, folder / "student")
        if old is not None:
            ui.note(
                f"{folder / 'student'} is trained again, because '{old.name}' was removed from its corpus on {old.date}"
            )
        train(recipe, folder, fresh=again or old is not None, override_audit=override, ui=ui)

    try:
        from distill.evaluation.evaluate import evaluate
        from distill.finished import is_trained

        stages.do("train", trained)
        stages.do("evaluate", lambda again: evaluate(recipe, folder, fresh=again, ui=ui))
        if asks_student(recipe):
            stages.do("audit student", lambda again: audit_student(recipe, folder / "student", ui))
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "train") from None


def _state(folder: Path) -> list[tuple[str, int]]:
    """Paths and modification times of the files that stages make. Locks and the files of report, cards and audit are
    left out, because each call of `run` writes them again.
    """
    made = ("generated", "curated", "student")
    return [
        (p.as_posix(), p.stat().st_mtime_ns)
        for name in made
        for p in sorted((folder / name).rglob("*"))
        if p.is_file() and p.name not in ("README.md", "NOTICE.md", ".lock")
    ]


def _log(path: Path, stage: dict[str, object]) -> None:
    """Add a line to log.jsonl. If one call on one machine did a stage from beginning to end, the line has the number of
    its `rows` and the digest of its `recipe`. A reader of the log needs both to compute a rate.
    """
    line = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **stage}
    before = path.read_bytes().decode(errors="replace") if is_regular(path) else ""
    lines = [*before.splitlines(), json.dumps(line)]  # an incomplete last line also gets a line end
    durable.write_text(path, "\n".join(lines) + "\n")
