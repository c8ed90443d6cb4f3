"""Runs commands on copies of a run in which one file is damaged.

    for path, way in cases(base):
        run = damaged(base, tmp_path / "copy", path, way)
        code, output = in_fork(["synthgen", "show", run], tmp_path, 60)

The damage is seeded: the same test makes the same damage again.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import time
from pathlib import Path
from random import Random

from click.testing import CliRunner

import distill.cli
import synthgen.cli
from support.mutations import mutate, ways_for

SEED = 13
PROGRAMS = {"synthgen": synthgen.cli.main, "distill": distill.cli.main}
GOOD = (0, 1, 2)
"""The exit codes of commands that end as they should."""


def cases(base: Path) -> list[tuple[str, str]]:
    """Pairs (path of a file, name of a way to damage it), in random order."""
    paths = [path for path in sorted(base.rglob("*")) if path.is_file()]
    found = [(path.relative_to(base).as_posix(), way) for path in paths for way in ways_for(path)]
    Random(SEED).shuffle(found)
    return found


def damaged(base: Path, folder: Path, path: str, way: str) -> Path:
    """A copy of the run in `folder`, with one damaged file."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)
    resolved = folder / "run" / "recipe.yaml"
    if resolved.exists():
        resolved.write_text(resolved.read_text().replace("PLACE/", f"{folder}/"))
    mutate(folder / path, way, Random(f"{SEED}{path}{way}"))
    return folder / "run"


def in_process(command: list[object], limit: int = 10) -> tuple[int | str, str]:
    """(exit code, output) of a command that runs in this process. A hang ends after `limit` seconds."""

    def hang(number: int, frame: object) -> None:
        raise TimeoutError("the command hangs")

    program, *rest = map(str, command)
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(limit)
    try:
        done = CliRunner().invoke(PROGRAMS[program], rest)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    known = done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code if known else repr(done.exception), done.output


def preload() -> None:
    """Imports the modules that the commands import, so that the forks of this process need not import them again."""
    for module in (
        "distill.students.decoder",
        "distill.training",
        "distill.evaluation.evaluate",
        "distill.exporting.decoder",
        "distill.exporting.gguf",
        "pandas",
        "pyarrow.parquet",
        "synthgen.curation",
        "synthgen.reporting.page",
        "synthgen.reporting.plots",
        "torch._dynamo",
        "transformers.masking_utils",
        "transformers.models.llama.modeling_llama",
    ):
        importlib.import_module(module)


def in_fork(command: list[object], folder: Path, limit: float) -> tuple[int | str, str]:
    """(exit code, output) of a command that runs in a fork of this process, or ("hang", output)."""
    log = folder / "log"
    child = os.fork()
    if not child:
        for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
            os.dup2(os.open("/dev/null" if not number else log, flags | (os.O_CREAT if number else 0)), number)
        code = in_process(command, int(limit))
        os.write(2, code[1].encode(errors="replace"))
        os._exit(code[0] if isinstance(code[0], int) else 99)
    end = time.monotonic() + limit
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "hang", log.read_text(errors="replace")
