"""Evaluations that measure in this process: starting one for each model takes longer than all that it does.

That a process of its own is started, and what it loads, is tested in tests/evaluation/test_cost.py, and with every
command in tests/commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from distill.cost import peak_rss
from synthgen.tables.reference import resolve

_USERS = ("classifiers", "fidelity", "similarity")  # modules of distill.evaluation


def measure(function: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """As `distill.cost.measure`, JSON included, but here."""
    measured = resolve(function)(json.loads(json.dumps(arguments)))
    return {**json.loads(json.dumps(measured)), "peak_rss_bytes": peak_rss()}


@contextmanager
def measured_here() -> Iterator[None]:
    """While this is open, evaluations start no processes."""
    with ExitStack() as stack:
        for name in _USERS:
            stack.enter_context(patch(f"distill.evaluation.{name}.measure", measure))
        yield
