"""synthgen beside distilabel, Curator and DataDesigner: 5,000 short questions to one server that takes 200 ms.

    python benchmarks/rivals.py [--requests 5000] [--latency 0.2] [--in-flight 50 200 500] [--repeat 3] [--tools …]

Each tool gets an environment of its own under .venv-rivals/ (made when it is not there: some minutes, and packages are
downloaded), its best documented settings, which `rivals/ask_NAME.py` holds and the table shows, and an empty home. The
server is tests/support/server.py in a process of its own. Tools take turns; the settings after the first are measured once.

- s: from the call that asks to its return, with all rows on the disk (read back after the clock has stopped, and
  counted). A tool's imports and objects come before it, and are `before`. What a tool starts or loads within the call
  counts: worker processes, health checks, its statistics of the rows.
- ideal: requests / in flight × latency; its share of s; and of the time from the server's first request to its last
  answer, which leaves out all starting and finishing.
- CPU: of the tool's whole process tree after `before`, user and system, the server's apart.
- memory: largest sum of the tree's proportional set sizes, seen twice a second.
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
LIMIT = 900  # seconds a run
# What pip is asked for. distilabel imports requests and declares it no longer: its own dependencies dropped it.
TOOLS = {
    "synthgen": [],
    "curator": ["bespokelabs-curator==0.1.31"],
    "datadesigner": ["data-designer==0.9.7"],
    "distilabel": ["distilabel[openai]==1.5.3", "requests"],
}


@dataclass
class Run:
    """One measurement; `ideal_s` at this many in flight."""

    tool: str
    in_flight: int
    reached: int
    requests: int
    rows: int
    twice: int
    ideal_s: float
    seconds: float
    server_s: float
    before_s: float
    cpu_s: float
    peak_mb: float
    settings: str
    server_requests: int


class Broken(Exception):
    """A tool that could not be installed or did not finish; says why."""


def install(tool: str) -> Path:
    """The tool's Python, in its own environment. Raises Broken with what pip said."""
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
    """Bytecode of an environment's packages and of ours, so that no run compiles them in its time."""
    places = [*python.parent.parent.glob("lib/*/site-packages"), ROOT / "synthgen", ROOT / "benchmarks" / "rivals"]
    command = [str(python), "-m", "compileall", "-q", "-j", "0", *map(str, places)]
    subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # packages hold files of other Pythons


def version(tool: str, python: Path) -> str:
    """The tool's version, as its package says."""
    name = TOOLS[tool][0].partition("==")[0].partition("[")[0] if TOOLS[tool] else "synthgen-distill"
    code = f"from importlib.metadata import version; print(version({name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def measure(tool: str, python: Path, requests: int, in_flight: int, latency: float) -> Run:
    """One run with a fresh server and an empty home. Raises Broken."""
    folder = Path(tempfile.mkdtemp(prefix=f"rivals-{tool}-"))
    server = Serving(latency=latency)
    try:
        given = {"url": server.url, "model": "m", "requests": requests, "in_flight": in_flight, "folder": str(folder)}
        script = ROOT / "benchmarks" / "rivals" / f"ask_{tool}.py"
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [str(python), str(script), json.dumps(given)],
                env=environment(folder),
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            watch = Watch(process.pid)
            watch.start()
            _, status, used = os.wait4(process.pid, 0)  # with everything it has waited for
            process.returncode = os.waitstatus_to_exitcode(status)
            watch.ended.set()
            watch.join()
        said = folder / "said.json"
        if process.returncode or not said.exists():
            raise Broken(f"exit {process.returncode}: {_last_line((folder / 'output').read_text(errors='replace'))}")
        found: dict[str, Any] = json.loads(said.read_text())
        stats = server.stats()
        return Run(
            tool,
            in_flight,
            stats["most_in_flight"],
            requests,
            found["rows"],
            found["twice"],
            requests / in_flight * latency,
            found["seconds"],
            stats["seconds"],
            found["before_s"],
            used.ru_utime + used.ru_stime - found["before_cpu_s"],
            watch.peak / 1e6,
            found["settings"],
            stats["requests"],
        )
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def environment(folder: Path) -> dict[str, str]:
    """Variables of a run: caches and home in its folder, viewers and telemetry off, and no downloads.

    The tokenizer with which Curator and DataDesigner count comes with one of Curator's dependencies.
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
    """The most memory of a process and all below it; ends it when it takes too long."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.process = psutil.Process(pid)
        self.ended = threading.Event()
        self.peak = 0

    def run(self) -> None:
        """Look twice a second."""
        until = time.monotonic() + LIMIT
        while not self.ended.wait(0.5):
            try:
                everybody = [self.process, *self.process.children(recursive=True)]
                if time.monotonic() > until:
                    for one in everybody:
                        one.kill()
                    return
                self.peak = max(self.peak, sum(_size(one) for one in everybody))
            except psutil.NoSuchProcess:
                continue


def _size(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip(" │╰─╯")]
    return lines[-1] if lines else "nothing said"


def row(runs: list[Run], name: str) -> str:
    """A line of the table: medians, and the range of the seconds."""
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
    "| | in flight | s | requests/s | of the ideal | server's side | CPU ms/request | MB | before, s | rows lost |\n"
    "|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--latency", type=float, default=0.2)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[50, 200, 500])
    parser.add_argument("--repeat", type=int, default=3, help="of the first setting; the others are measured once")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    given = parser.parse_args()
    names, pythons, broken = {}, {}, {}
    for tool in given.tools:
        try:
            pythons[tool] = install(tool)
            names[tool] = f"{tool} {version(tool, pythons[tool])}"
        except Broken as problem:
            broken[tool] = str(problem)
    plan = [(given.in_flight[0], tool) for _ in range(given.repeat) for tool in pythons]
    plan += [(in_flight, tool) for in_flight in given.in_flight[1:] for tool in pythons]
    runs: dict[tuple[int, str], list[Run]] = {}
    for in_flight, tool in plan:
        try:
            run = measure(tool, pythons[tool], given.requests, in_flight, given.latency)
        except Broken as problem:
            broken[f"{tool}, {in_flight} in flight"] = str(problem)
            print(f"{tool}, {in_flight} in flight: {problem}", flush=True)
            continue
        runs.setdefault((in_flight, tool), []).append(run)
        print(
            f"{tool}, {in_flight} in flight: {run.seconds:.1f} s, {run.server_s:.1f} s at the server, "
            f"{run.cpu_s:.1f} s CPU, {run.rows} rows ({run.twice} twice), server saw {run.server_requests}",
            flush=True,
        )
    when = f"{datetime.date.today()}, {os.cpu_count()} cores"
    print(f"\n{given.requests:,} requests, {given.latency * 1e3:.0f} ms, {when}\n")
    print(HEAD)
    for (_, tool), some in runs.items():
        print(row(some, names[tool]))
    print()
    for (_, tool), some in runs.items():
        print(f"{names[tool]}: {some[0].settings}")
    for what, why in broken.items():
        print(f"NOT MEASURED: {what}: {why}")


if __name__ == "__main__":
    main()
