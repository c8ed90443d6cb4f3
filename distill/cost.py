"""Measures speed and peak memory of one model in a separate process.

    found = measure("distill.evaluation.asking:ask_teacher", {"teacher": section, "questions": questions})

`measure` starts a child process, which runs `main`. `main` calls the named function, and prints its result and the peak
memory of the process as JSON. The system reports peak memory only for a whole process, so each model needs its own
process. The child watches its standard input, which the kernel closes when the parent dies, so the child exits when its
parent exits.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from synthgen.errors import SynthgenError
from synthgen.results.measures import Measure, Row
from synthgen.tables.reference import resolve

Measured = dict[str, Any]
"""The result of a child process: the value of each measure by its name, and the generated texts."""

MEASURES = {
    "parameters": Measure("parameters, M", "millions", about="cost"),
    "weights_bytes": Measure("weights, MB", "megabytes", True, "cost"),
    "peak_rss_bytes": Measure("peak memory, MB", "megabytes", True, "cost"),
    "rows_per_second": Measure("texts a second", "rate", False, "cost"),
}
"""The cost measures that most kinds of model have."""


def measure(function: str, arguments: Mapping[str, Any]) -> Measured:
    """Call `function` with `arguments` in a child process, and return its result.

    `function` has the form "module:function". `arguments` and the result are passed as JSON. Raises SynthgenError when
    the child fails.
    """
    with tempfile.TemporaryFile("w+") as errors:  # a pipe would stop a child that writes much, because nobody reads it
        child = subprocess.Popen(
            [sys.executable, "-m", "distill.cost"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(json.dumps([function, arguments]) + "\n")
            child.stdin.flush()
            output = child.stdout.read()
            if child.wait() != 0 or not output:
                errors.seek(0)
                said = errors.read().strip()
                raise SynthgenError(f"measuring failed: {said.splitlines()[-1] if said else child.returncode}")
            return dict(json.loads(output.splitlines()[-1]))
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe:
                    pipe.close()


def row_of(measured: Measured) -> Row:
    """Convert the result of a child process to a row of a table."""
    from synthgen.results import stored  # imported here, so that children do not import pydantic

    return stored.parse(measured, Row)


def main() -> None:
    """Read a function and its arguments from standard input, call it, and print the result as one line of JSON."""
    function, arguments = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    result = resolve(function)(arguments)
    result["peak_rss_bytes"] = peak_rss()
    sys.stdout.write(json.dumps(result) + "\n")


def peak_rss() -> int:
    """The largest resident set of this process so far, in bytes.

    The value is read from /proc/self/status (VmHWM) where that file exists. `ru_maxrss` is not reset by exec, so the
    child of a large parent would report the parent's value.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def counters(folder: Path = Path("/sys/class/powercap")) -> list[int]:
    """The kernel's RAPL counters of the processor packages, in microjoules. Empty when there are no counters, or when
    they are not readable.
    """
    try:
        found = [path / "energy_uj" for path in sorted(folder.glob("intel-rapl:*")) if path.name.count(":") == 1]
        return [int(path.read_text()) for path in found]
    except OSError:
        return []


def joules(before: Sequence[int], after: Sequence[int]) -> float | None:
    """The energy that was used between two readings of `counters`. None when it is not known: without counters, or when
    a counter has begun again at zero, as it does every few minutes to hours.
    """
    if not before or len(before) != len(after):
        return None
    spent = [now - then for then, now in zip(before, after, strict=True)]
    return sum(spent) / 1e6 if min(spent) >= 0 else None


def model_size(model: Any) -> Measured:
    """The number of parameters of a torch model, and the size of its weights in bytes."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
    }


def rate(act: Any, texts: Sequence[str], runs: int) -> Measured:
    """Measure how many texts a second `act(texts)` processes, in `runs` calls after a warm-up call with eight texts."""
    act(texts[:8])
    began = time.perf_counter()
    for _ in range(runs):
        act(texts)
    return {"rows_per_second": runs * len(texts) / (time.perf_counter() - began)}


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 95th percentile of `seconds`, in milliseconds."""
    p50, p95 = np.quantile(seconds, [0.5, 0.95])
    return {"p50": 1e3 * float(p50), "p95": 1e3 * float(p95)}


def _end_with_parent() -> None:
    sys.stdin.read()  # this call returns when the parent closes the pipe or dies
    os._exit(1)


if __name__ == "__main__":
    main()
