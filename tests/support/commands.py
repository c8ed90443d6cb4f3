"""Runs commands as a user does, each in a separate process.

    done = cold("synthgen", "plan", recipe)                    # python -m synthgen.cli plan …
    done = warm("synthgen", "generate", recipe, "-o", run)     # in a fork of a process that has already imported torch

A warm command is a real process with its own signals, streams and exit code. A warm command does not spend seconds on
importing torch and transformers, and measures models in its own process. With `apart=True`, it measures models in child
processes, as a user's command does. Each of these children imports torch.

    done = warm("benchmarks/losses.py", "--tokens", 32)        # a program of the repository, as `python FILE` runs it
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import re
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.killing import IMPORTS
from support.measuring import measured_here

_LIMIT = 180.0  # seconds after which a command counts as hung
_SERVER = multiprocessing.get_context("forkserver")
# The server runs in the folder where pytest was started, which is the project's folder.
_SERVER.set_forkserver_preload([*IMPORTS, "tests.support.warmed"])
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Done:
    """The exit code of a command, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str


def cold(*command: Any, env: dict[str, str] | None = None, cwd: Path | None = None, stdin: str = "") -> Done:
    """Runs `python -m synthgen.cli …` or `python -m distill.cli …` to its end, with `stdin` as its input."""
    program, *rest = map(str, command)
    process = subprocess.run(
        [sys.executable, "-m", f"{program}.cli", *rest],
        env=_environment(env),
        cwd=cwd,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=_LIMIT,
    )
    return Done(process.returncode, process.stdout, process.stderr)


def warm(*command: Any, env: dict[str, str] | None = None, apart: bool = False, limit: float = _LIMIT) -> Done:
    """Runs a command to its end in a fork. Fails if it takes more than `limit` seconds."""
    return start(*command, env=env, apart=apart).wait(limit)


def start(*command: Any, env: dict[str, str] | None = None, apart: bool = False) -> Running:
    """Starts a warm command and returns while it runs."""
    return Running([str(part) for part in command], env or {}, apart)


class Running:
    """A command that is running. `pid` is the id of the command's process."""

    def __init__(self, command: list[str], env: dict[str, str], apart: bool) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.streams = [Path(self.folder.name) / name for name in ("out", "err")]
        self.process = _SERVER.Process(target=_main, args=(command, env, [str(s) for s in self.streams], apart))
        self.process.start()
        self.pid = self.process.pid

    def wait_for(self, *paths: Path) -> None:
        """Waits until one of the files exists, and fails if the command ends first."""
        while not any(path.exists() for path in paths):
            assert self.process.is_alive(), self.wait()
            time.sleep(0.002)

    def wait(self, limit: float = _LIMIT) -> Done:
        """Waits until the command ends, and returns its outcome."""
        self.process.join(limit)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError("the command hangs")
        out, err = (stream.read_text(encoding="utf-8") for stream in self.streams)
        self.folder.cleanup()
        return Done(self.process.exitcode, out, err)


def call(function: Any, *args: Any) -> None:
    """Calls a function of an importable module in a warm process."""
    process = _SERVER.Process(target=function, args=args)
    process.start()
    process.join(_LIMIT)
    assert process.exitcode == 0


def _main(command: list[str], env: dict[str, str], streams: list[str], apart: bool) -> None:
    gc.freeze()  # otherwise each collection of garbage would visit the objects of all imported modules
    os.environ.update(_environment(env))
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    # A shell starts its background jobs with SIGINT ignored, and a command would inherit this from the tests.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = command
    with nullcontext() if apart else measured_here():
        if command[0].endswith(".py"):
            sys.path.insert(0, str(Path(command[0]).parent))
            runpy.run_path(command[0], run_name="__main__")
        else:
            importlib.import_module(f"{command[0]}.cli").main()


def _environment(added: dict[str, str] | None) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("SYNTHGEN_") or k == "SYNTHGEN_CACHE"}
    return {**inherited, **ENVIRONMENT, **(added or {})}


def files(folder: Path) -> dict[str, bytes]:
    """Maps the path of every file below a folder, except locks, to its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def curated_files(folder: Path) -> dict[str, bytes]:
    """Maps the path of every file of a curated corpus to its bytes, without NOTICE.md and the card, which the audit
    writes.
    """
    return {name: data for name, data in files(folder).items() if name not in ("NOTICE.md", "README.md")}


def mistake(done: Done, *words: str, code: int = 2) -> Done:
    """Asserts that a command ended with one line of error and one hint, and that the line contains all `words`."""
    lines = done.err.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    assert done.code == code, done
    assert len(errors) == 1, done
    assert lines[-2:] == [errors[0], lines[-1]], done
    assert re.match(r"  → \S", lines[-1]), done
    assert "Traceback" not in done.err + done.out
    assert done.out == "", done
    for text in words:
        assert text in errors[0], (text, errors[0])
    return done
