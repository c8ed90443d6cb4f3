"""Compares mathematics with math-verify, in a process that can be killed.

The process is started when it is first needed, and then kept. The process is killed when a comparison takes longer than
`SECONDS`, and the next comparison starts another process. The process of math-verify also ends when this process ends
for any reason. The extra `curate` installs math-verify; without math-verify, nothing is equal here.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

from synthgen.verify.notation import Relation, notation, relation, symbolic

SECONDS = 5.0  # maximum number of seconds of wall time for one comparison
START = 60.0  # maximum number of seconds of wall time until math-verify is imported
_WORKER = Path(__file__).with_name("worker.py")

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None
_owner = 0  # the id of the process that started `_process`; a fork must not use its parent's process


def installed() -> bool:
    """Whether math-verify is installed."""
    return importlib.util.find_spec("math_verify") is not None


def equal(answer: str, expected: str) -> bool:
    """Whether the answer is mathematics that equals `expected`, which is in the form that `notation` returns."""
    given = comparable(answer, expected)
    return bool(given) and _related(relation(given), relation(expected))


def _related(given: Relation, expected: Relation) -> bool:
    """Whether two chains of relations are equal, read from the left or from the right. "y = 2x" equals "2x"."""
    if not expected.signs and given.assigns:
        given = Relation((), given.sides[1:])
    elif not given.signs and expected.assigns:
        expected = Relation((), expected.sides[1:])
    return any(
        chain.signs == expected.signs
        and all(
            one == other or decide(one, other) is True for one, other in zip(chain.sides, expected.sides, strict=True)
        )
        for chain in ((given, given.reversed()) if given.signs else (given,))
    )


def comparable(answer: str, expected: str) -> str:
    """The answer in LaTeX if math-verify is needed to compare it with `expected`. '' if one of the two is not
    mathematics, or if both are plain numbers.
    """
    given = notation(answer) if expected else ""
    return given if given and (symbolic(given) or symbolic(expected)) else ""


@lru_cache(maxsize=4096)
def decide(answer: str, expected: str) -> bool | None:
    """Whether two expressions in LaTeX are equal. None if math-verify is missing, cannot read one of the expressions,
    or takes too long.
    """
    if not installed():
        return None
    with _lock:
        return _ask(json.dumps([answer, expected]).encode() + b"\n")


def _ask(line: bytes) -> bool | None:
    process = _running()
    if process is None or process.stdin is None or process.stdout is None:
        return None
    try:
        process.stdin.write(line)
        process.stdin.flush()
        reply = _line(process.stdout.fileno(), SECONDS)
    except OSError:
        reply = None
    if reply is None:
        stop()
        return None
    verdict = json.loads(reply)
    return verdict if isinstance(verdict, bool) else None


def _running() -> subprocess.Popen[bytes] | None:
    """The running process. If no process runs, one is started. The result is None if the process does not start."""
    global _process, _owner
    if _process is not None and _owner == os.getpid() and _process.poll() is None:
        return _process
    if _owner == os.getpid():
        stop()
    command = [sys.executable, "-P", str(_WORKER)]
    _process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    _owner = os.getpid()
    if _process.stdout is None or _line(_process.stdout.fileno(), START) is None:
        stop()
        return None
    return _process


def _line(source: int, seconds: float) -> bytes | None:
    """The next line from a file descriptor. None at the end of the file, or if the line takes longer than `seconds`."""
    read = b""
    waiting = select.poll()  # `select.select` takes no file descriptor above 1023
    waiting.register(source, select.POLLIN)
    deadline = time.monotonic() + seconds
    while not read.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            return None
        chunk = os.read(source, 4096)
        if not chunk:
            return None
        read += chunk
    return read


def stop() -> None:
    """Kill the process and wait for its end. Without a process this does nothing."""
    global _process
    process, _process = _process, None
    if process is None or _owner != os.getpid():
        return
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


atexit.register(stop)
