"""Trials: kill a command, run it again, and list everything that is wrong with the run afterwards.

    setup = undisturbed(server, recipe, folder)
    trial(server, setup, "generate", [(7, "before")])  # → [] if nothing is wrong

The undisturbed run, which is never killed, shows what the result must be.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from distill.outputs import trained
from support.killing import Server
from synthgen import durable, outputs

COMMANDS: dict[str, Callable[[Path, Path], list[Any]]] = {
    "generate": lambda recipe, run: ["synthgen", "generate", recipe, "-o", run],
    "curate": lambda recipe, run: ["synthgen", "curate", run],
    "train": lambda recipe, run: ["distill", "train", run],
    "run": lambda recipe, run: ["synthgen", "run", recipe, "-o", run],
}
STAGES = ("generate", "curate", "train")
# Files that differ between runs: locks, times, and files with today's date.
NO_RESULTS = (".lock", "log.jsonl", "report.html", "report.json", "report.md", "evaluation.json")


@dataclass
class Setup:
    """A recipe, and three facts about each stage: a copy of the undisturbed run after the stage (`after`), the stage's
    calls of functions in `killing.HOOKED` (`calls`), and its duration (`seconds`).
    """

    recipe: Path
    folder: Path
    after: dict[str, Path] = field(default_factory=dict)
    calls: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def before(self, stage: str) -> Path | None:
        """The undisturbed run before `stage`, or None for the first stage."""
        earlier = {"curate": "generate", "train": "audit"}.get(stage)
        return self.after[earlier] if earlier else None


def undisturbed(server: Server, recipe: Path, folder: Path, stages: Sequence[str] = STAGES) -> Setup:
    """Runs the commands of the stages one after the other, and keeps a copy of the run after each stage. The corpus is
    audited before the training, because the training needs the report.
    """
    setup = Setup(recipe, folder)
    run = folder / "run"
    folder.mkdir()
    for stage in stages:
        if stage == "train":
            audited = server.run(["synthgen", "audit", run])
            assert audited.code == 0, audited.output
            setup.after["audit"] = Path(shutil.copytree(run, folder / "after-audit"))
        outcome = server.run(COMMANDS[stage](recipe, run))
        assert outcome.code == 0, outcome.output
        assert not outcome.orphans
        setup.calls[stage], setup.seconds[stage] = outcome.calls, outcome.seconds
        setup.after[stage] = Path(shutil.copytree(run, folder / f"after-{stage}"))
    for name, output in {"generated": outputs.GENERATED, "curated": outputs.CURATED, "student": trained()}.items():
        unknown = [path for path in outputs.files_in(run / name) if not output.names(path)]
        assert not unknown, f"--fresh does not know these files of {name}: {unknown}"
    return setup


def trial(
    server: Server,
    setup: Setup,
    stage: str,
    cuts: Sequence[tuple[int, str] | float],
    fault: str = "",
    command: list[Any] | None = None,
    base: Path | None = None,
    again: Callable[[Path], bool] = lambda path: False,
) -> list[str] | None:
    """Kills a stage's command once for each of `cuts`, runs it to its end, and returns a list of what is wrong.

    A cut is a number of seconds, or (number of a call of a function in `killing.HOOKED`, "before" or "after"). Returns
    None if the command ended before the first kill. `command` replaces the command of the stage, and may contain RUN,
    which is replaced by the folder of the run. `base` is the run with which the trial begins, by default the
    undisturbed run before the stage. `again` says which files the command may write a second time.
    """
    run = Path(tempfile.mkdtemp(dir=setup.folder)) / "run"
    base = base or setup.before(stage)
    if base:
        shutil.copytree(base, run)
    command = [run if part == "RUN" else part for part in command or COMMANDS[stage](setup.recipe, run)]
    wrong: list[str] = []
    done: dict[Path, tuple[int, int]] = {}
    for number, cut in enumerate(cuts):
        timed = isinstance(cut, float)
        outcome = server.run(command, fault=fault, **({"after": cut} if timed else {"cut": cut}))
        if outcome.code >= 0:
            if number == 0:
                shutil.rmtree(run.parent)
                return None if timed else [f"not killed at {cut}: exit {outcome.code}: {outcome.output}"]
            break
        wrong += [f"left behind: process {pid}" for pid in outcome.orphans]
        wrong += rewritten(done) + duplicate_ids(run)
        done = {path: state for path, state in committed(run).items() if not again(path)}
    steps = {} if "--fresh" in command else checkpointed(run)  # a command with --fresh uses no checkpoint
    outcome = server.run(command, fault=fault)
    if outcome.code != 0:
        wrong.append(f"the same command ended with {outcome.code}: {outcome.output}")
    for arm, step in steps.items():
        if f"{step} were already there" not in outcome.output:
            wrong.append(f"the checkpoint of '{arm}' at step {step} was not used: {outcome.output}")
    wrong += rewritten(done) + differences(setup.after[stage], run)
    shutil.rmtree(run.parent)
    return wrong


def committed(run: Path) -> dict[Path, tuple[int, int]]:
    """Maps every file of a committed shard or a finished student to its inode and time of modification."""
    files = []
    for data in (p for p in run.glob("*/data/*.parquet") if not p.name.startswith(".")):
        files += [p for p in data.parent.parent.rglob(data.name)]
    for metrics in run.rglob("metrics.jsonl"):
        files += [metrics, metrics.with_name("model.safetensors")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def rewritten(done: dict[Path, tuple[int, int]]) -> list[str]:
    """The files of `done` that were deleted or written again later."""
    return [
        f"made again: {path.name}"
        for path, state in done.items()
        if not path.exists() or (path.stat().st_ino, path.stat().st_mtime_ns) != state
    ]


def duplicate_ids(run: Path) -> list[str]:
    """Ids that a corpus has more than once among its rows, failures and rejected rows."""
    problems = []
    for corpus_ in (run / "generated", run / "curated"):
        names = [p.name for p in corpus_.glob("data/*.parquet") if not p.name.startswith(".")]
        ids = Counter(
            i for part in ("data", "failures", "rejected") for name in names for i in row_ids(corpus_ / part / name)
        )
        problems += [f"id {i} is in {corpus_.name} {n} times" for i, n in ids.items() if n > 1]
    return problems


def row_ids(path: Path) -> list[str]:
    try:
        return pq.read_table(path, columns=["id"])["id"].to_pylist()
    except (pa.ArrowInvalid, FileNotFoundError):
        return []  # the file is missing or damaged; the next run of the command must report or repair it


def checkpointed(run: Path) -> dict[str, int]:
    """The step of the newest checkpoint of each unfinished arm. A kill while saving can leave two checkpoints."""
    newest = {}
    for path in run.glob("student/checkpoints/*.safetensors"):
        arm = path.stem.rpartition("-")[0]
        target = run / "student" / ("" if arm == "distilled" else "baseline")
        if not path.name.startswith(".") and not (target / "metrics.jsonl").exists():
            with safe_open(path, "np") as file:
                # If the first student is finished, the command also counts the steps of this student as resumed.
                before = run / "student" / "metrics.jsonl"
                finished_steps = len(before.read_text().splitlines()) if before.exists() else 0
                newest[arm] = max(newest.get(arm, 0), int(file.metadata()["step"]) + finished_steps)
    return newest


def differences(expected: Path, actual: Path) -> list[str]:
    """Files that only one of two folders has, or whose bytes differ."""
    trees = [
        {p.relative_to(root): p for p in root.rglob("*") if not p.is_dir() and p.name not in NO_RESULTS}
        for root in (expected, actual)
    ]
    wrong = [f"missing: {name}" for name in trees[0].keys() - trees[1].keys()]
    wrong += [f"too many: {name}" for name in trees[1].keys() - trees[0].keys()]
    wrong += [f"left: {p.name}" for p in actual.rglob(f"{durable.TEMPORARY}*") if p.is_dir()]
    both = trees[0].keys() & trees[1].keys()
    return wrong + [f"differs: {n}" for n in sorted(both) if trees[0][n].read_bytes() != trees[1][n].read_bytes()]


def all_well(server: Server, cuts: Sequence[Any], act: Callable[[Any], list[str] | None]) -> int:
    """Runs one trial for each cut, several at a time. Fails if anything is wrong. Returns the number of kills."""
    results = server.map(act, cuts)
    wrong = [f"{cut}: {finding}" for cut, result in zip(cuts, results, strict=True) for finding in result or ()]
    assert not wrong, "\n".join(wrong[:20])
    return sum(result is not None for result in results)
