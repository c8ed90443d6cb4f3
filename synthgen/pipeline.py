"""`run`: all stages of a recipe in order, each resumed or skipped by what its files say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthgen import durable
from synthgen.auditing import audit
from synthgen.curation import curate
from synthgen.errors import GateDenied, RunChanged
from synthgen.generation.driver import generate
from synthgen.recipe import Recipe, deciding, differences, dump_recipe, load_recipe
from synthgen.reporting.page import write_report
from synthgen.ui import UI


@dataclass
class Run:
    """What `run` did: the folder, seconds a stage, and the audit's status."""

    folder: Path
    seconds: dict[str, float] = field(default_factory=dict)
    audit: str = ""
    worked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"folder": str(self.folder), "seconds": self.seconds, "audit": self.audit, "worked": self.worked}


def begin(recipe: Recipe, run: Path, fresh: bool) -> None:
    """Check that RUN is this recipe's, or nobody's. Raises RunChanged naming the keys that differ.

    A run without a single row belongs to no recipe yet: a mistake that was corrected since may be written over.
    RUN/recipe.yaml is written by `generate`, once it has everything that it needs, so that a command that fails before
    claims no folder. Here it is only written again when another pace, patience or budget is asked for.
    """
    path = run / "recipe.yaml"
    if path.exists() and any((run / "generated").rglob("*.parquet")):
        old = load_recipe(path)
        changed = [] if fresh else differences(deciding(old), deciding(recipe))
        if changed:
            raise RunChanged(
                f"{run} belongs to another recipe: {'; '.join(changed[:5])}"
                + (f"; and {len(changed) - 5} more" if len(changed) > 5 else ""),
                "give another folder with -o, or --fresh to begin this one anew from the first stage that changed",
            )
        if not fresh:
            _keep_recipe(recipe, run)
        return
    there = {p.name for p in run.iterdir()} if run.is_dir() else set()
    if not path.exists() and there - {".lock", durable.TEMPORARY + path.name}:  # the latter: killed right here
        raise RunChanged(f"{run} is not empty and holds no run", "give another folder with -o")


def _keep_recipe(recipe: Recipe, run: Path) -> None:
    """Write RUN/recipe.yaml if it is not this one."""
    path = run / "recipe.yaml"
    if not path.exists() or load_recipe(path) != recipe:
        durable.write_text(path, dump_recipe(recipe))


def run(recipe: Recipe, out: str | Path, *, fresh: bool = False, repair: bool = False, ui: UI | None = None) -> Run:
    """Generate, curate, audit, train, evaluate and report into `out`. Doing it again resumes.

    With `fresh`, stages whose inputs changed are made anew (all of them when none did). Raises GateDenied, after
    the report is written, when the audit says no.
    """
    ui = ui or UI(quiet=True)
    folder = Path(out)
    result = Run(folder)
    with durable.lock(folder):
        path = folder / "recipe.yaml"
        same = path.exists() and deciding(load_recipe(path)) == deciding(recipe)
        begin(recipe, folder, fresh)
        log = _Log(folder / "log.jsonl")

        def stage(name: str, act: Callable[[bool], Any]) -> Any:
            began, before = time.monotonic(), _state(folder)
            try:
                value = act(fresh and same)
            except RunChanged:
                if not fresh:
                    raise
                value = act(True)
            result.seconds[name] = round(time.monotonic() - began, 2)
            worked = _state(folder) != before
            result.worked |= worked
            log.write(name, result.seconds[name], worked)
            return value

        stage("generate", lambda again: generate(recipe, folder, fresh=again, repair=repair, ui=ui))
        _keep_recipe(recipe, folder)
        stage("curate", lambda again: curate(recipe, folder, fresh=again, repair=repair, ui=ui))
        verdict = stage("audit", lambda again: audit(recipe, folder, ui=ui))
        result.audit = verdict.status
        if recipe.train and verdict.passed:
            _train(recipe, folder, stage, ui)
        stage("report", lambda again: write_report(folder))
    if not verdict.passed:
        raise GateDenied(
            f"the audit says {verdict.status} for {verdict.intent['use']} use; no student was trained",
            f"read {folder}/audit/report.md",
        )
    return result


def _train(recipe: Recipe, folder: Path, stage: Callable[[str, Callable[[bool], Any]], Any], ui: UI) -> None:
    """The one place where synthgen calls distill. A student that is there already is known without loading torch."""
    from synthgen.errors import missing_extra

    def trained(again: bool) -> Path:
        if recipe.train and not again and is_trained(recipe.train, folder / "curated", folder / "student"):
            ui.note(f"{folder / 'student'} is trained; nothing to do")
            return folder / "student"
        from distill.training import train

        return train(recipe, folder, fresh=again, ui=ui)

    try:
        from distill.evaluation.evaluate import evaluate
        from distill.finished import is_trained

        stage("train", trained)
        stage("evaluate", lambda again: evaluate(recipe, folder, fresh=again, ui=ui))
    except ModuleNotFoundError as error:
        raise missing_extra(str(error.name), "train") from None


def _state(folder: Path) -> list[tuple[str, int]]:
    """Names and times of what the stages make (the report and the audit are rewritten each time)."""
    made = ("generated", "curated", "student")
    return [
        (p.as_posix(), p.stat().st_mtime_ns)
        for name in made
        for p in sorted((folder / name).rglob("*"))
        if p.is_file() and p.name != "README.md"
    ]


class _Log:
    """log.jsonl: one line a stage."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, stage: str, seconds: float, worked: bool) -> None:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "stage": stage,
            "seconds": seconds,
            "worked": worked,
        }
        before = self.path.read_text() if self.path.exists() else ""
        lines = [*before.splitlines(), json.dumps(line)]  # after half a line, too, a new one begins
        durable.write_text(self.path, "\n".join(lines) + "\n")
