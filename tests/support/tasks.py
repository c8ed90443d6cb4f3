"""Task functions for tests of executors, in a module that a worker process imports quickly."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from synthgen.errors import CorpusError
from synthgen.executor import Services


def squared(number: int, services: Services) -> tuple[int, int]:
    """(the square, the id of the process that computed it). The smaller the number, the longer the call takes."""
    time.sleep(0.05 / (number + 1))
    return number * number, os.getpid()


def fails(number: int, services: Services) -> int:
    if number == 3:
        raise CorpusError(f"shard {number} is damaged", "mend it")
    return number


def dies(number: int, services: Services) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def sleeps(seconds: float, services: Services) -> None:
    time.sleep(seconds)


def dies_once(path: str, services: Services) -> int:
    """Returns 1 if the file exists. Otherwise the call writes the file, and the process of the call dies."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 1
