"""Measurements of `synthgen curate` for `benchmarks/scale.py`: the corpora, the commands, and their processes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import curation
import psutil

from synthgen.generation.claim import SEEDS
from synthgen.generation.inputs import read_inputs
from synthgen.recipe import digest_of_rows, load_recipe

ROOT = Path(__file__).resolve().parent.parent
Meanwhile = Callable[[psutil.Process], None]
"""A function that gets a running command."""


@dataclass(frozen=True)
class Result:
    """One measurement of `synthgen curate`. `working` are the seconds after the start of the command at which a worker
    was first and last seen with a task.
    """

    seconds: float
    cpu: float
    worker_mb: float
    command_mb: float
    sha256: str
    working: tuple[float, float] = (0.0, 0.0)


@dataclass
class Seen:
    """What was last read about a process: its CPU time, its peak memory in bytes, and whether it is a worker."""

    cpu: float = 0.0
    peak: int = 0
    worker: bool = False


class Watch(threading.Thread):
    """Reads the processes of a command's tree twice a second until the command ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.tree, self.seen = psutil.Process(pid), dict[int, Seen]()
        self.began, self.working = time.monotonic(), list[float]()
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            busy = [self._read(process) for process in [self.tree, *children(self.tree)]]
            if any(busy):
                self.working.append(time.monotonic() - self.began)

    def _read(self, process: psutil.Process) -> bool:
        """Read a process. Returns whether it is a worker of the cluster that has a task."""
        try:
            words = " ".join(process.cmdline())
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            cpu = sum(process.cpu_times()[:2])
        except (psutil.Error, OSError):
            return False
        one = self.seen.setdefault(process.pid, Seen())
        one.cpu, one.peak = cpu, max(one.peak, 1024 * int(found[1]) if found else 0)
        one.worker |= has_task(words) or "synthgen.executor.worker" in words
        return has_task(words)

    def result(self, seconds: float, cpu: float, sha256: str) -> Result:
        """The measurement. `cpu` is the time that the operating system counted for the command and the processes that
        it waited for.
        """
        peaks = [one.peak for one in self.seen.values() if one.worker]
        command = self.seen[self.tree.pid].peak
        working = (self.working[0], self.working[-1]) if self.working else (0.0, 0.0)
        total = max(cpu, sum(one.cpu for one in self.seen.values()))
        return Result(seconds, total, max(peaks, default=command) / 1e6, command / 1e6, sha256, working)


def has_task(words: str) -> bool:
    """Whether the command line of a process is that of a worker of Ray with a task."""
    return "ray::_call" in words  # Ray gives a process the name of the function that it runs


class Bench:
    """The corpora and the results of this commit, which lie in a folder of their own below `folder`."""

    def __init__(self, folder: Path) -> None:
        said = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
        self.folder = folder.resolve() / (said.stdout.strip()[:12] or "no-commit")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "results.jsonl"
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        self.results = {entry["key"]: Result(**entry["result"]) for entry in map(json.loads, lines)}

    def run_of(self, rows: int) -> Path:
        """A run with `rows` generated rows, which is made if it is missing."""
        run = self.folder / f"run-{rows}"
        if not (run / "generated" / "manifest.json").exists():
            shutil.rmtree(run, ignore_errors=True)
            _write_recipe(run, rows)
            curation.child(ROOT, "_make", run, rows, "")
            _state_inputs(run)
        return run

    def measured(self, arm: str, workers: int, rows: int) -> Result:
        """The result of an arm: an earlier one, or a new measurement. A local run with one worker keeps its curated
        corpus and gets a log, as `synthgen run` writes it, because `synthgen plan` reads both.
        """
        key, run = f"{arm}-{workers}-{rows}", self.run_of(rows)
        kept = arm == "local" and workers == 1
        if key in self.results and not (kept and not (run / "curated").exists()):
            return self.results[key]
        out = run / "curated" if kept else run / f"curated-{arm}-{workers}"
        result = curate(run, out, arm, workers)
        if kept:
            log = {"stage": "curate", "seconds": result.seconds, "rows": rows, "worked": True}
            log["recipe"] = digest_of_rows(load_recipe(run / "recipe.yaml"))
            (run / "log.jsonl").write_text(json.dumps(log) + "\n")
        else:
            shutil.rmtree(out)
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "result": asdict(result)}) + "\n")
        self.results[key] = result
        return result

    def same(self, rows: int, result: Result) -> str:
        """The beginning of a result's hash, with a note if the hash is not that of the local executor."""
        right = self.measured("local", 1, rows).sha256 == result.sha256
        return result.sha256[:12] + ("" if right else "  DIFFERENT")


def _write_recipe(run: Path, rows: int) -> None:
    """Write a recipe with the rules of `--everything`, for `rows` rows of one seed, which `synthgen plan` can read."""
    run.mkdir(parents=True)
    (run / "seeds.jsonl").write_text('{"id": "one", "question": "What is one?"}\n')
    (run / "user.j2").write_text("{{ question }}\n")
    recipe = {
        "task": "benchmark",
        "license": "CC0-1.0",
        "seeds": [{"path": "seeds.jsonl", "source": "benchmark", "license": "CC0-1.0", "id": "id", "group": "id"}],
        "teacher": {"engine": "replay", "path": "seeds.jsonl", "license": "CC0-1.0"},
        "generate": {"shard_size": 1024, "num_generations": rows},
        "curate": curation.EVERYTHING,
    }
    (run / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML


def _state_inputs(run: Path) -> None:
    """Let the files of the rows state the seeds and templates of the recipe, as `synthgen generate` does: `synthgen
    plan` compares them.
    """
    inputs = read_inputs(load_recipe(run / "recipe.yaml"))
    for name, stated in (
        ("inputs", {SEEDS: inputs.seeds.fingerprint}),
        ("manifest", {"prompt_version": inputs.prompt.version}),
    ):
        path = run / "generated" / f"{name}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **stated}))


def curate(
    run: Path, out: Path, arm: str, workers: int, meanwhile: Meanwhile | None = None, **environment: str
) -> Result:
    """Measure `synthgen curate`. `meanwhile` gets the running command. Ends the program if the command fails."""
    shutil.rmtree(out, ignore_errors=True)
    said = run / "output"
    where = ["--executor", arm, "--workers", str(workers)]
    began = time.monotonic()
    with said.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "synthgen.cli", "curate", str(run), "-o", str(out), "-q", *where],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    watch = Watch(process.pid)
    watch.start()
    if meanwhile:
        meanwhile(watch.tree)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.ended.set()
    watch.join()
    if process.returncode:
        sys.exit(f"{arm}, {workers} workers: exit code {process.returncode}\n{said.read_text(errors='replace')}")
    return watch.result(seconds, used.ru_utime + used.ru_stime, hash_of(out))


def children(tree: psutil.Process) -> list[psutil.Process]:
    """The processes below a process; an empty list if it has ended."""
    try:
        return list(tree.children(recursive=True))
    except psutil.Error:
        return []


def hash_of(folder: Path) -> str:
    """A hash of the names and the bytes of all files below a folder, except locks."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{digest}  {path.relative_to(folder).as_posix()}\n".encode())
    return total.hexdigest()
