"""What every runner of `benchmarks/rivals.py` shares: what it was given, its clock, and what it says at the end.

Standard library only: it runs in each tool's own environment. Time to the call of `asking` is imports and setting up.
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
GIVEN: dict[str, Any] = json.loads(sys.argv[1])  # url, model, requests, in_flight, folder
FOLDER = Path(GIVEN["folder"])
SAID: dict[str, Any] = {}


def questions() -> list[str]:
    """The prompts: short, and all different."""
    return [f"What is {i}?" for i in range(GIVEN["requests"])]


@contextmanager
def asking() -> Iterator[None]:
    """Around the tool's own call that asks and writes."""
    SAID["before_s"], SAID["before_cpu_s"] = time.monotonic() - _BEGAN, sum(os.times()[:4])
    began = time.monotonic()
    yield
    SAID["seconds"] = time.monotonic() - began


def say(settings: str, rows: Iterable[tuple[str, str | None]]) -> None:
    """The result: `rows` are (question, answer) as they are read back from the disk."""
    answered = [question for question, answer in rows if answer and answer.strip()]
    SAID.update(settings=settings, rows=len(set(answered)), twice=len(answered) - len(set(answered)))
    (FOLDER / "said.json").write_text(json.dumps(SAID))
