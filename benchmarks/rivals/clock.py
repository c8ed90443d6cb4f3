"""Functions for all scripts that `benchmarks/rivals.py` runs: their options, the clock and the result file.

This module uses the standard library only, because it runs in the environment of each tool. A script imports the tool
and creates the tool's objects before it calls `timed`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BEGAN = time.monotonic()
OPTIONS: dict[str, Any] = json.loads(sys.argv[1])  # a mapping with the keys url, model, requests, in_flight and folder
FOLDER = Path(OPTIONS["folder"])
RESULT: dict[str, Any] = {}


def questions() -> list[str]:
    """The prompts: short questions that are all different."""
    return [f"What is {i}?" for i in range(OPTIONS["requests"])]


@contextmanager
def timed() -> Iterator[None]:
    """Measures the time of the tool's call that sends the requests and writes the rows. Put this call inside `with`."""
    RESULT["before_s"], RESULT["before_cpu_s"] = time.monotonic() - _BEGAN, sum(os.times()[:4])
    began = time.monotonic()
    yield
    RESULT["seconds"] = time.monotonic() - began


def report(settings: str, rows: Iterable[tuple[str, str | None]]) -> None:
    """Writes the result file. `rows` are pairs (question, answer) that were read back from the disk."""
    answered = [question for question, answer in rows if answer and answer.strip()]
    RESULT.update(settings=settings, rows=len(set(answered)), twice=len(answered) - len(set(answered)))
    (FOLDER / "result.json").write_text(json.dumps(RESULT))
