"""Measures curation on a Ray cluster of this machine beside the local executor: results, time, memory, and workers that
are killed.

    make bench-scale                                                   everything, with 1,000,000 rows
    .venv-ray/bin/python benchmarks/scale.py --rows 5000 --kill-rows 5000 --kills 3 --peer-rows 5000     a small try
    .venv-ray/bin/python benchmarks/scale.py --only rates              one part: rates, memory, kills, nodes or peer

The corpus is that of `benchmarks/curation.py`. Each arm is the command `synthgen curate` with the rules of its
`--everything`: the default rules, near duplicates, languages, broken text, personal data and decontamination. The
corpora and the results are kept in `--folder`. A repeated call of the same commit prints the results that are there
already, and measures the missing ones.

- s: from the start of the command to its end. On Ray this includes the start and the end of the cluster.
- CPU s: user and system time of all processes: the command, its workers, and the processes of the cluster. Each
  process is read twice a second, so the last half second of a process may be missing.
- of local: rows/s, divided by those of the local executor with as many workers. "CPU of local" is the same for the rows
  of a CPU second. On a busy machine only this ratio says something.
- worker MB, command MB: the peak memory (VmHWM) of the largest worker, and of the command's own process. With one
  local worker, the command does the work itself.
- plan s: what `synthgen plan --executor ray --nodes N --measured RUN` predicts. RUN was made by the local executor with
  one worker, from a tenth of the rows. N is the number of workers, but at most the number of cores, because more
  workers than cores are not more nodes. The last column is this prediction, divided by the measured time.
- result: the beginning of a hash of all files of the curated corpus. It must be the same in all arms with the same
  rows. Otherwise the program ends with exit code 1.

`kills`: in each trial, a worker is killed (SIGKILL) at a random moment of the time in which workers have tasks. The
line names the step that was running. `nodes`: in each trial, the second node of a cluster of two nodes is killed in the
search for near duplicates. Each trial must give the result of the local executor. A kill counts only if the worker, or
a worker of the node, had a task. Trials are repeated until `--kills` or `--node-kills` kills counted, but at most four
times as often.

`peer`: the sweep for near duplicates alone, beside datatrove's executor for Ray. The corpus and the measurements are
those of `benchmarks/near_duplicates.py`. Both get two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import curation
import near_duplicates
from scale_kills import kill_nodes, kill_workers
from scale_runs import ROOT, Bench, Result

from synthgen.executor.local import cores

PARTS = ("rates", "memory", "kills", "nodes", "peer")
_HEADER = (
    f"{'arm':8}{'workers':>8}{'rows':>11}{'s':>9}{'CPU s':>9}{'rows/s':>9}{'of local':>10}{'CPU of local':>14}"
    f"{'worker MB':>11}{'command MB':>12}{'plan s':>9}{'plan/s':>8}  result"
)


def predicted(run: Path, rows: int, nodes: int) -> float:
    """The seconds that `synthgen plan` predicts for the curation. NaN if it uses no rate of `run`, for example because
    another version made the run.
    """
    command = ["plan", str(run / "recipe.yaml"), "--executor", "ray", "--nodes", str(nodes), "--rows", str(rows)]
    said = subprocess.run(
        [sys.executable, "-m", "synthgen.cli", *command, "--measured", str(run), "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True,
    ).stdout  # fmt: skip
    return float(json.loads(said)["outlook"]["seconds"].get("curate", "nan"))


def rates(bench: Bench, rows: int, workers: list[int]) -> bool:
    """Print a line for each arm. Returns whether all results are equal."""
    small = bench.run_of(max(100, rows // 10))
    first = bench.measured("local", 1, max(100, rows // 10))
    print(f"\nrates: {rows:,} rows. Measured for the plan: {max(100, rows // 10):,} rows in {first.seconds:.1f} s")
    print(_HEADER, flush=True)
    arms = [("local", count) for count in workers if count <= cores()] + [("ray", count) for count in workers]
    equal, local = True, dict[int, Result]()
    for arm, count in arms:
        result = bench.measured(arm, count, rows)
        said = bench.same(rows, result)
        equal &= "DIFFERENT" not in said
        if arm == "local":
            local[count] = result
        share = f"{'-':>10}{'-':>14}"
        if count in local:
            share = f"{local[count].seconds / result.seconds:10.2f}{local[count].cpu / result.cpu:14.2f}"
        plan = predicted(small, rows, min(count, cores()))
        print(
            f"{arm:8}{count:8}{rows:11,}{result.seconds:9.1f}{result.cpu:9.1f}{rows / result.seconds:9,.0f}{share}"
            f"{result.worker_mb:11,.0f}{result.command_mb:12,.0f}{plan:9.1f}{plan / result.seconds:8.2f}  {said}",
            flush=True,
        )
    return equal


def memory(bench: Bench, rows: int, workers: list[int]) -> bool:
    """Print the peak memory on Ray for a tenth of the rows and for all rows. Returns whether all results are equal."""
    few, equal = max(100, rows // 10), True
    print(f"\nmemory on Ray, {few:,} and {rows:,} rows\n{'workers':>8}{'worker MB':>20}{'ratio':>7}", end="")
    print(f"{'command MB':>20}{'ratio':>7}", flush=True)
    for count in workers:
        pair = [bench.measured("ray", count, size) for size in (few, rows)]
        equal &= all("DIFFERENT" not in bench.same(*one) for one in zip((few, rows), pair, strict=True))
        text = f"{count:8}"
        for name in ("worker_mb", "command_mb"):
            before, after = (getattr(one, name) for one in pair)
            text += f"{before:10,.0f}{after:10,.0f}{after / before:7.2f}"
        print(text, flush=True)
    return equal


def peer(rows: int, text: Path | None) -> bool:
    """Compare near duplicates on Ray with datatrove on Ray."""
    parts = near_duplicates.sentences(text) if text else [part for part in curation.sentences() if part.isascii()]
    print(f"\npeer: near duplicates of {rows:,} rows on Ray, two cores")
    print(f"{'tool':16}{'s':>8}{'docs/s':>10}{'CPU s':>8}{'MB':>8}{'kept':>10}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.parquet"
        near_duplicates.make(corpus, rows, parts)
        for tool in ("synthgen ray", "datatrove ray"):
            try:
                python = Path(sys.executable) if tool == "synthgen ray" else near_duplicates.install(tool)
                run = near_duplicates.measure(tool, python, corpus, last=20)
            except subprocess.CalledProcessError as error:
                run = (error.stderr or str(error)).strip()
            said = f"{tool:16}failed:\n{run}" if isinstance(run, str) else near_duplicates.line(tool, rows, [run], None)
            print(said, flush=True)
    return True


def main() -> None:
    """Run the chosen parts. The exit code is 1 if results differ, or too few kills counted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--node-kills", type=int, default=10)
    parser.add_argument("--kill-rows", type=int, default=100_000)
    parser.add_argument("--peer-rows", type=int, default=1_000_000)
    parser.add_argument("--text", type=Path, help="for peer: JSONL of {prompt, completion}, may end in .gz")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "scale")
    options = parser.parse_args()
    bench = Bench(options.folder)
    acts: dict[str, Callable[[], bool]] = {
        "rates": lambda: rates(bench, options.rows, options.workers),
        "memory": lambda: memory(bench, options.rows, options.workers),
        "kills": lambda: kill_workers(bench, options.kill_rows, options.kills),
        "nodes": lambda: kill_nodes(bench, options.kill_rows, options.node_kills),
        "peer": lambda: peer(options.peer_rows, options.text),
    }
    if not all([acts[name]() for name in PARTS if name in options.only]):
        sys.exit("results differ, or too few kills hit a task")


if __name__ == "__main__":
    main()
