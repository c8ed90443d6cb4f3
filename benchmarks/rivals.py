"""Compares generation by synthgen, distilabel, Curator and DataDesigner: 5,000 short questions to a server that answers
in 200 ms.

    python benchmarks/rivals.py [--requests 5000] [--latency 0.2] [--in-flight 50 200 500] [--repeat 3] [--tools …]

Each tool has its own environment under .venv-rivals/ and runs with an empty home folder. A missing environment is
created, which downloads packages and takes some minutes. Each tool has its fastest documented settings, which are in
`rivals/ask_NAME.py` and are printed below the table. The server is tests/support/server.py in a separate process. The
tools take turns. With the first number that is given for --in-flight, each tool runs --repeat times. With each further
number for --in-flight, each tool runs once.

- s: the time from the call of the tool until the call returns with all rows on the disk. The time includes everything
  that the tool starts or loads during the call, such as worker processes, health checks and statistics. The rows are
  read back and counted after this time.
- before: the time before the call, in which the tool is imported and its objects are created.
- rate / ideal: the ideal time is requests / in flight × latency, and this column is the ideal time divided by s.
- server's side: the ideal time divided by the time from the first request that the server receives to the last answer
  that it sends. This column leaves out the tool's time to start and to finish.
- CPU: user and system time of the tool's process tree during the call, without the server.
- MB: the peak memory of the process tree. The memory of a process tree is the sum of its proportional set sizes (PSS),
  measured twice a second.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.serving import KEY, Serving  # noqa: E402

HOMES = ROOT / ".venv-rivals"
LIMIT = 900  # seconds after which a run is stopped
# The packages that pip installs. distilabel imports requests but does not declare it as a dependency.
TOOLS = {
    "synthgen": [],
    "curator": ["bespokelabs-curator==0.1.31"],
    "datadesigner": ["data-designer==0.9.7"],
    "distilabel": ["distilabel[openai]==1.5.3", "requests"],
}


@dataclass
class Run:
    """One measurement."""

    tool: str
    in_flight: int
    reached: int  # the maximum number of requests in flight, counted by the server
    requests: int
    rows: int  # number of different questions that have an answer
    twice: int  # number of rows whose question is already answered by another row
    ideal_s: float
    seconds: float
    server_s: float  # time from the first request to the last answer, on the server
    before_s: float  # time before the call, for imports and to create objects
    cpu_s: float
    peak_mb: float
    settings: str
    server_requests: int


class Broken(Exception):
    """A tool could not be installed, or did not finish. The message says why."""


def install(tool: str) -> Path:
    """Returns the path of Python in the tool's environment, which is created if it is missing. Raises Broken, with the
    last line of pip's output, if pip fails.
    """
    if tool == "synthgen":
        compile_all(Path(sys.executable))
        return Path(sys.executable)
    home = HOMES / tool
    python = home / "bin" / "python"
    ready = home / ".ready"
    if not ready.exists():
        print(f"{tool}: installing {' '.join(TOOLS[tool])}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        command = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", "install", *TOOLS[tool]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Broken(f"pip: {_last_line(done.stderr)}")
        compile_all(python)
        ready.touch()
    return python


def compile_all(python: Path) -> None:
    """Compiles an environment's packages and synthgen to bytecode, so that no run spends time on compiling."""
    places = [*python.parent.parent.glob("lib/*/site-packages"), ROOT / "synthgen", ROOT / "benchmarks" / "rivals"]
    command = [str(python), "-m", "compileall", "-q", "-j", "0", *map(str, places)]
    # Errors are ignored, because some packages contain files that only other versions of Python can compile.
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def version(tool: str, python: Path) -> str:
    """The installed version of the tool."""
    name = TOOLS[tool][0].partition("==")[0].partition("[")[0] if TOOLS[tool] else "synthgen-distill"
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def measure(tool: str, python: Path, requests: int, in_flight: int, latency: float) -> Run:
    """Runs a tool once, with a new server and an empty home folder. Raises Broken when the tool does not finish."""
    folder = Path(tempfile.mkdtemp(prefix=f"rivals-{tool}-"))
    server = Serving(latency=latency)
    try:
        options = {"url": server.url, "model": "m", "requests": requests, "in_flight": in_flight, "folder": str(folder)}
        script = ROOT / "benchmarks" / "rivals" / f"ask_{tool}.py"
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [str(python), str(script), json.dumps(options)],
                env=environment(folder),
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            watch = Watch(process.pid)
            watch.start()
            _, status, used = os.wait4(process.pid, 0)  # `used` also counts the tool's child processes
            process.returncode = os.waitstatus_to_exitcode(status)
            watch.ended.set()
            watch.join()
        path = folder / "result.json"
        if process.returncode or not path.exists():
            raise Broken(f"exit {process.returncode}: {_last_line((folder / 'output').read_text(errors='replace'))}")
        result: dict[str, Any] = json.loads(path.read_text())
        stats = server.stats()
        return Run(
            tool,
            in_flight,
            stats["most_in_flight"],
            requests,
            result["rows"],
            result["twice"],
            requests / in_flight * latency,
            result["seconds"],
            stats["seconds"],
            result["before_s"],
            used.ru_utime + used.ru_stime - result["before_cpu_s"],
            watch.peak / 1e6,
            result["settings"],
            stats["requests"],
        )
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    """The environment variables of a run: home and caches are in its folder, and viewer, telemetry and downloads are
    off.

    Curator and DataDesigner count tokens with a tokenizer file that one of Curator's dependencies contains.
    """
    tokenizers = sorted((HOMES / "curator").glob("lib/*/site-packages/litellm/litellm_core_utils/tokenizers"))
    return {
        **os.environ,
        "LOOPBACK_KEY": KEY,
        "OPENAI_API_KEY": KEY,
        "HOME": str(folder),
        "SYNTHGEN_CACHE": str(folder / "cache"),
        "CURATOR_CACHE_DIR": str(folder / "curator"),
        "CURATOR_VIEWER": "0",
        "TELEMETRY_ENABLED": "false",
        "NEMO_TELEMETRY_ENABLED": "false",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        **({"TIKTOKEN_CACHE_DIR": str(tokenizers[0])} if tokenizers else {}),
    }


class Watch(threading.Thread):
    """Measures the peak memory of a process tree, and ends the tree when it runs longer than LIMIT."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.process = psutil.Process(pid)
        self.ended = threading.Event()
        self.peak = 0

    def run(self) -> None:
        """Measures twice a second until `ended` is set."""
        until = time.monotonic() + LIMIT
        while not self.ended.wait(0.5):
            try:
                tree = [self.process, *self.process.children(recursive=True)]
                if time.monotonic() > until:
                    for process in tree:
                        process.kill()
                    return
                self.peak = max(self.peak, sum(_size(process) for process in tree))
            except psutil.NoSuchProcess:
                continue


def _size(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" │╰─╯")]
    return lines[-1] if lines else "no output"


def row(runs: list[Run], name: str) -> str:
    """One line of the table: medians over the runs, with the lowest and highest seconds."""
    first = runs[0]
    middle = {
        f: statistics.median(getattr(run, f) for run in runs) for f in vars(first) if f not in ("tool", "settings")
    }
    spread = f" ({min(r.seconds for r in runs):.1f}–{max(r.seconds for r in runs):.1f})" if len(runs) > 1 else ""
    lost = sum(run.requests - run.rows for run in runs)
    cells = [
        name,
        f"{first.in_flight}"
        if middle["reached"] == first.in_flight
        else f"{first.in_flight}, reached {middle['reached']:.0f}",
        f"{middle['seconds']:.1f}{spread}",
        f"{first.requests / middle['seconds']:.0f}",
        f"{first.ideal_s / middle['seconds']:.2f}",
        f"{first.ideal_s / middle['server_s']:.2f}",
        f"{middle['cpu_s'] / first.requests * 1e3:.2f}",
        f"{middle['peak_mb']:.0f}",
        f"{middle['before_s']:.1f}",
        f"{lost}",
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| | in flight | s | requests/s | rate / ideal | server's side | CPU ms/request | MB | s before | rows lost |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measures all tools and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--repeat", type=int, default=3, help="runs with the first --in-flight; default 3")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    options = parser.parse_args()
    names, pythons, broken = {}, {}, {}
    for tool in options.tools:
        try:
            pythons[tool] = install(tool)
            names[tool] = f"{tool} {version(tool, pythons[tool])}"
        except Broken as problem:
            broken[tool] = str(problem)
    plan = [(options.in_flight[0], tool) for _ in range(options.repeat) for tool in pythons]
    plan += [(in_flight, tool) for in_flight in options.in_flight[1:] for tool in pythons]
    runs: dict[tuple[int, str], list[Run]] = {}
    for in_flight, tool in plan:
        try:
            run = measure(tool, pythons[tool], options.requests, in_flight, options.latency)
        except Broken as problem:
            broken[f"{tool}, {in_flight} in flight"] = str(problem)
            print(f"{tool}, {in_flight} in flight: {problem}", flush=True)
            continue
        runs.setdefault((in_flight, tool), []).append(run)
        print(
            f"{tool}, {in_flight} in flight: {run.seconds:.1f} s, {run.server_s:.1f} s at the server, "
            f"{run.cpu_s:.1f} s CPU, {run.rows} rows and {run.twice} duplicates, "
            f"{run.server_requests} requests at the server",
            flush=True,
        )
    when = f"{datetime.date.today()}, {os.cpu_count()} cores"
    print(f"\n{options.requests:,} requests, {options.latency * 1e3:.0f} ms, {when}\n")
    print(HEAD)
    for (_, tool), repeated in runs.items():
        print(row(repeated, names[tool]))
    print()
    for (_, tool), repeated in runs.items():
        print(f"{names[tool]}: {repeated[0].settings}")
    for what, why in broken.items():
        print(f"NOT MEASURED: {what}: {why}")


if __name__ == "__main__":
    main()
