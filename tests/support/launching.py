"""Starts training in several processes, as `torchrun` and `accelerate launch` do.

done = launch(2, [{"recipe": task, "run": run, "out": tmp_path / "two"}])
assert done.returncode == 0, done.stderr
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("launched.py")
_TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node"]
_ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes"]


def launch(processes: int, trainings: Sequence[Mapping[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Run `trainings` one after the other in `processes` processes. `support.launched` describes the keys of a
    training.
    """
    return torchrun(processes, str(_SCRIPT), json.dumps(trainings, default=str))


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or with "-m" a module, under `torchrun`."""
    return _run([*_TORCHRUN, str(processes), *arguments])


def accelerate_launch(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script, or with "-m" a module, under `accelerate launch`."""
    return _run([*_ACCELERATE, str(processes), *arguments])


def errors_in(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The error messages of the processes. The launcher's own lines are left out."""
    return [line for line in done.stderr.splitlines() if line.startswith("Error:")]


def _run(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    here = [str(_SCRIPT.parent.parent), str(_SCRIPT.parent.parent.parent)]
    path = os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300, env=environment, check=False
    )
